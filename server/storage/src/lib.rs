//! What was written and can be read: the write path (validate, log, apply,
//! publish), the memtables it fills, and the feed that triggers follow.
//!
//! Everything lives in memory and comes back by replaying the log; Parquet files
//! and snapshots have their place beside `memtable`.

mod error;
pub mod feed;
pub mod journal;
mod lag;
mod memtable;
mod merge;
mod metrics;
mod record;
mod rehearsal;
mod state;
mod validate;
mod write;

pub use error::{WriteError, WriteErrorBody};
pub use lag::Lag;
pub use rehearsal::{Rehearsal, Rehearsed};
pub use state::{Snapshot, TableView};
pub use write::{
    Commit, Committed, MakeChange, MakeJournal, RejectedWrite, Storage, Target, TargetWrite,
    WriteRequest,
};
