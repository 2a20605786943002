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
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

fn failed(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// The columns of a file, and its rows in their order.
pub(crate) async fn read(
    store: Arc<dyn ObjectStore>,
    path: &str,
    size_bytes: u64,
) -> std::result::Result<(SchemaRef, BatchStream), QueryError> {
    let reader = Reader {
        store,
        path: Path::from(path),
        size_bytes,
    };
    let builder = ParquetRecordBatchStreamBuilder::new(reader)
        .await
        .map_err(QueryError::File)?;
    let stream = builder
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(QueryError::File)?;
    let schema = stream.schema().clone();
    Ok((schema, stream.map_err(QueryError::File).boxed()))
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
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::parquet::arrow::ArrowWriter;
    use object_store::{ObjectStoreExt as _, memory::InMemory};

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_part_by_part_and_what_is_wrong_is_told_apart() {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
        let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let (size, store) = (bytes.len() as u64, Arc::new(InMemory::new()));
        store.put(&Path::from("a"), bytes.into()).await.unwrap();
        store
            .put(&Path::from("b"), "no Parquet".into())
            .await
            .unwrap();
        let (schema, batches) = read(store.clone(), "a", size).await.unwrap();
        assert_eq!(schema, batch.schema());
        let parts: Vec<RecordBatch> = batches.try_collect().await.unwrap();
        let rows: Vec<usize> = parts.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [8192, 8192, 3616]);
        for (path, expected) in [("gone", ErrorKind::NotFound), ("b", ErrorKind::Internal)] {
            let error = read(store.clone(), path, 10).await.err().unwrap();
            assert_eq!(error.kind(), expected, "{error:?}");
        }
    }
}
