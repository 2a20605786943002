//! Whether lines fit the schema: turns a text of line protocol into columns and
//! the catalog changes they need. Changes nothing itself.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use outrigger_catalog::{Catalog, CatalogChange, CatalogError};
use outrigger_model::{
    clock::Timestamp,
    columns::RowsBuilder,
    ids::{DatabaseId, Sequence, TableId},
    line_protocol::{LineError, Point, Precision, parse},
    schema::{ColumnType, TableSchema},
};

use crate::record::Meaning;

/// What to do with bad lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BadLines {
    /// Leave them out.
    Skip,
    /// Refuse the whole text.
    Refuse,
}

/// What a text becomes.
#[derive(Debug, Default)]
pub(crate) struct Validated {
    /// Catalog changes, then rows, in the order in which they must be logged.
    pub(crate) records: Vec<Meaning>,
    /// The catalog after the changes; `None` if there are none.
    pub(crate) catalog: Option<Arc<Catalog>>,
    pub(crate) refused: Vec<LineError>,
    pub(crate) rows: usize,
}

/// A table while lines are checked against it.
#[derive(Debug)]
struct Candidate {
    id: Option<TableId>,
    schema: TableSchema,
    new_columns: Vec<(String, ColumnType)>,
    rows: RowsBuilder,
}

/// Checks `text` against the tables of `database`. With [`BadLines::Refuse`], the
/// first bad line is the only one reported and there is nothing to log.
pub(crate) fn validate(
    catalog: &Arc<Catalog>,
    database: DatabaseId,
    text: &str,
    (precision, now): (Precision, Timestamp),
    bad_lines: BadLines,
) -> Result<Validated, CatalogError> {
    let tables = catalog
        .database_by_id(database)
        .map(|database| &database.tables);
    let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
    let mut refused = Vec::new();
    for parsed in parse(text, precision, now) {
        let outcome = parsed.and_then(|point| {
            if !candidates.contains_key(point.table()) {
                let known = tables.and_then(|tables| tables.get(point.table()));
                let candidate = Candidate {
                    id: known.map(|table| table.id),
                    schema: known.map(|table| table.schema.clone()).unwrap_or_default(),
                    new_columns: Vec::new(),
                    rows: RowsBuilder::default(),
                };
                candidates.insert(point.table().to_owned(), candidate);
            }
            let candidate = candidates
                .get_mut(point.table())
                .expect("it was just inserted");
            candidate.push(&point)
        });
        match outcome {
            Ok(()) => {}
            Err(line) if bad_lines == BadLines::Refuse => {
                return Ok(Validated {
                    refused: vec![line],
                    ..Validated::default()
                });
            }
            Err(line) => refused.push(line),
        }
    }
    let mut validated = Validated {
        refused,
        ..Validated::default()
    };
    log_candidates(catalog, database, candidates, &mut validated)?;
    Ok(validated)
}

impl Candidate {
    /// Takes the point in, or leaves no trace of it.
    fn push(&mut self, point: &Point<'_>) -> Result<(), LineError> {
        let mut new_columns = Vec::new();
        for (name, value) in point.values() {
            let found = value.column_type();
            match self.schema.column(name) {
                None => new_columns.push((name.to_owned(), found)),
                Some(expected) if expected == found => {}
                Some(expected) => {
                    let error = CatalogError::ColumnType {
                        column: name.to_owned(),
                        expected: expected.iox_name(),
                        found: found.iox_name(),
                    };
                    return Err(point.refuse(error.to_string()));
                }
            }
        }
        for (name, column) in &new_columns {
            self.schema.add(name, *column);
        }
        self.new_columns.extend(new_columns);
        self.rows.push(point);
        Ok(())
    }
}

