//! How record batches travel to workers.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
};
use arrow_flight::{
    FlightData,
    encode::{DictionaryHandling, FlightDataEncoderBuilder},
    error::FlightError,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use tonic::Status;

/// Encodes batches of this schema.
pub(super) fn encode(
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch, FlightError>>,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let wire = Arc::new(Schema::new_with_metadata(
        schema.fields().iter().map(small_lists).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ));
    let batches = if wire == schema {
        batches
    } else {
        let schema = wire.clone();
        let fitting = move |batch: RecordBatch| Ok(fit(&batch, &schema)?);
        batches.map(move |batch| batch.and_then(&fitting)).boxed()
    };
    // Tags repeat: sending their dictionaries lets the worker make each string once.
    FlightDataEncoderBuilder::new()
        .with_schema(wire)
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(batches)
        .map_err(Status::from)
        .boxed()
}

/// The field with lists in the place of large lists: arrow-flight 59's encoder calls large
/// lists lists in the schema that it sends, and leaves their offsets as they are.
fn small_lists(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::LargeList(item) | DataType::List(item) => DataType::List(small_lists(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(small_lists(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(small_lists).collect()),
        DataType::Map(entries, sorted) => DataType::Map(small_lists(entries), *sorted),
        _ => return field.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(kind))
}

fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array, AsArray, Int64Array, LargeListArray, StructArray},
        datatypes::Int64Type,
    };
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn large_lists_arrive_also_inside_others() {
        let rows = [Some(vec![Some(1), Some(2)]), None, Some(vec![Some(3)])];
        let lists = LargeListArray::from_iter_primitive::<Int64Type, _, _>(rows);
        let inner = Arc::new(Field::new("l", lists.data_type().clone(), true));
        let lists: ArrayRef = Arc::new(lists);
        let outer: ArrayRef = Arc::new(StructArray::from(vec![(inner, lists.clone())]));
        let batch = RecordBatch::try_from_iter([("a", lists), ("b", outer)]).unwrap();
        let stream = stream::iter([Ok(batch.clone())]).boxed();
        let encoded = encode(batch.schema(), stream).map_err(FlightError::from);
        let mut decoded = FlightRecordBatchStream::new_from_flight_data(encoded);
        let back = decoded.next().await.unwrap().unwrap();
        let inside = back.column(1).as_struct().column(0).clone();
        for column in [back.column(0), &inside] {
            let lists = column.as_list::<i32>();
            assert_eq!(lists.value(0).as_primitive(), &Int64Array::from(vec![1, 2]));
            assert!(lists.is_null(1));
            assert_eq!(lists.value(2).as_primitive(), &Int64Array::from(vec![3]));
        }
    }
}
