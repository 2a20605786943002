//! What does an entry of the log change in the views?

use std::{collections::HashSet, sync::Arc};

use outrigger_catalog::CatalogChange;
use outrigger_log::{View, entry::Entry};
use outrigger_model::{
    clock::Timestamp,
    error::Report,
    ids::{Sequence, TableId},
};

use super::{Published, State, is_purged};
use crate::{
    decoding::guarded,
    feed::{EntryRows, TableRows},
    memtable::held_bytes,
    record::Meaning,
};

impl View for State {
    /// An entry that makes no sense is an error, whatever it has: then no other follows it, so
    /// what it has left half done is not seen.
    fn apply(&self, entry: Arc<Entry>) -> Result<(), String> {
        let applied = guarded(|| self.take_in(&entry));
        applied.unwrap_or_else(|senseless| Err(senseless.to_string()))
    }
}

impl State {
    fn take_in(&self, entry: &Entry) -> Result<(), String> {
        let meanings = decode(entry)?;
        let (mut rows, now) = (EntryRows::new(entry.sequence), self.clock.now());
        {
            let mut published = self.published.write();
            for meaning in meanings {
                published
                    .apply((entry.sequence, now), meaning, &mut rows)
                    .map_err(|error| Report(error.as_ref()).to_string())?;
            }
            published.last = entry.sequence;
        }
        let new = rows.tables.iter().map(|rows| held_bytes(&rows.batch));
        self.pressure.add(new.sum());
        self.recollection.push(&rows, now);
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
        (sequence, now): (Sequence, Timestamp),
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
                let deletes = matches!(
                    change,
                    CatalogChange::PurgeDatabase { .. }
                        | CatalogChange::DeleteDatabase { .. }
                        | CatalogChange::PurgeTable { .. }
                        | CatalogChange::DeleteTable { .. }
                );
                Arc::make_mut(&mut self.catalog).apply(sequence, change)?;
                if deletes {
                    self.drop_deleted_tables();
                }
            }
            Meaning::Done { trigger, range } => {
                Arc::make_mut(&mut self.catalog).complete(trigger, range);
            }
            Meaning::Files(announcement) => {
                self.announcements.log(sequence, now, announcement);
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
        let databases = self.catalog.databases();
        let live: HashSet<TableId> = databases
            .flat_map(|database| database.tables.values())
            .filter(|table| !is_purged(table))
            .map(|table| table.id)
            .collect();
        self.tables.retain(|id, _| live.contains(id));
        self.files.retain(|id, _| live.contains(id));
        self.drops += 1;
    }
}
