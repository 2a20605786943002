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

use crate::live::{LiveTable, LiveView};

type Rows = Result<Vec<RecordBatch>, ArrowError>;

/// Where the rows come from.
#[derive(Clone)]
enum Source {
    /// Takes time.
    Read(Arc<dyn Fn() -> Rows + Send + Sync>),
    Live(Arc<dyn LiveTable>, LiveView),
}

/// A table of a snapshot.
pub(crate) struct RowsTable {
    schema: SchemaRef,
    source: Source,
}

impl RowsTable {
    /// A table with `schema` whose rows `read` makes; it may take time.
    pub(crate) fn new(schema: SchemaRef, read: impl Fn() -> Rows + Send + Sync + 'static) -> Self {
        let source = Source::Read(Arc::new(read));
        Self { schema, source }
    }

    /// A live table.
    pub(crate) fn live(table: Arc<dyn LiveTable>, view: LiveView) -> Self {
        let schema = table.schema();
        let source = Source::Live(table, view);
        Self { schema, source }
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
        let batches = match self.source.clone() {
            Source::Read(read) => spawn_blocking(move || read())
                .await
                .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?,
            Source::Live(table, view) => table.rows(&view).await.map(|rows| vec![rows]),
        };
        let batches = batches
            // Not an Arrow error of the query's own, which would be the client's fault.
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let source =
            MemorySourceConfig::try_new(&[batches], self.schema.clone(), projection.cloned())?
                .with_show_sizes(false)
                .with_limit(limit);
        Ok(DataSourceExec::from_data_source(source))
    }
}
