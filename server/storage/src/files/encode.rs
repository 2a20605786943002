//! How rows become the bytes of a Parquet file, and back.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::{DataType, Schema, SchemaRef, TimestampNanosecondType},
    error::ArrowError,
};
use bytes::Bytes;
use outrigger_model::schema::TIME_COLUMN;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::SortingColumn,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};

use super::windows;
use crate::{
    decoding::guarded,
    memtable::Rows,
    merge::conform,
    points::{key_columns, sort_points},
};

/// As in InfluxDB 3.
const ROW_GROUP_ROWS: usize = 100_000;
/// Pages are what a query can leave out within a row group.
const PAGE_ROWS: usize = 10_000;

/// What a file has, before it has a name.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) rows: usize,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
}

/// Makes files of a table's rows, one after the other, and hands them out with their number:
/// each has the points of a window of time, sorted by tags and time, with the columns that
/// the rows have.
pub(crate) fn encode_points(
    rows: &Rows,
    schema: &SchemaRef,
    window: Duration,
) -> Result<Vec<Encoded>, ParquetError> {
    let schema = present_columns(rows, schema);
    let all = concat_batches(&schema, &rows.batches(&schema)?)?;
    if all.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let files = windows::split(times(&all)?, window);
    let encode = |rows: Vec<u32>| -> Result<Encoded, ParquetError> {
        let part = if rows.len() == all.num_rows() {
            all.clone()
        } else {
            take_record_batch(&all, &UInt32Array::from(rows))?
        };
        let part = sort_points(&part)?;
        let mut file = FileWriter::new(part.schema_ref())?;
        file.write(&part)?;
        file.finish()
    };
    files.into_iter().map(encode).collect()
}

/// The columns of the table that any of the rows has.
fn present_columns(rows: &Rows, schema: &SchemaRef) -> SchemaRef {
    let present = |name: &str| {
        rows.chunks()
            .any(|chunk| chunk.column_by_name(name).is_some())
    };
    let fields = schema.fields().iter().filter(|field| present(field.name()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

fn times(batch: &RecordBatch) -> Result<&[i64], ArrowError> {
    batch
        .column_by_name(TIME_COLUMN)
        .and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>())
        .map(|times| times.values().as_ref())
        .ok_or_else(|| ArrowError::SchemaError("rows have no time".to_owned()))
}

fn sorting(schema: &Schema) -> Vec<SortingColumn> {
    let column = |column: usize| SortingColumn {
        column_idx: i32::try_from(column).unwrap_or(i32::MAX),
        descending: false,
        nulls_first: true,
    };
    key_columns(schema).into_iter().map(column).collect()
}

/// Writes sorted points of a table as one file.
pub(super) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
    span: Option<(i64, i64)>,
}

impl FileWriter {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ParquetError> {
        Ok(Self {
            writer: writer(schema, sorting(schema))?,
            rows: 0,
            span: None,
        })
    }

    pub(super) fn write(&mut self, points: &RecordBatch) -> Result<(), ParquetError> {
        for &time in times(points)? {
            let (min, max) = self.span.unwrap_or((time, time));
            self.span = Some((min.min(time), max.max(time)));
        }
        self.rows += points.num_rows();
        self.writer.write(points)
    }

    pub(super) fn finish(self) -> Result<Encoded, ParquetError> {
        let (min_time, max_time) = self.span.unwrap_or_default();
        Ok(Encoded {
            bytes: self.writer.into_inner()?.into(),
            rows: self.rows,
            min_time,
            max_time,
        })
    }
}

/// Makes a file of a journal's rows from this number on, in their order.
pub(crate) fn encode_journal(
    rows: &Rows,
    first: u64,
    schema: &SchemaRef,
) -> Result<Bytes, ParquetError> {
    let mut writer = writer(schema, Vec::new())?;
    for batch in rows.since(first) {
        writer.write(&conform(&batch, schema)?)?;
    }
    Ok(writer.into_inner()?.into())
}

fn writer(
    schema: &SchemaRef,
    sorting: Vec<SortingColumn>,
) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        // Of numbers that hardly repeat, a dictionary only takes room.
        .set_dictionary_enabled(false)
        .set_sorting_columns((!sorting.is_empty()).then_some(sorting));
    for field in schema.fields() {
        if matches!(field.data_type(), DataType::Dictionary(..) | DataType::Utf8) {
            let column = ColumnPath::from(vec![field.name().clone()]);
            properties = properties.set_column_dictionary_enabled(column, true);
        }
    }
    let properties = Some(properties.build());
    ArrowWriter::try_new(Vec::new(), schema.clone(), properties)
}

/// The rows of a file, all of them.
pub(crate) fn decode_rows(bytes: Bytes) -> Result<Vec<RecordBatch>, ParquetError> {
    let read = || -> Result<_, ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    };
    guarded(read).map_err(|senseless| ParquetError::External(Box::new(senseless)))?
}
