//! The views of the log that this server keeps: catalog, memtables, journals, feed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use outrigger_catalog::Catalog;
use outrigger_log::{View, entry::Entry};
use outrigger_model::{
    clock::Clock,
    error::Report,
    ids::{DatabaseId, Sequence, TableId},
    schema::TableSchema,
};
use parking_lot::RwLock;

use crate::{
    feed::{EntryRows, Recent, TableRows},
    journal::JournalTable,
    lag::Recollection,
    memtable::{Memtable, Rows},
    record::Meaning,
};

/// All views, published together: whoever looks sees whole entries only.
#[derive(Debug)]
pub(crate) struct State {
    published: RwLock<Published>,
    pub(crate) recent: Recent,
    pub(crate) recollection: Recollection,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Published {
    catalog: Arc<Catalog>,
    tables: HashMap<TableId, Memtable>,
    journals: HashMap<JournalTable, Memtable>,
}

/// A table's rows at one moment.
#[derive(Clone, Debug)]
pub struct TableView {
    schema: TableSchema,
    rows: Rows,
}

impl TableView {
    /// Its columns.
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// The rows, each point once, with the columns of [`TableSchema::arrow`]. May take
    /// time where points were overwritten; don't call it on an async thread.
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
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            published: RwLock::default(),
            recent: Recent::default(),
            recollection: Recollection::default(),
            clock,
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.published.read().catalog.clone()
    }

    /// How much memory the views take: each part's name, and its bytes.
    pub(crate) fn held_bytes(&self) -> [(&'static str, usize); 4] {
        let (index, tables, journals) = {
            let published = self.published.read();
            let index: usize = published.tables.values().map(Memtable::index_bytes).sum();
            let tables: Vec<Rows> = published.tables.values().map(Memtable::rows).collect();
            let journals: Vec<Rows> = published.journals.values().map(Memtable::rows).collect();
            (index, tables, journals)
        };
        // Nobody waits for the counting.
        let bytes = |rows: &[Rows]| rows.iter().map(Rows::held_bytes).sum::<usize>();
        let (rows, journals) = (index + bytes(&tables), bytes(&journals));
        [
            ("rows", rows),
            ("journals", journals),
            ("recent_entries", self.recent.held_bytes()),
            ("lag", self.recollection.held_bytes()),
        ]
    }

    /// A consistent cut; `database` may be `None` for the journals alone.
    pub(crate) fn snapshot(&self, database: Option<DatabaseId>) -> Snapshot {
        let published = self.published.read();
        let catalog = published.catalog.clone();
        let database = database.and_then(|id| catalog.database_by_id(id));
        let view = |(name, table): (&String, &Arc<outrigger_catalog::Table>)| {
            let rows = published.tables.get(&table.id).map(Memtable::rows);
            let rows = rows.unwrap_or_else(|| Memtable::default().rows());
            (
                name.clone(),
                TableView {
                    schema: table.schema.clone(),
                    rows,
                },
            )
        };
        let tables = database
            .iter()
            .flat_map(|database| &database.tables)
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

impl View for State {
    fn apply(&self, entry: Arc<Entry>) -> Result<(), String> {
        let meanings = decode(&entry)?;
        let mut rows = EntryRows::new(entry.sequence);
        {
            let mut published = self.published.write();
            for meaning in meanings {
                published
                    .apply(entry.sequence, meaning, &mut rows)
                    .map_err(|error| Report(error.as_ref()).to_string())?;
            }
        }
        self.recollection.push(&rows, self.clock.now());
        self.recent.push(rows);
        Ok(())
    }
}

/// The meaning of every record, or what is wrong with the first bad one.
pub(crate) fn decode(entry: &Entry) -> Result<Vec<Meaning>, String> {
    let describe = |(index, record)| {
        Meaning::decode(record).map_err(|error| format!("record {index}: {}", Report(&error)))
    };
    entry.records.iter().enumerate().map(describe).collect()
}

impl Published {
    fn apply(
        &mut self,
        sequence: Sequence,
        meaning: Meaning,
        rows: &mut EntryRows,
    ) -> Result<(), Box<dyn std::error::Error>> {
        match meaning {
            Meaning::Rows {
                database,
                table,
                batch,
                origin,
            } => {
                // The database may have been deleted earlier in the same entry.
                if self.catalog.database_by_id(database).is_some() {
                    self.tables
                        .entry(table)
                        .or_default()
                        .insert_points(batch.clone())?;
                    rows.tables.push(TableRows {
                        database,
                        table,
                        batch,
                        origin,
                    });
                }
            }
            Meaning::Catalog(change) => {
                Arc::make_mut(&mut self.catalog).apply(sequence, change)?;
                self.drop_deleted_tables();
            }
            Meaning::Done { trigger, range } => {
                Arc::make_mut(&mut self.catalog).complete(trigger, range);
            }
            Meaning::Journal { table, batch } => {
                let rows = self.journals.entry(table).or_default();
                rows.append(batch)?;
                rows.forget_beyond(table.rows_max());
            }
        }
        Ok(())
    }

    fn drop_deleted_tables(&mut self) {
        let live = self
            .catalog
            .databases()
            .map(|database| database.tables.len())
            .sum::<usize>();
        if self.tables.len() > live {
            let ids: std::collections::HashSet<TableId> = self
                .catalog
                .databases()
                .flat_map(|database| database.tables.values().map(|table| table.id))
                .collect();
            self.tables.retain(|id, _| ids.contains(id));
        }
    }
}
