//! What a trigger has still to see: rows by log entry, from memory or from the log.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arrow::array::RecordBatch;
use outrigger_catalog::Catalog;
use outrigger_log::{LogError, store::EntryStore};
use outrigger_model::{
    ids::{DatabaseId, Sequence, TableId, TriggerId},
    trace::TraceContext,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    FileDelivery, Lag,
    memtable::{held_bytes, slice_bytes},
    merge::{conform, union_schema},
    record::Meaning,
    state::{State, decode},
};

/// How much memory the rows take that are kept for triggers that are up to date.
const RECENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many entries are looked at before a reader gets a say again.
const ENTRIES_MAX: u64 = 1000;

/// How many writes of a delivery are named.
const ORIGINS_MAX: usize = 32;

/// The rows of one table in one entry.
#[derive(Clone, Debug)]
pub(crate) struct TableRows {
    pub(crate) database: DatabaseId,
    pub(crate) table: TableId,
    pub(crate) batch: RecordBatch,
    pub(crate) origin: Option<TraceContext>,
}

/// The rows of one entry.
#[derive(Debug)]
pub(crate) struct EntryRows {
    pub(crate) sequence: Sequence,
    pub(crate) tables: Vec<TableRows>,
}

impl EntryRows {
    pub(crate) fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            tables: Vec::new(),
        }
    }

    /// What keeping it costs.
    fn bytes(&self) -> usize {
        let rows = self.tables.iter().map(|rows| held_bytes(&rows.batch));
        size_of::<Self>() + rows.sum::<usize>()
    }
}

/// The last entries' rows.
#[derive(Debug)]
pub(crate) struct Recent {
    entries: Mutex<(VecDeque<Arc<EntryRows>>, usize)>,
    last: watch::Sender<Sequence>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            last: watch::Sender::new(Sequence(0)),
        }
    }
}

impl Recent {
    pub(crate) fn push(&self, rows: EntryRows) {
        let sequence = rows.sequence;
        {
            let (entries, bytes) = &mut *self.entries.lock();
            *bytes += rows.bytes();
            entries.push_back(Arc::new(rows));
            while *bytes > RECENT_BYTES_MAX && entries.len() > 1 {
                *bytes -= entries.pop_front().map_or(0, |oldest| oldest.bytes());
            }
        }
        // Entries that are recalled lie before it.
        self.last.send_modify(|last| *last = sequence.max(*last));
    }

    /// Nothing is kept of the entries up to this one.
    pub(crate) fn start_behind(&self, sequence: Sequence) {
        self.last.send_replace(sequence);
    }

    /// The last applied entry, and every one that follows.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Sequence> {
        self.last.subscribe()
    }

    /// How much memory it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.entries.lock().1
    }

    fn get(&self, sequence: Sequence) -> Option<Arc<EntryRows>> {
        let (entries, _) = &*self.entries.lock();
        let first = entries.front()?.sequence;
        let index = usize::try_from(sequence.0.checked_sub(first.0)?).ok()?;
        entries.get(index).cloned()
    }
}

/// The rows of one table that are handed to a plugin together.
#[derive(Clone, Debug)]
pub struct TableBatch {
    /// The table.
    pub name: String,
    /// All with the same schema: tags, fields, time.
    pub batches: Vec<RecordBatch>,
}

impl TableBatch {
    /// How many rows there are in all.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Which traced writes the rows of a delivery come from.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The first of them.
    pub first: Vec<TraceContext>,
    /// How many there are in all.
    pub count: usize,
}

impl Origins {
    fn add(&mut self, origin: TraceContext, last: &mut Option<TraceContext>) {
        // The rows of one write stand together.
        if last.replace(origin) == Some(origin) {
            return;
        }
        self.count += 1;
        if self.first.len() < ORIGINS_MAX {
            self.first.push(origin);
        }
    }
}

/// What is handed to a plugin in one event.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Every entry up to this one has been looked at.
    pub through: Sequence,
    /// The first and the last entry that have rows for it; `None` if there are none.
    pub entries: Option<(Sequence, Sequence)>,
    /// The tables that have rows, by name; empty if there is nothing to deliver.
    pub tables: Vec<TableBatch>,
    /// Who wrote the rows.
    pub origins: Origins,
}

