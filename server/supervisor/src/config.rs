//! The supervisor's settings.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use outrigger_model::bytes::ByteSize;

use crate::{confinement::Confinement, environment::VirtualEnvironment};

/// How hosts and workers are run.
#[derive(Clone, Debug)]
pub struct Config {
    /// What plugins can import.
    pub virtual_environment: VirtualEnvironment,
    /// The environment of hosts and workers.
    pub environment: BTreeMap<OsString, OsString>,
    /// The plugin directory: its entries appear in workers' private directories.
    pub directory: PathBuf,
    /// An existing directory that only the server can enter; the socket is made in it.
    pub run_directory: PathBuf,
    /// How long a host may take until its modules are loaded.
    pub host_start_max: Duration,
    /// How long a worker may take from its fork until it waits for a plugin, and from there
    /// until it has said hello.
    pub worker_start_max: Duration,
    /// How long a plugin's source may take to be compiled.
    pub load_max: Duration,
    /// How long a worker has between being asked to end and being killed.
    pub grace: Duration,
    /// How many bytes an invocation may write.
    pub lines_bytes_max: ByteSize,
    /// How many workers there are, and how long they live.
    pub pool: PoolLimits,
    /// What workers may touch.
    pub confinement: Confinement,
}

impl Config {
    /// The workers' private socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_directory.join("supervisor.sock")
    }

    /// Where private directories are that go with a worker.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.run_directory.join("workers")
    }
}

/// How many workers there are, and how long they live. A worker only ever ends between
/// invocations because of these.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// How many there may be in all; further invocations wait.
    pub workers_max: usize,
    /// How many wait warm for a plugin that has none yet.
    pub spares: usize,
    /// How long one that keeps no objects for its plugin may wait for the next invocation.
    pub idle_max: Duration,
    /// How many invocations one runs; no limit if `None`.
    pub invocations_max: Option<u64>,
    /// How long one lives; no limit if `None`.
    pub age_max: Option<Duration>,
    /// At what peak of memory one is replaced, in bytes; no limit if `None`.
    pub memory_bytes_max: Option<u64>,
    /// How long a plugin may keep a worker while another one has none and no more may be made.
    pub fair_turn: Duration,
}
