//! What can go wrong with the log, and what an operator does about it.

use std::{io, sync::Arc, time::Duration};

use outrigger_model::{error::ErrorKind, ids::Sequence};

use crate::entry::DecodeError;

/// A failure of the log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The object store failed.
    #[error("{action} {object}")]
    Store {
        /// A verb.
        action: &'static str,
        /// The object in question.
        object: String,
        /// What the store said.
        source: Arc<object_store::Error>,
    },
    /// A file could not be made durable. What is on disk is unknown, and asking again
    /// would not tell: the system reports such a failure once. The log stops; restart the
    /// server to recover what is there.
    #[error("make {path} durable")]
    Durable {
        /// The file or directory.
        path: String,
        /// What the file system said.
        source: Arc<io::Error>,
    },
    /// An entry that others follow cannot be read; restore the object from a backup.
    #[error(
        "{object} cannot be read and is not the last entry of the log, so acknowledged writes are lost \
         without it: restore this object from a backup, or start with another --node-id"
    )]
    Corrupt {
        /// The object.
        object: String,
        /// Where and why.
        source: DecodeError,
    },
    /// The last entry is incomplete, and the operator wants to look at it first.
    #[error(
        "{object} is the last entry of the log and incomplete, so most likely nobody was told of it; \
         with --wal-replay-fail-on-error the server does not start: restore this object from a backup, \
         or start once without that flag, which puts it aside"
    )]
    TornTail {
        /// The object.
        object: String,
        /// Where and why.
        source: DecodeError,
    },
    /// An entry is missing between two others; restore it.
    #[error("log entry {missing} is missing though {next} exists: restore {object} from a backup")]
    Gap {
        /// The entry that is not there.
        missing: Sequence,
        /// One that follows it.
        next: Sequence,
        /// The object's name.
        object: String,
    },
    /// The entry was decoded, but a view could not take it in.
    #[error(
        "replay {object}: {reason}; the entry is whole, so most likely another version has written it: \
         start that one, or restore this object from a backup"
    )]
    Apply {
        /// The object.
        object: String,
        /// What the view said.
        reason: String,
    },
    /// Another server writes to the same log.
    #[error(
        "{object} was written by another server: two servers run with the same --node-id on the same \
         object store; stop one of them"
    )]
    Fenced {
        /// The entry that was there already.
        object: String,
    },
    /// An earlier failure stopped the log; the server has to be restarted.
    #[error("the log has stopped after an earlier failure")]
    Stopped,
    /// Our own mistake: the task that writes the log has panicked; restart the server.
    #[error("the task that writes the log has panicked")]
    Panicked,
    /// The store has not taken a submission in time. It stays in line.
    #[error(
        "the object store has not taken it after {waited:?}: {reason}. It is kept and tried again, so it \
         may still be stored; it does no harm to write the same points again"
    )]
    NotYetDurable {
        /// How long somebody waited.
        waited: Duration,
        /// What the store said last.
        reason: String,
    },
    /// The write buffer stayed full for too long.
    #[error(
        "the write buffer is full: {bytes_max} bytes or {submissions_max} writes wait for the object store: {reason}. \
         Nothing of this was stored; try again later"
    )]
    BufferFull {
        /// How much it takes.
        bytes_max: usize,
        /// How many.
        submissions_max: usize,
        /// What the store said last.
        reason: String,
    },
}

impl LogError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BufferFull { .. }
            | Self::NotYetDurable { .. }
            | Self::Stopped
            | Self::Store { .. }
            | Self::Durable { .. } => ErrorKind::Unavailable,
            Self::Fenced { .. } => ErrorKind::Conflict,
            Self::Panicked
            | Self::Corrupt { .. }
            | Self::TornTail { .. }
            | Self::Gap { .. }
            | Self::Apply { .. } => ErrorKind::Internal,
        }
    }
}
