//! What rows mean together: bringing batches to one schema, and last-write-wins.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array},
    compute::{concat_batches, take},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use outrigger_model::schema::TIME_COLUMN;

/// The batch with exactly the columns of `schema`; what it does not have is null.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<Field>| -> ArrayRef {
        batch
            .column_by_name(field.name())
            .cloned()
            .unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect())
}

/// The schema with every column that any of the batches has: tags, fields, time.
pub(crate) fn union_schema<'a>(batches: impl Iterator<Item = &'a RecordBatch>) -> SchemaRef {
    let mut columns: Vec<Arc<Field>> = Vec::new();
    for batch in batches {
        for field in batch.schema_ref().fields() {
            if !columns.iter().any(|known| known.name() == field.name()) {
                columns.push(field.clone());
            }
        }
    }
    columns.sort_by_key(|field| match field.data_type() {
        _ if field.name() == TIME_COLUMN => 2,
        DataType::Dictionary(..) => 0,
        _ => 1,
    });
    Arc::new(Schema::new(columns))
}

/// Joins rows that have the same tags and time: per field, the last value that
/// is not null wins. `batches` are in the order they were written and all have
/// `schema`.
pub(crate) fn last_write_wins(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<RecordBatch, ArrowError> {
    let all = concat_batches(schema, batches)?;
    let is_key = |field: &Field| {
        field.name() == TIME_COLUMN || matches!(field.data_type(), DataType::Dictionary(..))
    };
    let (fields, columns): (Vec<_>, Vec<_>) = schema
        .fields()
        .iter()
        .zip(all.columns())
        .filter(|(field, _)| is_key(field))
        .map(|(field, column)| (SortField::new(field.data_type().clone()), column.clone()))
        .unzip();
    let keys = RowConverter::new(fields)?.convert_columns(&columns)?;

    let mut groups: HashMap<&[u8], usize> = HashMap::with_capacity(all.num_rows());
    let mut group_of_row = Vec::with_capacity(all.num_rows());
    for key in &keys {
        let next = groups.len();
        group_of_row.push(*groups.entry(key.data()).or_insert(next));
    }
    let count = groups.len();
    let merged = all.columns().iter().map(|column| {
        let mut last: Vec<Option<u32>> = vec![None; count];
        for (row, &group) in group_of_row.iter().enumerate() {
            if column.is_valid(row) {
                last[group] = u32::try_from(row).ok();
            }
        }
        take(column, &UInt32Array::from(last), None)
    });
    RecordBatch::try_new(schema.clone(), merged.collect::<Result<_, _>>()?)
}
