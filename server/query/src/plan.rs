//! A query that is ready to run.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::SchemaRef,
    error::ArrowError,
};
use datafusion::{
    error::DataFusionError, execution::SessionState, logical_expr::LogicalPlan,
    physical_plan::execute_stream,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{
    QueryError,
    metrics::{Asked, Outcome, Running},
    table::Choices,
};

/// The rows of a result as they come.
pub type BatchStream = BoxStream<'static, Result<RecordBatch, QueryError>>;

/// A query over one consistent cut of its database.
pub struct Plan {
    state: SessionState,
    logical: LogicalPlan,
    schema: SchemaRef,
    asked: Asked,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Plan {
    pub(crate) fn new(state: SessionState, logical: LogicalPlan, asked: Asked) -> Self {
        let schema = logical.schema().inner().clone();
        Self {
            state,
            logical,
            schema,
            asked,
        }
    }

    /// The columns of the result; every batch has exactly these.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Starts the query. Dropping the stream ends it.
    pub async fn execute(self) -> Result<BatchStream, QueryError> {
        let mut running = self.asked.clone().run();
        let started = self.start().await;
        if started.is_err() {
            running.end(Outcome::Error);
        }
        Ok(watch(started?, running))
    }

    async fn start(self) -> Result<BatchStream, QueryError> {
        let schema = self.schema;
        let physical = Box::pin(self.state.create_physical_plan(&self.logical))
            .await
            .map_err(QueryError::execution)?;
        let batches =
            execute_stream(physical, self.state.task_ctx()).map_err(QueryError::execution)?;
        let logical = self.logical;
        let explained = explains(&logical).then(|| files_row(&self.state, &schema));
        let batches = batches.chain(stream::iter(explained.flatten()));
        let batches = batches.map(move |batch| {
            // Its tables' views keep the files where they are that are still to be read.
            let _held = &logical;
            conform(&batch.map_err(QueryError::execution)?, &schema)
                .map_err(|error| QueryError::execution(DataFusionError::from(error)))
        });
        Ok(batches.boxed())
    }

    /// Runs the query and gathers its rows.
    pub async fn collect(self) -> Result<Vec<RecordBatch>, QueryError> {
        self.execute().await?.try_collect().await
    }
}

fn explains(logical: &LogicalPlan) -> bool {
    matches!(logical, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
}

/// What an explanation says of files beside the plan; nothing if no table was looked at.
fn files_row(
    state: &SessionState,
    schema: &SchemaRef,
) -> Option<Result<RecordBatch, DataFusionError>> {
    let text = state.config().get_extension::<Choices>()?.text()?;
    let columns = ["files".to_owned(), text].map(|text| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
        column
    });
    Some(RecordBatch::try_new(schema.clone(), columns.to_vec()).map_err(Into::into))
}

/// Says how the stream ends.
fn watch(batches: BatchStream, running: Running) -> BatchStream {
    let next = |(mut batches, mut running): (BatchStream, Running)| async move {
        let batch = batches.next().await;
        match &batch {
            None => running.end(Outcome::Ok),
            Some(Err(_)) => running.end(Outcome::Error),
            Some(Ok(_)) => {}
        }
        // Whoever has an error does not ask for more.
        Some((batch?, (batches, running)))
    };
    stream::unfold((batches, running), next).boxed()
}

/// The batch with the schema that was announced. Optimising may change nullability and
/// metadata, and clients compare the announced schema with the one they get.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if Arc::ptr_eq(batch.schema_ref(), schema) || batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