fn log_candidates(
    catalog: &Arc<Catalog>,
    database: DatabaseId,
    candidates: BTreeMap<String, Candidate>,
    validated: &mut Validated,
) -> Result<(), CatalogError> {
    let mut staged: Option<Catalog> = None;
    let mut rows: Vec<(TableId, RecordBatch)> = Vec::new();
    let mut change = |change: CatalogChange| {
        let staged = staged.get_or_insert_with(|| Catalog::clone(catalog));
        validated.records.push(Meaning::Catalog(change.clone()));
        // The sequence is not known yet; no change that a write makes depends on it.
        staged.apply(Sequence::default(), change)?;
        Ok::<Catalog, CatalogError>(staged.clone())
    };
    let mut current = Catalog::clone(catalog);
    for (name, candidate) in candidates {
        if candidate.rows.rows() == 0 {
            continue;
        }
        let id = if let Some(id) = candidate.id {
            id
        } else {
            let create = current.create_table(database, &name);
            let CatalogChange::CreateTable { id, .. } = create else {
                unreachable!("create_table creates a table")
            };
            current = change(create)?;
            id
        };
        if !candidate.new_columns.is_empty() {
            let columns = candidate.new_columns;
            current = change(CatalogChange::AddColumns {
                database,
                table: id,
                columns,
            })?;
        }
        validated.rows += candidate.rows.rows();
        rows.push((id, candidate.rows.finish()));
    }
    validated.catalog = staged.map(Arc::new);
    let rows = rows.into_iter().map(|(table, batch)| Meaning::Rows {
        database,
        table,
        batch,
    });
    validated.records.extend(rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_tables_and_columns_are_logged_before_their_rows() {
        let (catalog, database) = with_database();
        let validated = run(&catalog, database, "a,t=x f=1 1\nb g=2i 1\na h=true 2");
        let kinds: Vec<_> = validated.records.iter().map(kind).collect();
        assert_eq!(
            kinds,
            ["table", "columns", "table", "columns", "rows", "rows"]
        );
        assert_eq!((validated.rows, validated.refused.len()), (3, 0));
        let again = run(validated.catalog.as_ref().unwrap(), database, "a,t=y f=2 3");
        assert_eq!(again.records.iter().map(kind).collect::<Vec<_>>(), ["rows"]);
        assert!(again.catalog.is_none());
    }

    #[test]
    fn a_refused_line_leaves_no_trace() {
        let (catalog, database) = with_database();
        let validated = run(&catalog, database, "a f=1 1\na new=1,f=2i 2\nother");
        assert_eq!(validated.rows, 1);
        let texts: Vec<_> = validated
            .refused
            .iter()
            .map(|line| line.message.clone())
            .collect();
        assert_eq!(
            texts[0],
            "invalid column type for column 'f', expected iox::column_type::field::float, got \
             iox::column_type::field::integer"
        );
        let catalog = validated.catalog.unwrap();
        let table = &catalog.database("db").unwrap().tables["a"];
        assert_eq!(table.schema.column("new"), None);
    }

    #[test]
    fn one_bad_line_can_refuse_all() {
        let (catalog, database) = with_database();
        let text = "a f=1 1\nbad\nworse";
        let times = (Precision::Auto, Timestamp(0));
        let validated = validate(&catalog, database, text, times, BadLines::Refuse).unwrap();
        assert_eq!((validated.records.len(), validated.refused.len()), (0, 1));
        assert_eq!(validated.refused[0].line_number, 2);
    }

    fn kind(meaning: &Meaning) -> &'static str {
        match meaning {
            Meaning::Catalog(CatalogChange::CreateTable { .. }) => "table",
            Meaning::Catalog(CatalogChange::AddColumns { .. }) => "columns",
            Meaning::Rows { .. } => "rows",
            _ => "other",
        }
    }

    fn with_database() -> (Arc<Catalog>, DatabaseId) {
        let mut catalog = Catalog::default();
        let create = catalog.create_database("db").unwrap();
        catalog.apply(Sequence(1), create).unwrap();
        (Arc::new(catalog), DatabaseId(1))
    }

    fn run(catalog: &Arc<Catalog>, database: DatabaseId, text: &str) -> Validated {
        let times = (Precision::Nanosecond, Timestamp(0));
        validate(catalog, database, text, times, BadLines::Skip).unwrap()
    }
}
