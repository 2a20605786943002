//! Whether lines fit the schema: turns a text of line protocol into columns and
//! the catalog changes they need. Changes nothing itself.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_catalog::{Catalog, CatalogChange, CatalogError};
use outrigger_model::{
    clock::Timestamp,
    columns::RowsBuilder,
    ids::{DatabaseId, Sequence, TableId},
    line_protocol::{LineError, Point, Precision, parse},
    schema::{COLUMNS_MAX, ColumnType, TableSchema},
};

use crate::record::Meaning;

/// How many refused lines are reported one by one.
const REFUSED_MAX: usize = 1000;
/// How many values, nulls included, a write may bring to one table: sparse lines take
/// far more memory as columns than as text.
const CELLS_MAX: usize = 16 * 1024 * 1024;

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
    let mut refused = Refused::default();
    for parsed in parse(text, precision, now) {
        let outcome = parsed.and_then(|point| {
            if !candidates.contains_key(point.table()) {
                let known = tables.and_then(|tables| tables.get(point.table()));
                if known.is_some_and(|table| table.deletion.is_some()) {
                    let deleted = CatalogError::Deleted(point.table().to_owned());
                    return Err(point.refuse(deleted.to_string()));
                }
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
        refused: refused.finish(),
        ..Validated::default()
    };
    log_candidates(catalog, database, candidates, &mut validated)?;
    Ok(validated)
}

/// Lines that were refused; only the first ones are kept.
#[derive(Debug, Default)]
struct Refused {
    lines: Vec<LineError>,
    more: usize,
}

impl Refused {
    fn push(&mut self, line: LineError) {
        if self.lines.len() < REFUSED_MAX {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<LineError> {
        if let Some(last) = self.lines.last().filter(|_| self.more > 0) {
            let message = format!("{} more lines were refused", self.more);
            let line_number = last.line_number + 1;
            let original_line = String::new();
            self.lines.push(LineError {
                line_number,
                original_line,
                message,
                limit: false,
            });
        }
        self.lines
    }
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
        // The time column does not count.
        if self.schema.columns().len() - 1 + new_columns.len() > COLUMNS_MAX {
            return Err(point.exceed(format!(
                "Update to schema would exceed number of columns per table limit of {COLUMNS_MAX} columns"
            )));
        }
        if self.rows.cells_with(point) > CELLS_MAX {
            return Err(point.exceed(
                "the write has too many rows with too many different columns for one table: send \
                 it in smaller parts"
                    .to_owned(),
            ));
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
    let mut staged = Staged {
        before: catalog,
        after: None,
        changes: Vec::new(),
    };
    let mut rows: Vec<Meaning> = Vec::new();
    for (name, candidate) in candidates {
        if candidate.rows.rows() == 0 {
            continue;
        }
        let table = match candidate.id {
            Some(id) => id,
            None => staged.create_table(database, &name)?,
        };
        if !candidate.new_columns.is_empty() {
            let columns = candidate.new_columns;
            staged.change(CatalogChange::AddColumns {
                database,
                table,
                columns,
            })?;
        }
        validated.rows += candidate.rows.rows();
        rows.push(Meaning::Rows {
            database,
            table,
            batch: candidate.rows.finish(),
            origin: None,
        });
    }
    validated.catalog = staged.after.map(Arc::new);
    validated
        .records
        .extend(staged.changes.into_iter().map(Meaning::Catalog));
    validated.records.extend(rows);
    Ok(())
}

/// The catalog while changes are made to it; copied with the first.
struct Staged<'a> {
    before: &'a Catalog,
    after: Option<Catalog>,
    changes: Vec<CatalogChange>,
}

impl Staged<'_> {
    fn create_table(&mut self, database: DatabaseId, name: &str) -> Result<TableId, CatalogError> {
        let create = self
            .after
            .as_ref()
            .unwrap_or(self.before)
            .create_table(database, name);
        let CatalogChange::CreateTable { id, .. } = create else {
            unreachable!("create_table creates a table")
        };
        self.change(create)?;
        Ok(id)
    }

    fn change(&mut self, change: CatalogChange) -> Result<(), CatalogError> {
        self.changes.push(change.clone());
        let after = self.after.get_or_insert_with(|| self.before.clone());
        // The sequence is not known yet; no change that a write makes depends on it.
        after.apply(Sequence::default(), change)
    }
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

    #[test]
    fn a_table_has_a_limit_of_columns() {
        let (catalog, database) = with_database();
        let lines: Vec<String> = (0..502).map(|n| format!("m f{n}=1 1")).collect();
        let validated = run(&catalog, database, &lines.join("\n"));
        assert_eq!((validated.rows, validated.refused.len()), (500, 2));
        assert!(validated.refused[0].limit);
        assert!(
            validated.refused[0]
                .message
                .ends_with("limit of 500 columns")
        );
    }

    #[test]
    fn sparse_lines_cannot_take_unbounded_memory() {
        let (catalog, database) = with_database();
        let lines: Vec<String> = (0..40_000)
            .map(|n| format!("m f{}=1 {n}", n % 500))
            .collect();
        let validated = run(&catalog, database, &lines.join("\n"));
        assert_eq!(validated.rows, CELLS_MAX / 500);
        assert!(
            validated
                .refused
                .iter()
                .all(|line| line.limit || line.original_line.is_empty())
        );
    }

    #[test]
    fn endless_bad_lines_are_counted_and_not_kept() {
        let (catalog, database) = with_database();
        let validated = run(&catalog, database, &"x\n".repeat(5000));
        assert_eq!(validated.refused.len(), REFUSED_MAX + 1);
        assert_eq!(
            validated.refused[REFUSED_MAX].message,
            "4000 more lines were refused"
        );
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
        let create = catalog.create_database("db", None).unwrap();
        catalog.apply(Sequence(1), create).unwrap();
        (Arc::new(catalog), DatabaseId(1))
    }

    fn run(catalog: &Arc<Catalog>, database: DatabaseId, text: &str) -> Validated {
        let times = (Precision::Nanosecond, Timestamp(0));
        validate(catalog, database, text, times, BadLines::Skip).unwrap()
    }
}
