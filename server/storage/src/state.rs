//! The views of the log that this server keeps: catalog, memtables, files, journals, feed.

mod announced;
mod apply;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use outrigger_catalog::{Catalog, Table};
use outrigger_log::entry::Entry;
use outrigger_model::{
    clock::{Clock, Timestamp},
    ids::{DatabaseId, Sequence, TableId},
    schema::TableSchema,
};
use parking_lot::RwLock;
use tokio::sync::Notify;

pub(crate) use self::apply::decode;
use crate::{
    decoding::guarded,
    feed::{Recent, rows_of},
    files::ParquetFile,
    journal::JournalTable,
    lag::Recollection,
    memtable::{Memtable, Rows},
    persisted::{Announcement, Announcements},
    pressure::Pressure,
    record::Meaning,
    snapshot::{Edit, Stored},
};

/// All views, published together: whoever looks sees whole entries only.
#[derive(Debug)]
pub(crate) struct State {
    published: RwLock<Published>,
    pub(crate) recent: Recent,
    pub(crate) recollection: Recollection,
    // Log entries up to this one may be gone.
    removed: AtomicU64,
    /// Files were committed of which the log has to tell.
    pub(crate) committed: Notify,
    pressure: Pressure,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Published {
    catalog: Arc<Catalog>,
    tables: HashMap<TableId, Memtable>,
    files: HashMap<TableId, Files>,
    journals: HashMap<JournalTable, Memtable>,
    announcements: Announcements,
    /// The last entry that is in them.
    last: Sequence,
    /// How often rows went because their table was deleted: what has them on disk has to go.
    drops: u64,
}

/// The files of one table, in the order in which they were made.
pub(crate) type Files = Arc<Vec<Arc<ParquetFile>>>;

/// All views behind one log entry, for a snapshot.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) sequence: Sequence,
    pub(crate) catalog: Arc<Catalog>,
    /// The rows that are not in files yet.
    pub(crate) tables: Vec<(DatabaseId, TableId, Rows)>,
    pub(crate) files: HashMap<TableId, Files>,
    pub(crate) journals: Vec<(JournalTable, Rows)>,
    /// How often rows had gone because their table was deleted.
    pub(crate) drops: u64,
    /// What the log has still to tell of earlier commits.
    pub(crate) pending: Vec<Arc<Announcement>>,
    /// Files that no table has any more and that somebody has still to see; whoever makes the
    /// snapshot knows them.
    pub(crate) kept: Vec<Arc<ParquetFile>>,
}

/// What a snapshot brings back.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) sequence: Sequence,
    pub(crate) catalog: Catalog,
    pub(crate) files: HashMap<TableId, Files>,
    pub(crate) journals: Vec<(JournalTable, Vec<RecordBatch>)>,
    pub(crate) pending: Vec<Arc<Announcement>>,
}

/// A table's rows at one moment.
#[derive(Clone, Debug)]
pub struct TableView {
    schema: TableSchema,
    rows: Rows,
    files: Files,
    is_deleted: bool,
    oldest: Option<i64>,
}

impl TableView {
    /// Whether it was deleted: it has another name then, and only who knows it reads it.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    /// Rows of before this time, in nanoseconds since the epoch, must not be seen.
    pub fn oldest(&self) -> Option<i64> {
        self.oldest
    }

    /// Its columns.
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// The files that have the rest of its rows, in the order in which they were made. They
    /// stay where they are as long as this view is kept.
    pub fn files(&self) -> &Arc<Vec<Arc<ParquetFile>>> {
        &self.files
    }

    /// The rows in memory, each point once, with the columns of [`TableSchema::arrow`]; they
    /// are newer than those in files. May take time where points were overwritten; don't
    /// call it on an async thread.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        self.rows.batches(&self.schema.arrow())
    }
}

/// One database, and the server's journals, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    catalog: Arc<Catalog>,
    tables: BTreeMap<String, TableView>,
    journals: HashMap<JournalTable, Rows>,
}

impl Snapshot {
    /// The catalog.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The database's tables by name.
    pub fn tables(&self) -> &BTreeMap<String, TableView> {
        &self.tables
    }

    /// The rows of a journal table.
    pub fn journal(&self, table: JournalTable) -> Result<Vec<RecordBatch>, ArrowError> {
        let schema: SchemaRef = table.schema();
        self.journals
            .get(&table)
            .map_or(Ok(Vec::new()), |rows| rows.batches(&schema))
    }
}

impl State {
    /// Views of an empty log.
    pub(crate) fn new(clock: Arc<dyn Clock>, pressure: Pressure) -> Self {
        Self {
            pressure,
            published: RwLock::default(),
            recent: Recent::default(),
            recollection: Recollection::default(),
            removed: AtomicU64::new(0),
            committed: Notify::new(),
            clock,
        }
    }