/// Which rows are wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The database.
    pub database: DatabaseId,
    /// Only this table; all of them if `None`.
    pub table: Option<String>,
    /// Stop before an entry that would bring more rows than this, unless it is the first.
    pub rows_max: usize,
    /// Likewise for bytes.
    pub bytes_max: usize,
}

/// Reads the log's rows for triggers.
#[derive(Clone, Debug)]
pub struct Feed {
    state: Arc<State>,
    store: Arc<EntryStore>,
}

impl Feed {
    pub(crate) fn new(state: Arc<State>, store: Arc<EntryStore>) -> Self {
        Self { state, store }
    }

    /// The last applied entry, and every one that follows.
    pub fn subscribe(&self) -> watch::Receiver<Sequence> {
        self.state.recent.subscribe()
    }

    /// How far a trigger lags that wants the rows of one table, or of all its database's.
    pub fn lag(&self, trigger: TriggerId, table: Option<&str>) -> Lag {
        self.state.recollection.lag(&self.state, trigger, table)
    }

    /// The files that were committed and told of in the entries behind `after`, for a trigger:
    /// as many entries as there are up to `until`, but no more files than `files_max` unless
    /// one entry has more.
    pub fn files(
        &self,
        trigger: TriggerId,
        (after, until): (Sequence, Option<Sequence>),
        files_max: usize,
    ) -> FileDelivery {
        let after = after.max(self.state.removed());
        let last = *self.state.recent.last.borrow();
        let last = until.map_or(last, |until| last.min(until));
        self.state
            .committed_files(trigger, (after, last), files_max)
    }

    /// How far a trigger lags behind the files that are committed.
    pub fn files_lag(&self, trigger: TriggerId) -> Lag {
        self.state.files_lag(trigger)
    }

    /// The rows of the entries behind `after` that pass the filter: as many entries as
    /// there are up to `until` and as fit, or a good number of entries without any. Entries
    /// that are gone have none.
    pub async fn read(
        &self,
        after: Sequence,
        until: Option<Sequence>,
        filter: &Filter,
    ) -> Result<Delivery, LogError> {
        loop {
            let removed = self.state.removed();
            let read = self.read_kept(after.max(removed), until, filter).await;
            // An entry may have gone while this was about to read it.
            if read.is_ok() || self.state.removed() == removed {
                return read;
            }
        }
    }

    async fn read_kept(
        &self,
        after: Sequence,
        until: Option<Sequence>,
        filter: &Filter,
    ) -> Result<Delivery, LogError> {
        let last = *self.state.recent.last.borrow();
        let last = last.min(Sequence(after.0.saturating_add(ENTRIES_MAX)));
        let last = until.map_or(last, |until| last.min(until));
        let catalog = self.state.catalog();
        let mut found: BTreeMap<TableId, Vec<RecordBatch>> = BTreeMap::new();
        let mut entries: Option<(Sequence, Sequence)> = None;
        let (mut rows, mut bytes, mut through) = (0, 0, after);
        let (mut origins, mut last_origin) = (Origins::default(), None);
        while through < last {
            let sequence = through.next();
            let entry = self.entry(sequence).await?;
            let wanted: Vec<&TableRows> = entry
                .tables
                .iter()
                .filter(|rows| filter.wants(&catalog, rows))
                .collect();
            if !wanted.is_empty() {
                rows += wanted
                    .iter()
                    .map(|rows| rows.batch.num_rows())
                    .sum::<usize>();
                bytes += wanted
                    .iter()
                    .map(|rows| slice_bytes(&rows.batch))
                    .sum::<usize>();
                let too_much = rows > filter.rows_max || bytes > filter.bytes_max;
                if too_much && entries.is_some() {
                    break;
                }
                let first = entries.map_or(sequence, |(first, _)| first);
                entries = Some((first, sequence));
            }
            for table in wanted {
                if let Some(origin) = table.origin {
                    origins.add(origin, &mut last_origin);
                }
                found
                    .entry(table.table)
                    .or_default()
                    .push(table.batch.clone());
            }
            through = sequence;
        }
        Ok(Delivery {
            through,
            entries,
            tables: name_tables(&catalog, filter.database, found),
            origins,
        })
    }

