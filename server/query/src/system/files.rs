//! `system.parquet_files`: which files a database's tables have.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use outrigger_storage::{ParquetFile, Snapshot};

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("table_name", DataType::Utf8, false),
        Field::new("path", DataType::Utf8, false),
        Field::new("size_bytes", DataType::UInt64, false),
        Field::new("row_count", DataType::UInt64, false),
        Field::new("min_time", DataType::Int64, false),
        Field::new("max_time", DataType::Int64, false),
    ]))
}

/// The files by table, in the order in which they were made.
pub(super) fn rows(snapshot: &Snapshot) -> Result<RecordBatch, ArrowError> {
    let files: Vec<(&str, &ParquetFile)> = snapshot
        .tables()
        .iter()
        .flat_map(|(name, view)| {
            let files = view.files().iter();
            files.map(move |file| (name.as_str(), file.as_ref()))
        })
        .collect();
    let files = || files.iter();
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from_iter_values(
                files().map(|(table, _)| table),
            )),
            Arc::new(StringArray::from_iter_values(
                files().map(|(_, file)| &file.path),
            )),
            Arc::new(UInt64Array::from_iter_values(
                files().map(|(_, file)| file.size_bytes),
            )),
            Arc::new(UInt64Array::from_iter_values(
                files().map(|(_, file)| file.row_count),
            )),
            Arc::new(Int64Array::from_iter_values(
                files().map(|(_, file)| file.min_time),
            )),
            Arc::new(Int64Array::from_iter_values(
                files().map(|(_, file)| file.max_time),
            )),
        ],
    )
}
