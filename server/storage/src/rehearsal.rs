//! What would become of writes: the write path's own checks, against a copy of the catalog
//! that only this rehearsal sees and changes. Nothing is stored.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use outrigger_catalog::{Catalog, CatalogError};
use outrigger_model::{
    clock::{Clock, Timestamp},
    ids::{DatabaseId, TableId},
    line_protocol::{LineError, Precision},
};
use tokio::task::spawn_blocking;

use crate::{
    WriteError,
    feed::{TableBatch, name_tables},
    record::Meaning,
    validate::{BadLines, Validated},
    write::{INLINE_BYTES_MAX, Target, prepare_text},
};

/// A sequence of writes that are not stored. Each is checked against what the catalog
/// would be after the earlier ones.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
}

/// What would become of a write.
#[derive(Debug)]
pub struct Rehearsed {
    /// Its rows as a trigger would get them; none if it would be refused.
    pub tables: Vec<TableBatch>,
    /// The lines because of which it would be refused as a whole.
    pub refused: Vec<LineError>,
}

impl Rehearsal {
    pub(crate) fn new(catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, clock }
    }

    /// Checks lines with nanosecond timestamps that would be stored as a whole or not at all.
    pub async fn write(&mut self, database: &str, text: Arc<str>) -> Result<Rehearsed, WriteError> {
        let (catalog, now) = (self.catalog.clone(), self.clock.now());
        let target = Target::Named(database.to_owned());
        let validated = if text.len() <= INLINE_BYTES_MAX {
            check(&catalog, &target, &text, now)?
        } else {
            let checked = spawn_blocking(move || check(&catalog, &target, &text, now)).await;
            checked.map_err(WriteError::Panicked)??
        };
        if !validated.refused.is_empty() {
            let (tables, refused) = (Vec::new(), validated.refused);
            return Ok(Rehearsed { tables, refused });
        }
        if let Some(after) = validated.catalog {
            self.catalog = after;
        }
        let tables = tables(&self.catalog, validated.records);
        let refused = Vec::new();
        Ok(Rehearsed { tables, refused })
    }
}

/// Unlike a real write, it goes on after the first bad line, to show all of them.
fn check(
    catalog: &Arc<Catalog>,
    target: &Target,
    text: &str,
    now: Timestamp,
) -> Result<Validated, CatalogError> {
    let times = (Precision::Nanosecond, now);
    prepare_text(catalog, target, text, times, BadLines::Skip)
}

fn tables(catalog: &Catalog, records: Vec<Meaning>) -> Vec<TableBatch> {
    let mut found: BTreeMap<TableId, Vec<RecordBatch>> = BTreeMap::new();
    let mut written: Option<DatabaseId> = None;
    for record in records {
        if let Meaning::Rows {
            database,
            table,
            batch,
            ..
        } = record
        {
            written = Some(database);
            found.entry(table).or_default().push(batch);
        }
    }
    written.map_or_else(Vec::new, |database| name_tables(catalog, database, found))
}

#[cfg(test)]
mod tests {
    use outrigger_model::clock::SystemClock;

    use super::*;

    fn rehearsal() -> Rehearsal {
        Rehearsal::new(Arc::default(), Arc::new(SystemClock::default()))
    }

    #[tokio::test]
    async fn rows_come_as_a_trigger_gets_them_and_no_database_is_made() {
        let mut rehearsal = rehearsal();
        let before = rehearsal.catalog.clone();
        let written = rehearsal
            .write("db", "m,t=a f=1 1\nm g=2i 2\nn f=1 3".into())
            .await
            .unwrap();
        let names: Vec<_> = written
            .tables
            .iter()
            .map(|table| (table.name.as_str(), table.rows()))
            .collect();
        assert_eq!(names, [("m", 2), ("n", 1)]);
        assert_eq!(before.databases().count(), 0);
    }

    #[tokio::test]
    async fn writes_see_the_earlier_ones_and_a_refused_one_leaves_nothing() {
        let mut rehearsal = rehearsal();
        rehearsal.write("db", "m f=1i".into()).await.unwrap();
        let refused = rehearsal
            .write("db", "n f=1\nm f=\"x\"\nbad".into())
            .await
            .unwrap();
        let lines: Vec<_> = refused
            .refused
            .iter()
            .map(|line| line.line_number)
            .collect();
        assert_eq!((refused.tables.len(), lines), (0, vec![2, 3]));
        // The column of the refused text's good line is still free.
        let other = rehearsal.write("db", "n f=1i".into()).await.unwrap();
        assert!(other.refused.is_empty(), "{other:?}");
        let name = rehearsal.write("-x", "n f=1i".into()).await;
        assert!(matches!(name, Err(WriteError::Catalog(_))), "{name:?}");
    }

    #[tokio::test]
    async fn long_texts_are_checked_too() {
        let mut rehearsal = rehearsal();
        let text = "m f=1\n".repeat(INLINE_BYTES_MAX / 6 + 2);
        let lines = text.lines().count();
        let written = rehearsal.write("db", text.into()).await.unwrap();
        assert_eq!(written.tables[0].rows(), lines);
    }
}
