//! How files are read, and which need not be.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, TimestampNanosecondArray, UInt64Array},
    datatypes::SchemaRef,
};
use datafusion::{
    common::{Column, ScalarValue, pruning::PruningStatistics},
    datasource::{
        listing::PartitionedFile,
        memory::DataSourceExec,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
    },
    error::Result,
    execution::{object_store::ObjectStoreUrl, runtime_env::RuntimeEnv},
    physical_expr::{PhysicalExpr, conjunction, utils::collect_columns},
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::ExecutionPlan,
};
use object_store::ObjectStore;
use outrigger_model::schema::TIME_COLUMN;
use outrigger_storage::ParquetFile;

/// Under which URL queries find the store.
const STORE: &str = "outrigger://store";

/// Makes files readable for all queries.
pub(crate) fn register(runtime: &RuntimeEnv, store: &Arc<dyn ObjectStore>) {
    let url = store_url();
    runtime.register_object_store(url.as_ref(), store.clone());
}

fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse(STORE).expect("the URL is well formed")
}

/// What is known of files without reading them.
struct Times<'a>(&'a [Arc<ParquetFile>]);

impl Times<'_> {
    fn of(&self, column: &Column, time: fn(&ParquetFile) -> i64) -> Option<ArrayRef> {
        let times = self.0.iter().map(|file| time(file));
        (column.name == TIME_COLUMN)
            .then(|| Arc::new(TimestampNanosecondArray::from_iter_values(times)) as ArrayRef)
    }
}

impl PruningStatistics for Times<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |file| file.min_time)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |file| file.max_time)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let none = || Arc::new(UInt64Array::from(vec![0; self.0.len()])) as ArrayRef;
        (column.name == TIME_COLUMN).then(none)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.0.iter().map(|file| file.row_count);
        Some(Arc::new(UInt64Array::from_iter_values(rows)))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// Of each file, whether it may have rows that pass the filters, by their times.
pub(super) fn of_time(
    files: &[Arc<ParquetFile>],
    schema: &SchemaRef,
    filters: &[Arc<dyn PhysicalExpr>],
) -> Result<Vec<bool>> {
    if filters.is_empty() || files.is_empty() {
        return Ok(vec![true; files.len()]);
    }
    let filter = PruningPredicateBuilder::new()
        .with_file_schema(schema.clone())
        .try_build(conjunction(filters.iter().cloned()))?;
    filter.prune(&Times(files))
}

/// Those of the filters that look at nothing but these columns.
pub(super) fn on_columns(
    filters: &[Arc<dyn PhysicalExpr>],
    columns: &[usize],
) -> Option<Arc<dyn PhysicalExpr>> {
    let only_those = |filter: &&Arc<dyn PhysicalExpr>| {
        let used = collect_columns(filter);
        used.iter().all(|column| columns.contains(&column.index()))
    };
    let filters: Vec<_> = filters.iter().filter(only_those).cloned().collect();
    (!filters.is_empty()).then(|| conjunction(filters))
}

/// Reads one file in its own order.
pub(super) fn scan_one(
    schema: &SchemaRef,
    file: &ParquetFile,
    projection: Option<&Vec<usize>>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut source = ParquetSource::new(schema.clone());
    if let Some(predicate) = predicate {
        source = source.with_predicate(predicate);
    }
    scan(
        source,
        vec![FileGroup::new(vec![partitioned(file)])],
        projection,
        None,
    )
}

/// Reads files that have no points in common, so many at a time. Filters come to them from
/// above.
pub(super) fn scan_all(
    schema: &SchemaRef,
    (files, limit): (&[Arc<ParquetFile>], Option<usize>),
    projection: Option<&Vec<usize>>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let files = FileGroup::new(files.iter().map(|file| partitioned(file)).collect());
    scan(
        ParquetSource::new(schema.clone()),
        files.split_files(partitions),
        projection,
        limit,
    )
}

fn scan(
    source: ParquetSource,
    groups: Vec<FileGroup>,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let scan = FileScanConfigBuilder::new(store_url(), Arc::new(source))
        .with_file_groups(groups)
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(scan))
}

fn partitioned(file: &ParquetFile) -> PartitionedFile {
    PartitionedFile::new(file.path.clone(), file.size_bytes)
}
