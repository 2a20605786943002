//! `system.databases` and `system.tables`: everything that the catalog has, also what is
//! deleted.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampSecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use outrigger_catalog::{Database, Table, deletion::Deletion};
use outrigger_model::names::INTERNAL_DATABASE;
use outrigger_storage::Snapshot;

const NANOS: i64 = 1_000_000_000;

fn deletion_fields() -> [Field; 2] {
    let time = DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
    [
        Field::new("deleted", DataType::Boolean, false),
        Field::new("hard_deletion_time", time, true),
    ]
}

fn deletion_columns(deletions: &[Option<Deletion>]) -> [ArrayRef; 2] {
    let deleted: BooleanArray = deletions
        .iter()
        .map(|deletion| Some(deletion.is_some()))
        .collect();
    let times = deletions
        .iter()
        .map(|deletion| Some((*deletion)?.hard?.div_euclid(NANOS)));
    let times = times.collect::<TimestampSecondArray>().with_timezone("UTC");
    [Arc::new(deleted), Arc::new(times)]
}

pub(super) fn database_schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("database_name", DataType::Utf8, false),
        Field::new("retention_period_ns", DataType::UInt64, true),
    ];
    fields.extend(deletion_fields());
    Arc::new(Schema::new(fields))
}

/// All databases by name, the server's own among them.
pub(super) fn databases(snapshot: &Snapshot) -> Result<RecordBatch, ArrowError> {
    let databases = snapshot.catalog().databases();
    let mut rows: Vec<(&str, Option<u64>, Option<Deletion>)> = databases
        .map(|database| {
            let retention = database.retention;
            let nanos = retention.and_then(|retention| u64::try_from(retention.as_nanos()).ok());
            (database.name.as_str(), nanos, database.deletion)
        })
        .collect();
    rows.push((INTERNAL_DATABASE, None, None));
    rows.sort_unstable_by_key(|(name, ..)| *name);
    let deletions: Vec<_> = rows.iter().map(|(.., deletion)| *deletion).collect();
    let names = StringArray::from_iter_values(rows.iter().map(|(name, ..)| name));
    let retentions: UInt64Array = rows.iter().map(|(_, retention, _)| *retention).collect();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(retentions)];
    columns.extend(deletion_columns(&deletions));
    RecordBatch::try_new(database_schema(), columns)
}

pub(super) fn table_schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("database_name", DataType::Utf8, false),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_count", DataType::UInt64, false),
        Field::new("series_key_columns", DataType::Utf8, false),
        Field::new("last_cache_count", DataType::UInt64, false),
        Field::new("distinct_cache_count", DataType::UInt64, false),
    ];
    fields.extend(deletion_fields());
    Arc::new(Schema::new(fields))
}

/// All tables by database and name. This server has no caches of tables.
pub(super) fn tables(snapshot: &Snapshot) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<(&Database, &Table)> = snapshot
        .catalog()
        .databases()
        .flat_map(|database| {
            let tables = database.tables.values();
            tables.map(move |table| (database.as_ref(), table.as_ref()))
        })
        .collect();
    let rows = || rows.iter();
    let databases =
        StringArray::from_iter_values(rows().map(|(database, _)| database.name.as_str()));
    let counts = rows().map(|(_, table)| table.schema.columns().len() as u64);
    let keys = rows().map(|(_, table)| table.schema.tags().collect::<Vec<_>>().join(", "));
    let none: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows().map(|_| 0)));
    // A table goes with its database.
    let deletions: Vec<_> = rows()
        .map(|(database, table)| table.deletion.or(database.deletion))
        .collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(databases),
        Arc::new(StringArray::from_iter_values(
            rows().map(|(_, table)| &table.name),
        )),
        Arc::new(UInt64Array::from_iter_values(counts)),
        Arc::new(StringArray::from_iter_values(keys)),
        none.clone(),
        none,
    ];
    columns.extend(deletion_columns(&deletions));
    RecordBatch::try_new(table_schema(), columns)
}