    /// Continues where a snapshot was made, before anything is applied. Entries up to
    /// `removed` are gone.
    pub(crate) fn restore(&self, restored: Restored, removed: Sequence) -> Result<(), ArrowError> {
        let journals = guarded(|| remember(restored.journals));
        let journals = journals.map_err(|error| ArrowError::ExternalError(Box::new(error)))??;
        self.recent.start_behind(restored.sequence);
        self.forget_entries(removed);
        let mut announcements = Announcements::default();
        announcements.pend(restored.pending);
        *self.published.write() = Published {
            catalog: Arc::new(restored.catalog),
            tables: HashMap::new(),
            files: restored.files,
            journals,
            announcements,
            last: restored.sequence,
            drops: 0,
        };
        Ok(())
    }

    /// Remembers an entry that the snapshot covers, because a trigger has still to see it.
    pub(crate) fn recall(&self, entry: &Entry) -> Result<(), String> {
        let (meanings, now) = (decode(entry)?, self.clock.now());
        for meaning in &meanings {
            if let Meaning::Files(announcement) = meaning {
                let announcements = &mut self.published.write().announcements;
                announcements.log(entry.sequence, now, announcement.clone());
            }
        }
        let rows = rows_of(entry.sequence, meanings);
        self.recollection.push(&rows, now);
        self.recent.push(rows);
        Ok(())
    }

    /// What is known of the memory that rows take.
    pub(crate) fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// The clock that gives points their time.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The last entry that is applied.
    pub(crate) fn last(&self) -> Sequence {
        self.published.read().last
    }

    /// Log entries up to this one may be gone.
    pub(crate) fn removed(&self) -> Sequence {
        Sequence(self.removed.load(Ordering::Acquire))
    }

    /// Nobody may ask for entries up to this one any more.
    pub(crate) fn forget_entries(&self, through: Sequence) {
        self.removed.fetch_max(through.0, Ordering::AcqRel);
        self.recollection.forget(through);
    }

    /// All views at this moment. The rows of the cut don't change from now on.
    pub(crate) fn cut(&self) -> Cut {
        let published = &mut *self.published.write();
        let catalog = published.catalog.clone();
        let mut tables = Vec::new();
        for database in catalog.databases() {
            for table in database.tables.values() {
                if let Some(memtable) = published.tables.get_mut(&table.id) {
                    tables.push((database.id, table.id, memtable.freeze()));
                }
            }
        }
        let journals = published.journals.iter();
        Cut {
            sequence: published.last,
            drops: published.drops,
            pending: published.announcements.pending().to_vec(),
            kept: Vec::new(),
            tables,
            files: published.files.clone(),
            journals: journals
                .map(|(table, rows)| (*table, rows.rows()))
                .collect(),
            catalog,
        }
    }

    /// Files take the place of the rows of the last cut. The log is to tell of some.
    pub(crate) fn publish_files(&self, stored: &Stored) {
        let published = &mut *self.published.write();
        self.pend(published, &stored.announced);
        for (id, new) in &stored.files {
            // Else it was deleted meanwhile.
            if let Some(memtable) = published.tables.get_mut(id) {
                memtable.forget_frozen();
                let files = published.files.entry(*id).or_default();
                Arc::make_mut(files).extend(new.iter().cloned());
            }
        }
        published.tables.retain(|_, memtable| !memtable.is_empty());
    }

    /// Other files take the place of some. The log is to tell of some.
    pub(crate) fn publish_edit(&self, edit: &Edit, announced: &[Arc<Announcement>]) {
        let published = &mut *self.published.write();
        self.pend(published, announced);
        for (table, file) in &edit.removed {
            // Else the table was deleted meanwhile.
            if let Some(files) = published.files.get_mut(table) {
                Arc::make_mut(files).retain(|other| !Arc::ptr_eq(other, file));
            }
        }
        for (table, file) in &edit.added {
            if let Some(files) = published.files.get_mut(table) {
                let files = Arc::make_mut(files);
                files.push(file.clone());
                files.sort_by_key(|file| file.sequence);
            }
        }
        published.files.retain(|_, files| !files.is_empty());
    }

    /// The catalog, and the last entry that is in it.
    pub(crate) fn catalog_at(&self) -> (Arc<Catalog>, Sequence) {
        let published = self.published.read();
        (published.catalog.clone(), published.last)
    }

    /// The files of each table, and how long it keeps rows.
    pub(crate) fn files_by_table(&self) -> Vec<(TableId, Files, Option<Duration>)> {
        let published = self.published.read();
        let mut found = Vec::new();
        for database in published.catalog.databases() {
            for table in database.tables.values() {
                if let Some(files) = published.files.get(&table.id) {
                    found.push((table.id, files.clone(), database.retention));
                }
            }
        }
        found
    }

