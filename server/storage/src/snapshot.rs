//! Snapshots: how everything that is derived from the log outlives the log's entries.
//!
//! A snapshot is a cut of all views behind one log entry. Rows become Parquet files; then one
//! object names the files and has the catalog and the cursors. What it covers need not be
//! replayed, and may go. Deliberately knows nothing of how the rows are read.

mod compactor;
mod edit;
pub(crate) mod image;
mod journals;
mod objects;
mod task;
mod trim;

use std::{num::NonZeroU64, time::Duration};

use outrigger_log::LogError;
use outrigger_model::bytes::ByteSize;

pub use self::image::ImageError;
pub(crate) use self::{
    edit::Edit,
    journals::{JournalPart, StoredJournals},
    objects::{Opened, SnapshotObjects},
    task::{SnapshotTask, Snapshots, Stored},
    trim::followers,
};

/// When snapshots are made, and what is kept behind them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The span of time of a file; the first start decides.
    pub window: Duration,
    /// After so many log entries.
    pub entries: NonZeroU64,
    /// When rows take more memory than this.
    pub memory: ByteSize,
    /// How many log entries are kept that no one needs.
    pub entries_kept: u64,
    /// How many log entries a trigger may lag behind before it loses the oldest.
    pub lag_max: u64,
    /// How often is looked which files are older than their databases keep rows.
    pub retention_check: Duration,
    /// How much memory joining small files may take; nothing is joined if it is none.
    pub compaction_memory: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(10),
            entries: NonZeroU64::new(600).expect("not zero"),
            memory: ByteSize::mib(256),
            entries_kept: 300,
            lag_max: 100_000,
            retention_check: Duration::from_mins(30),
            compaction_memory: ByteSize(0),
        }
    }
}

/// A snapshot that could not be made, or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// An object could not be written or read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Rows could not be written as Parquet.
    #[error("write the rows of table {table} as Parquet")]
    Encode {
        /// The table's id, or the journal's name.
        table: String,
        /// What was wrong.
        source: parquet::errors::ParquetError,
    },
    /// The rows of a journal cannot be read.
    #[error("{object} cannot be read: restore it from a backup, or start with another --node-id")]
    Decode {
        /// The object.
        object: String,
        /// What was wrong.
        source: parquet::errors::ParquetError,
    },
    /// The newest snapshot cannot be read, and there is no other.
    #[error(
        "the snapshot {object} cannot be read, and the log entries that it covers may be gone: \
         restore this object from a backup, or start with another --node-id"
    )]
    Damaged {
        /// The object.
        object: String,
        /// What was wrong.
        source: ImageError,
    },
    /// Our own mistake.
    #[error("making a snapshot has panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

#[cfg(test)]
mod tests;
