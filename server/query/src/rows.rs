//! How DataFusion reads rows that this server has in memory: a table whose rows are
//! made when it is scanned, off the async threads.

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::{
        TableType,
        memory::{DataSourceExec, MemorySourceConfig},
    },
    error::{DataFusionError, Result},
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
};
use tokio::task::spawn_blocking;

type Read = dyn Fn() -> Result<Vec<RecordBatch>, ArrowError> + Send + Sync;

/// A table of a snapshot.
pub(crate) struct RowsTable {
    schema: SchemaRef,
    read: Arc<Read>,
}

impl RowsTable {
    /// A table with `schema` whose rows `read` makes; it may take time.
    pub(crate) fn new(
        schema: SchemaRef,
        read: impl Fn() -> Result<Vec<RecordBatch>, ArrowError> + Send + Sync + 'static,
    ) -> Self {
        let read = Arc::new(read);
        Self { schema, read }
    }
}

impl fmt::Debug for RowsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowsTable")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let read = self.read.clone();
        let batches = spawn_blocking(move || read())
            .await
            .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
            // Not an Arrow error of the query's own, which would be the client's fault.
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let source =
            MemorySourceConfig::try_new(&[batches], self.schema.clone(), projection.cloned())?
                .with_show_sizes(false)
                .with_limit(limit);
        Ok(DataSourceExec::from_data_source(source))
    }
}
