//! The supervisor's settings.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use outrigger_model::bytes::ByteSize;

use crate::environment::VirtualEnvironment;

/// How hosts and workers are run.
#[derive(Clone, Debug)]
pub struct Config {
    /// What plugins can import.
    pub virtual_environment: VirtualEnvironment,
    /// The environment of hosts and workers.
    pub environment: BTreeMap<OsString, OsString>,
    /// The working directory of workers.
    pub directory: PathBuf,
    /// An existing directory that only the server can enter; the socket is made in it.
    pub run_directory: PathBuf,
    /// How long a host may take until its modules are loaded.
    pub host_start_max: Duration,
    /// How long a worker may take from its fork until it has said hello.
    pub worker_start_max: Duration,
    /// How long a plugin's source may take to be compiled.
    pub load_max: Duration,
    /// How long a worker has between being asked to end and being killed.
    pub grace: Duration,
    /// How many bytes an invocation may write.
    pub lines_bytes_max: ByteSize,
}
