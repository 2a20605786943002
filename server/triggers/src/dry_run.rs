//! Runs a plugin once for an event that did not happen, and shows what came of it.
//!
//! The plugin's source, its worker and the protocol are those of production, and so are the
//! answers to its queries. Only what it writes and logs is kept for whoever tries it out
//! instead of being stored: see [`capture`].

mod capture;
mod runs;
mod sessions;

use std::{collections::BTreeMap, time::Duration};

use outrigger_model::{bytes::ByteSize, error::ErrorKind, trace::Trace};
use outrigger_storage::WriteError;
use outrigger_supervisor::{Request, Response};
use tokio::task::JoinError;

pub(crate) use self::sessions::is_dry_run;
pub use self::{capture::Captures, runs::DryRuns};
use crate::source::SourceError;

/// How many dry runs may go on at a time.
const RUNNING_MAX: usize = 4;
/// How many files a plugin may be tried with.
const FILES_MAX: usize = 100;

/// Limits of dry runs.
#[derive(Clone, Debug)]
pub struct DryRunConfig {
    /// How long one may take that does not say how long.
    pub invocation_timeout: Duration,
    /// How many bytes of lines one may write.
    pub lines_bytes_max: ByteSize,
}

/// A dry run that is wanted.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// Where the plugin is, in the plugin directory.
    pub plugin: String,
    /// The database that its trigger would belong to.
    pub database: String,
    /// What the plugin gets as `args`.
    pub arguments: Option<BTreeMap<String, String>>,
    /// Dry runs of one plugin for one database with the same name share a cache.
    pub cache_name: Option<String>,
    /// How long it may take; as long as any invocation if `None`.
    pub timeout: Option<Duration>,
    /// What it is to be run for.
    pub event: DryEvent,
    /// To which trace it belongs.
    pub trace: Trace,
}

/// What a plugin is tried with.
#[derive(Clone, Debug)]
pub enum DryEvent {
    /// As if lines had been written.
    Writes {
        /// Line protocol with nanosecond timestamps.
        lines: String,
        /// As if the trigger was for this table only.
        table: Option<String>,
    },
    /// As if files that there are had just been committed.
    Files {
        /// As if the trigger was for this table only.
        table: Option<String>,
        /// How many of the newest, at most [`FILES_MAX`]; one if `None`.
        files: Option<usize>,
    },
    /// As if it was the next time of a schedule.
    Schedule {
        /// A cron expression, or `every:` and a duration; every second if `None`.
        schedule: Option<String>,
    },
    /// As if a request had come.
    Request(Request),
}

/// What came of a dry run.
#[derive(Clone, Debug, Default)]
pub struct DryRunReport {
    /// What the engine and the plugin have said, each with its level.
    pub log_lines: Vec<String>,
    /// What the plugin has written, by database.
    pub database_writes: BTreeMap<String, Vec<String>>,
    /// Everything that went wrong.
    pub errors: Vec<String>,
    /// The scheduled time, in RFC 3339.
    pub trigger_time: Option<String>,
    /// The plugin's answer to a request.
    pub response: Option<Response>,
}

/// Why there was no dry run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DryRunError {
    /// It would have no time.
    #[error("the timeout must be longer than 0s")]
    Timeout,
    /// It would have no files, or too many.
    #[error("the number of files must be from 1 to {FILES_MAX}")]
    Files,
    /// The plugin cannot be read.
    #[error("Plugin error")]
    Source(#[from] SourceError),
    /// The database cannot be one.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Too many at a time.
    #[error("{RUNNING_MAX} dry runs of plugins are going on, which is the limit; try again later")]
    Busy,
    /// The server is ending.
    #[error("the server is shutting down")]
    Stopping,
    /// Our own mistake.
    #[error("make the dry run")]
    Panicked(#[source] JoinError),
}

impl DryRunError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Timeout | Self::Files => ErrorKind::Invalid,
            Self::Source(error) => error.kind(),
            Self::Write(error) => error.kind(),
            Self::Busy | Self::Stopping => ErrorKind::Unavailable,
            Self::Panicked(_) => ErrorKind::Internal,
        }
    }
}
