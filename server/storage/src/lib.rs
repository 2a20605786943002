//! What was written and can be read: the write path (validate, log, apply,
//! publish), the memtables it fills, the Parquet files that snapshots make of them, and
//! the feed that triggers follow.
//!
//! Everything is derived from the log, and comes back from the last snapshot and the log's
//! entries behind it.

mod announcer;
mod decoding;
mod error;
pub mod feed;
mod files;
pub mod journal;
pub mod keeping;
mod lag;
mod memtable;
mod merge;
mod metrics;
mod open;
mod persisted;
pub mod points;
mod pressure;
mod record;
mod rehearsal;
pub mod snapshot;
mod state;
#[cfg(test)]
mod testing;
mod validate;
mod write;

pub use error::{WriteError, WriteErrorBody};
pub use files::ParquetFile;
pub use lag::Lag;
pub use open::{OpenError, Settings, StorageTask, Stores};
pub use persisted::{CommittedFile, FileDelivery, Reason};
pub use rehearsal::{Rehearsal, Rehearsed};
pub use state::{Snapshot, TableView};
pub use write::{
    Commit, Committed, MakeChange, MakeJournal, RejectedWrite, Storage, Target, TargetWrite,
    WriteRequest,
};
