//! Which rows are too old to be seen.

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray},
    compute::filter_record_batch,
    datatypes::SchemaRef,
    error::ArrowError,
};
use datafusion::{
    common::ScalarValue,
    error::Result,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, Literal},
    },
};
use outrigger_model::schema::TIME_COLUMN;

/// The rows that are not too old.
pub(super) fn visible(
    batches: Vec<RecordBatch>,
    oldest: Option<i64>,
) -> Result<Vec<RecordBatch>, ArrowError> {
    let Some(oldest) = oldest else {
        return Ok(batches);
    };
    let visible = |batch: &RecordBatch| -> Result<RecordBatch, ArrowError> {
        let times = batch.column_by_name(TIME_COLUMN);
        let Some(times) = times.and_then(|times| times.as_primitive_opt()) else {
            return Ok(batch.clone());
        };
        let times: &TimestampNanosecondArray = times;
        if times.values().iter().all(|time| *time >= oldest) {
            return Ok(batch.clone());
        }
        let mask: BooleanArray = times
            .values()
            .iter()
            .map(|time| Some(*time >= oldest))
            .collect();
        filter_record_batch(batch, &mask)
    };
    batches.iter().map(visible).collect()
}

/// `time >= oldest`, of rows with this schema.
pub(super) fn not_before(oldest: i64, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let time = Column::new_with_schema(TIME_COLUMN, schema)?;
    let oldest = ScalarValue::TimestampNanosecond(Some(oldest), None);
    Ok(Arc::new(BinaryExpr::new(
        Arc::new(time),
        Operator::GtEq,
        Arc::new(Literal::new(oldest)),
    )))
}