    async fn entry(&self, sequence: Sequence) -> Result<Arc<EntryRows>, LogError> {
        if let Some(entry) = self.state.recent.get(sequence) {
            return Ok(entry);
        }
        let entry = self.store.read(sequence).await?;
        let meanings = decode(&entry).map_err(|reason| LogError::Apply {
            object: self.store.object(sequence),
            reason,
        })?;
        Ok(Arc::new(rows_of(sequence, meanings)))
    }
}

/// The rows among an entry's records.
pub(crate) fn rows_of(sequence: Sequence, meanings: Vec<Meaning>) -> EntryRows {
    let tables = meanings.into_iter().filter_map(|meaning| match meaning {
        Meaning::Rows {
            database,
            table,
            batch,
            origin,
        } => Some(TableRows {
            database,
            table,
            batch,
            origin,
        }),
        _ => None,
    });
    EntryRows {
        sequence,
        tables: tables.collect(),
    }
}

impl Filter {
    /// What was deleted meanwhile is nobody's event any more.
    fn wants(&self, catalog: &Catalog, rows: &TableRows) -> bool {
        let table = || {
            let database = catalog.database_by_id(self.database)?;
            let table = database.table_by_id(rows.table)?;
            let is_deleted = database.deletion.is_some() || table.deletion.is_some();
            (!is_deleted).then_some(table)
        };
        rows.database == self.database
            && table().is_some_and(|table| {
                let wanted = self.table.as_ref();
                wanted.is_none_or(|wanted| *wanted == table.name)
            })
    }
}

pub(crate) fn name_tables(
    catalog: &Catalog,
    database: DatabaseId,
    found: BTreeMap<TableId, Vec<RecordBatch>>,
) -> Vec<TableBatch> {
    let Some(database) = catalog.database_by_id(database) else {
        return Vec::new();
    };
    found
        .into_iter()
        .filter_map(|(id, batches)| {
            let schema = union_schema(batches.iter());
            let batches = batches
                .iter()
                .map(|batch| conform(batch, &schema))
                .collect::<Result<_, _>>()
                .expect("batches of one table agree on the types of its columns");
            Some(TableBatch {
                name: database.table_by_id(id)?.name.clone(),
                batches,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow::{array::Int64Array, datatypes::Schema};

    use super::*;

    fn entry(sequence: u64, rows: usize) -> EntryRows {
        let values: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        let fields = vec![arrow::datatypes::Field::new(
            "n",
            values.data_type().clone(),
            false,
        )];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![values]).unwrap();
        let mut entry = EntryRows::new(Sequence(sequence));
        entry.tables.push(TableRows {
            database: DatabaseId(1),
            table: TableId(1),
            batch,
            origin: None,
        });
        entry
    }

    /// Most of what a small entry takes are not its values.
    #[test]
    fn small_entries_are_not_kept_without_end() {
        let recent = Recent::default();
        let count = 200_000;
        for sequence in 1..=count {
            recent.push(entry(sequence, 1));
        }
        let kept = recent.entries.lock().0.len();
        assert!(kept < RECENT_BYTES_MAX / 1000, "{kept} entries are kept");
        assert!(recent.held_bytes() <= RECENT_BYTES_MAX);
        assert!(recent.get(Sequence(count)).is_some());
        assert!(recent.get(Sequence(1)).is_none());
    }

    #[test]
    fn the_last_entry_is_kept_however_large_it_is() {
        let recent = Recent::default();
        recent.push(entry(1, RECENT_BYTES_MAX / 8 + 1));
        assert!(recent.get(Sequence(1)).is_some());
        recent.push(entry(2, 1));
        assert!(recent.get(Sequence(1)).is_none());
        assert!(recent.get(Sequence(2)).is_some());
    }
}
