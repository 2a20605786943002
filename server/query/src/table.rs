//! How a query reads a table of a user: rows in memory and files in one plan, each point once.
//!
//! Where neither files nor memory may have the same points, they are read side by side; where
//! they may, they are merged. Files that have no rows of the wanted time are left out.

mod files;
mod merge;
mod overlap;

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::{SchemaRef, TimestampNanosecondType},
    error::ArrowError,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::DFSchema,
    datasource::{
        TableType,
        memory::{DataSourceExec, MemorySourceConfig},
    },
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_expr::PhysicalExpr,
    physical_plan::{ExecutionPlan, union::UnionExec},
};
use outrigger_model::schema::TIME_COLUMN;
use outrigger_storage::{
    TableView,
    points::{key_columns, sort_points},
};
use tokio::task::spawn_blocking;

pub(crate) use self::files::register;
use self::{
    merge::MergeExec,
    overlap::{Group, overlapping},
};

/// A table as it was at one moment.
#[derive(Debug)]
pub(crate) struct StoredTable {
    view: TableView,
    schema: SchemaRef,
}

/// The rows in memory, as they are wanted.
struct InMemory {
    /// Those that no file has a point of.
    apart: Vec<RecordBatch>,
    /// Of each group of files, those that it may have too; sorted.
    of_groups: Vec<Option<RecordBatch>>,
}

impl StoredTable {
    pub(crate) fn new(view: TableView) -> Self {
        let schema = view.schema().arrow();
        Self { view, schema }
    }

    /// Reads the rows in memory and sees which of them a group of files may have too.
    async fn in_memory(&self, groups: &[Group]) -> Result<InMemory> {
        let (view, schema) = (self.view.clone(), self.schema.clone());
        let spans: Vec<(i64, i64)> = groups.iter().map(Group::span).collect();
        let read = move || split(&schema, view.batches()?, &spans);
        spawn_blocking(read)
            .await
            .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
            // Not an Arrow error of the query's own, which would be the client's fault.
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// Makes one plan of files that may have the same points, and the newest rows of them.
    fn merge(
        &self,
        group: Group,
        newest: Option<RecordBatch>,
        projection: Option<&Vec<usize>>,
        filters: &[Arc<dyn PhysicalExpr>],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let keys = key_columns(&self.schema);
        let wanted = projection.map(|projection| {
            let others = keys.iter().filter(|key| !projection.contains(key));
            projection.iter().chain(others).copied().collect::<Vec<_>>()
        });
        // What says nothing of the point must not hide a row that replaces another.
        let predicate = files::on_columns(filters, &keys);
        let mut inputs = group
            .files
            .into_iter()
            .map(|file| files::scan_one(&self.schema, &file, wanted.as_ref(), predicate.clone()))
            .collect::<Result<Vec<_>>>()?;
        if let Some(newest) = newest {
            inputs.push(memory(&self.schema, vec![newest], wanted.as_ref())?);
        }
        let outputs = projection.map_or(self.schema.fields().len(), Vec::len);
        Ok(Arc::new(MergeExec::try_new(inputs, outputs)?))
    }
}

/// Divides rows between the spans of time, which don't overlap, and what lies outside.
fn split(
    schema: &SchemaRef,
    batches: Vec<RecordBatch>,
    spans: &[(i64, i64)],
) -> Result<InMemory, ArrowError> {
    let mut apart = Vec::new();
    let mut of_spans: Vec<Vec<RecordBatch>> = vec![Vec::new(); spans.len()];
    for batch in batches {
        let homes = homes(&batch, spans);
        let mut found: Vec<Option<usize>> = homes.clone();
        found.sort_unstable();
        found.dedup();
        for home in &found {
            let part = if found.len() == 1 {
                batch.clone()
            } else {
                let mask: BooleanArray = homes.iter().map(|one| Some(one == home)).collect();
                filter_record_batch(&batch, &mask)?
            };
            match home {
                None => apart.push(part),
                Some(span) => of_spans[*span].push(part),
            }
        }
    }
    let sort = |parts: Vec<RecordBatch>| -> Result<Option<RecordBatch>, ArrowError> {
        if parts.is_empty() {
            return Ok(None);
        }
        sort_points(&concat_batches(schema, &parts)?).map(Some)
    };
    let of_groups = of_spans.into_iter().map(sort).collect::<Result<_, _>>()?;
    Ok(InMemory { apart, of_groups })
}

/// In which span each row lies.
fn homes(batch: &RecordBatch, spans: &[(i64, i64)]) -> Vec<Option<usize>> {
    let times = batch
        .column_by_name(TIME_COLUMN)
        .and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
    let Some(times) = times.filter(|_| !spans.is_empty()) else {
        return vec![None; batch.num_rows()];
    };
    let home = |time: &i64| {
        let span = spans.partition_point(|(_, max)| max < time);
        spans
            .get(span)
            .is_some_and(|(min, _)| min <= time)
            .then_some(span)
    };
    times.values().iter().map(home).collect()
}

fn memory(
    schema: &SchemaRef,
    batches: Vec<RecordBatch>,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let source = MemorySourceConfig::try_new(&[batches], schema.clone(), projection.cloned())?
        .with_show_sizes(false);
    Ok(DataSourceExec::from_data_source(source))
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // They only say what need not be read.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = DFSchema::try_from(self.schema.as_ref().clone())?;
        let filters = filters
            .iter()
            .map(|filter| session.create_physical_expr(filter.clone(), &columns))
            .collect::<Result<Vec<_>>>()?;
        let groups = overlapping(files::of_time(self.view.files(), &self.schema, &filters)?);
        let rows = self.in_memory(&groups).await?;
        let (mut plans, mut alone) = (Vec::new(), Vec::new());
        for (mut group, newest) in groups.into_iter().zip(rows.of_groups) {
            if newest.is_none() && group.files.len() == 1 {
                alone.append(&mut group.files);
                continue;
            }
            plans.push(self.merge(group, newest, projection, &filters)?);
        }
        if !alone.is_empty() {
            let partitions = session.config().target_partitions();
            plans.push(files::scan_all(
                &self.schema,
                &alone,
                projection,
                partitions,
            )?);
        }
        if plans.is_empty() || !rows.apart.is_empty() {
            plans.push(memory(&self.schema, rows.apart, projection)?);
        }
        if plans.len() == 1 {
            return Ok(plans.remove(0));
        }
        UnionExec::try_new(plans)
    }
}
