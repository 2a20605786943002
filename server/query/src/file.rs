//! How is one file read by itself, as it lies there?

use std::{ops::Range, sync::Arc};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, arrow_reader::ArrowReaderOptions,
        async_reader::AsyncFileReader,
    },
    errors::{ParquetError, Result},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, future::BoxFuture};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use outrigger_model::error::ErrorKind;

use crate::{BatchStream, QueryError};

/// So many bytes at the end are read at first: what is known of most files is in them.
const FOOTER_BYTES: usize = 64 * 1024;
/// So many rows are read at once.
const BATCH_ROWS: usize = 8192;

/// The bytes of one object.
struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size_bytes: u64,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.store
            .get_range(&self.path, range)
            .map_err(failed)
            .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            let read = self.store.get_ranges(&self.path, &ranges).await;
            read.map_err(failed)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size_bytes;
            let reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

fn failed(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// The columns of a file, and some of its rows in their order; row groups without any of them are
/// not read.
pub(crate) async fn read(
    store: Arc<dyn ObjectStore>,
    (path, size_bytes): (&str, u64),
    rows: Range<u64>,
) -> std::result::Result<(SchemaRef, BatchStream), QueryError> {
    let reader = Reader {
        store,
        path: Path::from(path),
        size_bytes,
    };
    let builder = ParquetRecordBatchStreamBuilder::new(reader)
        .await
        .map_err(QueryError::File)?;
    let (groups, first) = groups_of(builder.metadata(), &rows);
    let count = rows.end.saturating_sub(rows.start);
    let stream = builder
        .with_batch_size(BATCH_ROWS)
        .with_row_groups(groups)
        .with_offset(first)
        .with_limit(usize::try_from(count).unwrap_or(usize::MAX))
        .build()
        .map_err(QueryError::File)?;
    let schema = stream.schema().clone();
    Ok((schema, stream.map_err(QueryError::File).boxed()))
}

/// The row groups that have any of the rows, and how many other rows the first of them begins with.
fn groups_of(metadata: &ParquetMetaData, rows: &Range<u64>) -> (Vec<usize>, usize) {
    let (mut groups, mut first, mut start) = (Vec::new(), 0, 0);
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let end = start + u64::try_from(group.num_rows()).unwrap_or(0);
        if start < rows.end && rows.start < end {
            if groups.is_empty() {
                first = usize::try_from(rows.start.saturating_sub(start)).unwrap_or(usize::MAX);
            }
            groups.push(index);
        }
        start = end;
    }
    (groups, first)
}

/// Whose fault it is that a file cannot be read.
pub(crate) fn kind(error: &ParquetError) -> ErrorKind {
    let ParquetError::External(source) = error else {
        return ErrorKind::Internal;
    };
    match source.downcast_ref() {
        Some(object_store::Error::NotFound { .. }) => ErrorKind::NotFound,
        Some(_) => ErrorKind::Unavailable,
        None => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, AsArray as _, Int64Array, RecordBatch},
        datatypes::Int64Type,
    };
    use datafusion::parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
    use object_store::{ObjectStoreExt as _, memory::InMemory};

    use super::*;

    /// A file of 20 000 rows, in row groups of 6000.
    async fn stored() -> (Arc<InMemory>, u64, SchemaRef) {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
        let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(6000))
            .build();
        let schema = batch.schema();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let (size, store) = (bytes.len() as u64, Arc::new(InMemory::new()));
        store.put(&Path::from("a"), bytes.into()).await.unwrap();
        (store, size, schema)
    }

    #[tokio::test]
    async fn any_rows_of_a_file_are_read_in_their_order() {
        let (store, size, expected) = stored().await;
        for rows in [
            0..u64::MAX,
            0..1,
            5999..6001,
            6000..12_000,
            7000..19_000,
            19_999..30_000,
            20_000..u64::MAX,
            5..5,
        ] {
            let (schema, batches) = read(store.clone(), ("a", size), rows.clone())
                .await
                .unwrap();
            assert_eq!(schema, expected);
            let parts: Vec<RecordBatch> = batches.try_collect().await.unwrap();
            assert!(parts.iter().all(|part| part.num_rows() <= BATCH_ROWS));
            let values = parts
                .iter()
                .flat_map(|part| part.column(0).as_primitive::<Int64Type>().values().to_vec());
            let end = rows.end.min(20_000).max(rows.start);
            let wanted = rows.start.cast_signed()..end.cast_signed();
            assert!(values.eq(wanted), "{rows:?}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_file_is_told_apart() {
        let (store, _, _) = stored().await;
        store
            .put(&Path::from("b"), "no Parquet".into())
            .await
            .unwrap();
        for (path, expected) in [("gone", ErrorKind::NotFound), ("b", ErrorKind::Internal)] {
            let error = read(store.clone(), (path, 10), 0..1).await.err().unwrap();
            assert_eq!(error.kind(), expected, "{error:?}");
        }
    }
}
