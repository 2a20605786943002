//! The step of a plan that joins the rows of each point.

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, compute::SortOptions, datatypes::SchemaRef};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::{
        Distribution, EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr,
        PhysicalSortExpr, expressions::Column,
    },
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        sorts::streaming_merge::StreamingMergeBuilder,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use outrigger_storage::points::{PointMerger, key_columns};

/// Merges inputs that are sorted by tags and time, the oldest first: of each point, per field
/// the last value that is not null.
#[derive(Debug)]
pub(super) struct MergeExec {
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    /// So many of the inputs' columns are wanted, the first ones.
    outputs: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl MergeExec {
    /// All inputs have one partition and the same columns: at least the table's tags and time.
    pub(super) fn try_new(inputs: Vec<Arc<dyn ExecutionPlan>>, outputs: usize) -> Result<Self> {
        let first = inputs
            .first()
            .ok_or_else(|| DataFusionError::Internal("nothing to merge".to_owned()))?;
        let is_split =
            |input: &Arc<dyn ExecutionPlan>| input.properties().partitioning.partition_count() != 1;
        if inputs.iter().any(is_split) {
            // Rows of the others would be lost.
            let text = "what is merged has more than one partition";
            return Err(DataFusionError::Internal(text.to_owned()));
        }
        let wanted: Vec<usize> = (0..outputs).collect();
        let schema = Arc::new(first.schema().project(&wanted)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            inputs,
            outputs,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The inputs' rows, sorted; of the same point, the oldest first.
    fn sorted(
        &self,
        schema: &SchemaRef,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let streams = self
            .inputs
            .iter()
            .map(|input| input.execute(0, context.clone()))
            .collect::<Result<Vec<_>>>()?;
        let sort = key_columns(schema).into_iter().map(|column| {
            let column = Arc::new(Column::new(schema.field(column).name(), column));
            PhysicalSortExpr::new(column, SortOptions::default())
        });
        let order = LexOrdering::new(sort)
            .ok_or_else(|| DataFusionError::Internal("rows have no time".to_owned()))?;
        let consumer = MemoryConsumer::new("merge points");
        StreamingMergeBuilder::new()
            .with_streams(streams)
            .with_schema(schema.clone())
            .with_expressions(&order)
            .with_metrics(BaselineMetrics::new(&self.metrics, 0))
            .with_batch_size(context.session_config().batch_size())
            .with_reservation(consumer.register(context.memory_pool()))
            // Of equal rows, those of the first stream come first.
            .with_round_robin_tie_breaker(false)
            .build()
    }
}

impl DisplayAs for MergeExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergeExec: inputs={}", self.inputs.len())
    }
}

impl ExecutionPlan for MergeExec {
    fn name(&self) -> &'static str {
        "MergeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; self.inputs.len()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::try_new(children, self.outputs)?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        _partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema = self.inputs[0].schema();
        let rows = self.sorted(&schema, &context)?;
        let merger = PointMerger::new(&schema)?;
        let wanted: Vec<usize> = (0..self.outputs).collect();
        let points = stream::unfold(Some((rows, merger)), step)
            .filter_map(|points| async move { points.transpose() })
            .map(move |points| Ok(points?.project(&wanted)?));
        let schema = self.properties.eq_properties.schema().clone();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, points)))
    }
}

type State = Option<(SendableRecordBatchStream, PointMerger)>;

/// The points that are complete after the next rows, if any.
async fn step(state: State) -> Option<(Result<Option<RecordBatch>>, State)> {
    let (mut rows, mut merger) = state?;
    match rows.next().await {
        None => Some((merger.finish().map_err(Into::into), None)),
        Some(Err(error)) => Some((Err(error), None)),
        Some(Ok(batch)) => {
            let points = merger.push(batch).map_err(Into::into);
            Some((points, Some((rows, merger))))
        }
    }
}
