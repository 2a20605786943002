//! How a query reads a table of a user: rows in memory and files in one plan, each point once.
//!
//! Where neither files nor memory may have the same points, they are read side by side; where
//! they may, they are merged. Files that have no rows of the wanted time are left out.

mod age;
mod choice;
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
    physical_plan::{ExecutionPlan, filter::FilterExecBuilder, union::UnionExec},
};
use outrigger_model::schema::TIME_COLUMN;
use outrigger_storage::{
    ParquetFile, TableView,
    points::{key_columns, sort_points},
};
use tokio::task::spawn_blocking;

use self::{
    age::{not_before, visible},
    choice::Reason,
    merge::MergeExec,
    overlap::{Group, overlapping},
};
pub(crate) use self::{
    choice::{Choice, Choices},
    files::register,
};

/// A table as it was at one moment.
#[derive(Debug)]
pub(crate) struct StoredTable {
    name: String,
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

/// Files that are read together, and the newest rows of them.
struct Part {
    group: Group,
    newest: Option<RecordBatch>,
}

impl Part {
    /// Whether each of its rows is a point of its own.
    fn is_plain(&self) -> bool {
        self.newest.is_none() && self.group.files.len() == 1
    }

    /// It has at least so many points that can be seen.
    fn points_min(&self, oldest: Option<i64>) -> u64 {
        if oldest.is_some_and(|oldest| self.group.span().0 < oldest) {
            return 0;
        }
        let files = self.group.files.iter();
        files.map(|file| file.row_count).max().unwrap_or(0)
    }
}

impl StoredTable {
    pub(crate) fn new(name: &str, view: TableView) -> Self {
        let (name, schema) = (name.to_owned(), view.schema().arrow());
        Self { name, view, schema }
    }

    /// The files that may have rows that pass the filters.
    fn files(
        &self,
        filters: &[Arc<dyn PhysicalExpr>],
        choice: &mut Choice,
    ) -> Result<Vec<Arc<ParquetFile>>> {
        let oldest = self.view.oldest().unwrap_or(i64::MIN);
        let mut kept = Vec::new();
        for file in self.view.files().iter() {
            if file.max_time < oldest {
                choice.leave_out(Reason::Retention, file.clone());
            } else {
                kept.push(file.clone());
            }
        }
        let may_pass = files::of_time(&kept, &self.schema, filters)?;
        let mut wanted = Vec::new();
        for (file, may_pass) in kept.into_iter().zip(may_pass) {
            if may_pass {
                wanted.push(file);
            } else {
                choice.leave_out(Reason::Time, file);
            }
        }
        Ok(wanted)
    }

    /// Reads the rows in memory and sees which of them a group of files may have too.
    async fn in_memory(&self, groups: &[Group]) -> Result<InMemory> {
        let (view, schema) = (self.view.clone(), self.schema.clone());
        let spans: Vec<(i64, i64)> = groups.iter().map(Group::span).collect();
        let read = move || split(&schema, visible(view.batches()?, view.oldest())?, &spans);
        spawn_blocking(read)
            .await
            .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
            // Not an Arrow error of the query's own, which would be the client's fault.
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// Makes one plan of a part that is not plain, or of which some rows are too old.
    fn read_apart(
        &self,
        part: Part,
        projection: Option<&Vec<usize>>,
        filters: &[Arc<dyn PhysicalExpr>],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let is_cut = |oldest: &i64| part.group.span().0 < *oldest;
        let Some(oldest) = self.view.oldest().filter(is_cut) else {
            return self.merge(part, projection, filters);
        };
        let with_time = projection.map(|columns| {
            let time = self.schema.index_of(TIME_COLUMN).ok();
            let missing = time.filter(|time| !columns.contains(time));
            columns.iter().copied().chain(missing).collect::<Vec<_>>()
        });
        let mut filters = filters.to_vec();
        filters.push(not_before(oldest, &self.schema)?);
        let all = self.merge(part, with_time.as_ref(), &filters)?;
        let filter = not_before(oldest, &all.schema())?;
        let wanted = projection.map(|columns| (0..columns.len()).collect());
        let visible = FilterExecBuilder::new(filter, all).apply_projection(wanted)?;
        Ok(Arc::new(visible.build()?))
    }

    /// Makes one plan of files that may have the same points, and the newest rows of them.
    fn merge(
        &self,
        Part { group, newest }: Part,
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
            inputs.push(memory(&self.schema, vec![newest], wanted.as_ref(), None)?);
        }
        let outputs = projection.map_or(self.schema.fields().len(), Vec::len);
        Ok(Arc::new(MergeExec::try_new(inputs, outputs)?))
    }
}

/// Leaves out what others make needless if only so many rows are wanted: which, does not
/// matter then. Plain parts are the cheapest.
fn enough(
    parts: Vec<Part>,
    wanted: Option<u64>,
    oldest: Option<i64>,
    choice: &mut Choice,
) -> Vec<Part> {
    let Some(mut wanted) = wanted else {
        return parts;
    };
    let (plain, merged): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(Part::is_plain);
    let mut taken = Vec::new();
    for part in plain.into_iter().chain(merged) {
        if wanted == 0 {
            for file in part.group.files {
                choice.leave_out(Reason::Limit, file);
            }
            continue;
        }
        wanted = wanted.saturating_sub(part.points_min(oldest));
        taken.push(part);
    }
    taken
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
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let source = MemorySourceConfig::try_new(&[batches], schema.clone(), projection.cloned())?
        .with_show_sizes(false)
        .with_limit(limit);
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
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = DFSchema::try_from(self.schema.as_ref().clone())?;
        let filters = filters
            .iter()
            .map(|filter| session.create_physical_expr(filter.clone(), &columns))
            .collect::<Result<Vec<_>>>()?;
        // A filter that is not exact would leave fewer.
        let limit = limit.filter(|_| filters.is_empty());
        let (mut choice, oldest) = (Choice::of(&self.name), self.view.oldest());
        let groups = overlapping(self.files(&filters, &mut choice)?);
        let InMemory { apart, of_groups } = self.in_memory(&groups).await?;
        let rows: usize = apart.iter().map(RecordBatch::num_rows).sum();
        choice.count_rows(rows);
        let parts = groups.into_iter().zip(of_groups);
        let parts = parts.map(|(group, newest)| Part { group, newest });
        let wanted = limit.map(|limit| limit.saturating_sub(rows) as u64);
        let parts = enough(parts.collect(), wanted, oldest, &mut choice);
        let (mut plans, mut alone) = (Vec::new(), Vec::new());
        for mut part in parts {
            choice.read(&part.group.files);
            choice.count_rows(part.newest.as_ref().map_or(0, RecordBatch::num_rows));
            let is_cut = oldest.is_some_and(|oldest| part.group.span().0 < oldest);
            if part.is_plain() && !is_cut {
                alone.append(&mut part.group.files);
            } else {
                plans.push(self.read_apart(part, projection, &filters)?);
            }
        }
        if !alone.is_empty() {
            let partitions = session.config().target_partitions();
            let files = (alone.as_slice(), limit);
            plans.push(files::scan_all(
                &self.schema,
                files,
                projection,
                partitions,
            )?);
        }
        if plans.is_empty() || rows > 0 {
            plans.push(memory(&self.schema, apart, projection, limit)?);
        }
        if let Some(choices) = session.config().get_extension::<Choices>() {
            choices.add(choice);
        }
        if plans.len() == 1 {
            return Ok(plans.remove(0));
        }
        UnionExec::try_new(plans)
    }
}