    /// Files all of whose rows are older than their database keeps rows.
    pub(crate) fn expired(&self) -> Vec<(TableId, Arc<ParquetFile>)> {
        let (now, published) = (self.clock.now(), self.published.read());
        let mut expired = Vec::new();
        for database in published.catalog.databases() {
            let Some(retention) = database.retention else {
                continue;
            };
            let oldest = oldest(now, retention);
            for table in database.tables.values() {
                let files = published.files.get(&table.id);
                let files = files.into_iter().flat_map(|files| files.iter());
                let old = files.filter(|file| file.max_time < oldest);
                expired.extend(old.map(|file| (table.id, file.clone())));
            }
        }
        expired
    }

    /// How often rows have gone because their table was deleted.
    pub(crate) fn drops(&self) -> u64 {
        self.published.read().drops
    }

    /// All files of all tables.
    pub(crate) fn files(&self) -> Vec<Arc<ParquetFile>> {
        let published = self.published.read();
        let files = published.files.values();
        files.flat_map(|files| files.iter().cloned()).collect()
    }

    /// How many bytes of memory the rows of tables take, journals not counted.
    pub(crate) fn rows_bytes(&self) -> usize {
        let (index, tables) = self.published.read().tables();
        let bytes = index + held_bytes(&tables);
        self.pressure.counted(bytes);
        bytes
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.published.read().catalog.clone()
    }

    /// How much memory the views take: each part's name, and its bytes.
    pub(crate) fn held_bytes(&self) -> [(&'static str, usize); 5] {
        let (index, tables, journals, announced) = {
            let published = self.published.read();
            let (index, tables) = published.tables();
            let journals: Vec<Rows> = published.journals.values().map(Memtable::rows).collect();
            let announced = published.announcements.held_bytes();
            (index, tables, journals, announced)
        };
        // Nobody waits for the counting.
        let (rows, journals) = (index + held_bytes(&tables), held_bytes(&journals));
        [
            ("rows", rows),
            ("journals", journals),
            ("recent_entries", self.recent.held_bytes()),
            ("lag", self.recollection.held_bytes()),
            ("committed_files", announced),
        ]
    }

    /// A consistent cut; `database` may be `None` for the journals alone.
    pub(crate) fn snapshot(&self, database: Option<DatabaseId>) -> Snapshot {
        let published = self.published.read();
        let catalog = published.catalog.clone();
        let database = database.and_then(|id| catalog.database_by_id(id));
        let retention = database.and_then(|database| database.retention);
        let oldest = retention.map(|retention| oldest(self.clock.now(), retention));
        let view = |(name, table): (&String, &Arc<Table>)| {
            let rows = published.tables.get(&table.id).map(Memtable::rows);
            let rows = rows.unwrap_or_else(|| Memtable::default().rows());
            (
                name.clone(),
                TableView {
                    schema: table.schema.clone(),
                    rows,
                    files: published.files.get(&table.id).cloned().unwrap_or_default(),
                    is_deleted: table.deletion.is_some(),
                    oldest,
                },
            )
        };
        let tables = database
            .iter()
            .flat_map(|database| &database.tables)
            .filter(|(_, table)| !is_purged(table))
            .map(view)
            .collect();
        let journals = published
            .journals
            .iter()
            .map(|(table, rows)| (*table, rows.rows()))
            .collect();
        Snapshot {
            catalog,
            tables,
            journals,
        }
    }
}

/// The journals' rows in memory: they come from files that nothing but Parquet has checked.
fn remember(
    stored: Vec<(JournalTable, Vec<RecordBatch>)>,
) -> Result<HashMap<JournalTable, Memtable>, ArrowError> {
    let mut journals = HashMap::new();
    for (table, batches) in stored {
        let rows: &mut Memtable = journals.entry(table).or_default();
        batches
            .into_iter()
            .try_for_each(|batch| rows.append(batch))?;
        rows.forget_beyond(table.rows_max());
    }
    Ok(journals)
}

fn is_purged(table: &Table) -> bool {
    table.deletion.is_some_and(|deletion| deletion.purged)
}

/// What is older than this is not kept any more.
pub(crate) fn oldest(now: Timestamp, retention: Duration) -> i64 {
    let retention = i64::try_from(retention.as_nanos()).unwrap_or(i64::MAX);
    now.0.saturating_sub(retention)
}

fn held_bytes(rows: &[Rows]) -> usize {
    rows.iter().map(Rows::held_bytes).sum()
}

impl Published {
    /// The rows of all tables in memory, and the bytes that are taken beside them.
    fn tables(&self) -> (usize, Vec<Rows>) {
        let index = self.tables.values().map(Memtable::index_bytes).sum();
        (index, self.tables.values().map(Memtable::rows).collect())
    }
}
