//! How far triggers lag behind the log: which of the last entries have how many rows for
//! whom, without the rows.

use std::collections::{HashSet, VecDeque};

use outrigger_model::{
    clock::Timestamp,
    ids::{Sequence, TableId, TriggerId},
};
use parking_lot::Mutex;

use crate::{feed::EntryRows, state::State};

/// For how many tables of how many entries is remembered that they have rows.
const REMEMBERED_MAX: usize = 200_000;

/// What a trigger has still to see. A lower bound where it lags further than is remembered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lag {
    /// Log entries that have rows for it.
    pub entries: u64,
    /// Those rows.
    pub rows: u64,
    /// When the oldest of them could be read, or when the server started, if that was later.
    pub since: Option<Timestamp>,
}

/// The rows of one table in one entry.
#[derive(Clone, Copy, Debug)]
struct Written {
    entry: Sequence,
    at: Timestamp,
    table: TableId,
    rows: u64,
}

/// What the last entries have brought, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recollection(Mutex<VecDeque<Written>>);

impl Recollection {
    pub(crate) fn push(&self, entry: &EntryRows, at: Timestamp) {
        let mut written = self.0.lock();
        for table in &entry.tables {
            written.push_back(Written {
                entry: entry.sequence,
                at,
                table: table.table,
                rows: table.batch.num_rows() as u64,
            });
        }
        let surplus = written.len().saturating_sub(REMEMBERED_MAX);
        written.drain(..surplus);
    }

    /// Entries up to this one are gone: nobody will see them.
    pub(crate) fn forget(&self, through: Sequence) {
        let mut written = self.0.lock();
        let gone = written.partition_point(|written| written.entry <= through);
        written.drain(..gone);
    }

    /// How much memory it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.0.lock().capacity() * size_of::<Written>()
    }

    /// How far a trigger lags that wants the rows of one table, or of all its database's.
    pub(crate) fn lag(&self, state: &State, trigger: TriggerId, table: Option<&str>) -> Lag {
        let written = self.0.lock();
        // Looked at after the lock was taken: an entry is applied to the catalog before it
        // is remembered here, so nothing counts that was just dealt with.
        let catalog = state.catalog();
        let Some((database, trigger)) = catalog.trigger_by_id(trigger) else {
            return Lag::default();
        };
        let tables = database.tables.iter();
        let tables: HashSet<TableId> = tables
            .filter(|(_, table)| table.deletion.is_none())
            .filter(|(name, _)| table.is_none_or(|wanted| wanted == *name))
            .map(|(_, table)| table.id)
            .collect();
        let progress = &trigger.progress;
        let behind = written.partition_point(|written| written.entry <= progress.cursor());
        let missing = written
            .range(behind..)
            .filter(|written| tables.contains(&written.table) && !progress.includes(written.entry));
        let (mut lag, mut last) = (Lag::default(), None);
        for written in missing {
            lag.rows += written.rows;
            lag.since.get_or_insert(written.at);
            if last.replace(written.entry) != Some(written.entry) {
                lag.entries += 1;
            }
        }
        lag
    }
}
