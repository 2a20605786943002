//! Why a write was refused, in whole or in part.

use outrigger_catalog::CatalogError;
use outrigger_log::LogError;
use outrigger_model::{bytes::ByteSize, error::ErrorKind, line_protocol::LineError};

/// A write that did not, or not fully, happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There was no point in it.
    #[error("incoming write was empty")]
    Empty,
    /// The database cannot be written to.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Nothing was stored because of this line.
    #[error("line protocol parsing error")]
    Line(#[source] LineError),
    /// The other lines were stored.
    #[error("partial write of line protocol occurred")]
    Partial(Vec<LineError>),
    /// Our own mistake: checking the write has panicked.
    #[error("check the write")]
    Panicked(#[source] tokio::task::JoinError),
    /// Rows in memory cannot become files as fast as others come. Wait, and mend what the
    /// reason says.
    #[error(
        "nothing of this write was stored: rows in memory take {rows}, which is more than {max} (twice \
         --force-snapshot-mem-threshold), and wait for a snapshot: {reason}; try again later"
    )]
    Behind {
        /// What they take.
        rows: ByteSize,
        /// What they may take.
        max: ByteSize,
        /// Why there is no snapshot yet.
        reason: String,
    },
    /// The write could not be made durable.
    #[error("write to the log")]
    Log(#[from] LogError),
}

/// The lines that an error is about, as the API reports them.
#[derive(Debug)]
pub enum WriteErrorBody<'a> {
    /// The line because of which nothing was stored.
    One(&'a LineError),
    /// The lines that were not stored.
    Many(&'a [LineError]),
    /// It is not about lines.
    None,
}

impl WriteError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Line(line) if line.limit => ErrorKind::Exhausted,
            Self::Partial(lines) if lines.iter().any(|line| line.limit) => ErrorKind::Exhausted,
            Self::Empty | Self::Line(_) | Self::Partial(_) => ErrorKind::Invalid,
            Self::Panicked(_) => ErrorKind::Internal,
            Self::Behind { .. } => ErrorKind::Unavailable,
            Self::Catalog(error) => error.kind(),
            Self::Log(error) => error.kind(),
        }
    }

    /// The lines it is about.
    pub fn lines(&self) -> WriteErrorBody<'_> {
        match self {
            Self::Line(line) => WriteErrorBody::One(line),
            Self::Partial(lines) => WriteErrorBody::Many(lines),
            _ => WriteErrorBody::None,
        }
    }
}
