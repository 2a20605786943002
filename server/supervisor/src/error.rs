//! How things fail, and whose fault it is.

use std::{fmt, io, path::PathBuf, time::Duration};

use outrigger_sandbox::LaunchError;

use crate::environment::GoneError;

/// Why a worker ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExitReason {
    /// It ended with this exit code, and nobody had asked it to.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel ended it for want of memory.
    OutOfMemory {
        /// What shows it.
        evidence: String,
    },
    /// It missed the invocation's deadline and was killed.
    DeadlineExceeded {
        /// The time it had.
        timeout: Duration,
    },
    /// Nobody wanted what it ran any more, it did not end in time, and was killed.
    Unwanted,
    /// It said something that it may not say, and was killed.
    ProtocolViolation(String),
    /// It did not take the rows that it had asked for, and was killed.
    SlowReader {
        /// How long they waited.
        waited: Duration,
    },
    /// The server ended it, for no fault of its own.
    Retired,
    /// Its host ended.
    HostLost,
    /// It ended, and its host does not say how.
    Unreported,
    /// Its private directories held more than they may.
    PrivateFull(String),
    /// It had more open than it may, of what is counted for others too.
    TooMuchOpen(String),
    /// It could not be made the worker of its plugin, of which nothing ran.
    NotAssigned(String),
}

impl ExitReason {
    /// Whether the plugin may be to blame: where nothing of it ran, it is not.
    pub(crate) fn is_the_plugins(&self) -> bool {
        !matches!(
            self,
            Self::HostLost | Self::Unreported | Self::NotAssigned(_)
        )
    }

    /// Its kind, for counting.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Code(_) => "code",
            Self::Signal(_) => "signal",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::Unwanted => "unwanted",
            Self::ProtocolViolation(_) => "protocol_violation",
            Self::SlowReader { .. } => "slow_reader",
            Self::Retired => "retired",
            Self::HostLost => "host_lost",
            Self::Unreported => "unreported",
            Self::NotAssigned(_) => "not_assigned",
            Self::PrivateFull(_) => "private_full",
            Self::TooMuchOpen(_) => "too_much_open",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "the worker exited with code {code}"),
            // Ours is `Retired` or told with its reason.
            Self::Signal(9) => write!(
                f,
                "the worker was ended by signal 9 (SIGKILL), which was not ours"
            ),
            Self::Signal(signal) => match nix_name(*signal) {
                Some(name) => write!(f, "the worker was ended by signal {signal} ({name})"),
                None => write!(f, "the worker was ended by signal {signal}"),
            },
            Self::OutOfMemory { evidence } => write!(
                f,
                "the worker was ended by signal 9 (SIGKILL) for want of memory: {evidence}"
            ),
            Self::Retired => write!(f, "the server ended the worker"),
            Self::DeadlineExceeded { timeout } => {
                write!(
                    f,
                    "the plugin ran longer than its deadline of {timeout:?} and was killed"
                )
            }
            Self::Unwanted => {
                write!(f, "nobody waits for the plugin any more, and it was ended")
            }
            Self::ProtocolViolation(what) => {
                write!(f, "the worker broke the protocol and was killed: {what}")
            }
            Self::SlowReader { waited } => write!(
                f,
                "the plugin asked for rows, did not read them for {waited:?}, and was killed"
            ),
            Self::HostLost => write!(f, "the worker's host ended, and the worker with it"),
            Self::Unreported => write!(
                f,
                "the worker's process ended, and its host, which sees how, does not say it"
            ),
            Self::PrivateFull(what) => {
                write!(
                    f,
                    "the plugin keeps too many files, and its worker was ended: {what}"
                )
            }
            Self::TooMuchOpen(what) => {
                write!(
                    f,
                    "the plugin has too much open, and its worker was ended: {what}"
                )
            }
            Self::NotAssigned(why) => write!(f, "the worker could not be assigned: {why}"),
        }
    }
}

fn nix_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// An exception that the plugin did not catch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginFailure {
    /// The class, for example `ValueError`; empty if the text says it all.
    pub exception: String,
    /// Its text.
    pub message: String,
    /// The traceback with source lines; may be empty.
    pub traceback: String,
}

impl fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exception.is_empty() {
            write!(f, "{}: ", self.exception)?;
        }
        f.write_str(&self.message)
    }
}

/// Why an invocation did not complete, by whom to blame.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvocationError {
    /// The plugin's source does not load; nothing ran.
    #[error("{0}")]
    Load(PluginFailure),
    /// The plugin raised.
    #[error("{0}")]
    Plugin(PluginFailure),
    /// The process ended or was ended.
    #[error("{reason}")]
    Worker {
        /// Why.
        reason: ExitReason,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// The host of its worker ended, and with it the worker. The plugin has run, if not to its
    /// end.
    #[error("{}", ExitReason::HostLost)]
    HostLost,
    /// The server stopped. The plugin has run, if not to its end.
    #[error("the server stopped before the plugin had ended")]
    Stopped,
    /// No worker could be had; the plugin did not run.
    #[error("no worker could be started: {0}")]
    Host(String),
    /// Its workers died too often lately; the plugin did not run.
    #[error("the plugin pauses because its workers die too often; the last time, {why}")]
    Paused {
        /// What ended the last worker.
        why: String,
        /// How long it still pauses.
        left: Duration,
    },
    /// The binding was released while the invocation waited; the plugin did not run.
    #[error("the plugin was released")]
    Released,
}

/// Why a host did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// It could not be started.
    #[error("start the plugin host")]
    Launch(#[from] LaunchError),
    /// Plugins have nothing to run in.
    #[error(transparent)]
    Environment(#[from] GoneError),
    /// Its socket failed.
    #[error("talk to the plugin host")]
    Socket(#[source] io::Error),
    /// What the kernel has for this server's user is used up.
    #[error(
        "the kernel watches no more descriptors for this server's user \
         (fs.epoll.max_user_watches): end what uses so many, or allow more"
    )]
    Watches,
    /// It did not become ready.
    #[error("the plugin host was not ready after {0:?}")]
    NotReady(Duration),
    /// It ended.
    #[error("the plugin host ended: {0}")]
    Ended(String),
    /// It said something we don't understand.
    #[error("the plugin host broke the protocol: {0}")]
    Protocol(String),
    /// The worker did not say in time that it waits, or its hello.
    #[error("the worker was not ready within {0:?}")]
    WorkerNotReady(Duration),
    /// The worker has said something on its channel after which it cannot be used.
    #[error("the worker cannot be used: {0}")]
    WorkerUnusable(String),
    /// The worker ended before it said hello.
    #[error("the worker ended before it connected: {0}")]
    WorkerEnded(String),
    /// The plugin keeps more files than it may.
    #[error("{0}")]
    PrivateFull(String),
    /// The worker cannot be confined as it should.
    #[error("the worker cannot be confined: {0}")]
    NotConfined(String),
    /// The supervisor is shutting down.
    #[error("the server is shutting down")]
    Stopping,
}

impl From<io::Error> for HostError {
    fn from(error: io::Error) -> Self {
        // No disk is meant: only epoll says this of descriptors.
        if error.kind() == io::ErrorKind::StorageFull {
            return Self::Watches;
        }
        Self::Socket(error)
    }
}

/// Why the supervisor could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Its socket could not be made.
    #[error("open the workers' socket {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directories for workers' files could not be made.
    #[error("make the directories for workers' files, {kept} and one in the run directory")]
    Private {
        /// Where files are kept.
        kept: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
