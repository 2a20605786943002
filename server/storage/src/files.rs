//! Rows that have left memory: Parquet files, each with the points of one table in a span of
//! time.

mod encode;
mod join;
mod pick;
mod windows;

use serde::{Deserialize, Serialize};

use crate::persisted::Reason;

pub(crate) use self::{
    encode::{decode_rows, encode_journal, encode_points},
    join::join_files,
    pick::{Bounds, pick},
};

/// A Parquet file of a table. It has each point at most once, sorted by tags and time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ParquetFile {
    /// The object's name in the store.
    pub path: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its rows.
    pub row_count: u64,
    /// The first time in it, in nanoseconds since the epoch.
    pub min_time: i64,
    /// The last.
    pub max_time: i64,
    /// It has what was written up to this log entry: where files have the same point, the
    /// values of the file with the higher number win.
    pub sequence: u64,
}

impl ParquetFile {
    /// Why there is such a file; its name says it.
    pub(crate) fn reason(&self) -> Reason {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        if name.contains('-') {
            Reason::Compaction
        } else {
            Reason::Snapshot
        }
    }
}

/// How the file is named that takes the place of others, the newest of which has that number.
/// No other attempt has the same time.
pub(crate) fn joined_name(sequence: u64, nanos: i64) -> String {
    format!("{sequence:010}-{nanos}.parquet")
}
