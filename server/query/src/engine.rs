//! How a text becomes a plan over one snapshot.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, ops::Range, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    catalog::SchemaProvider,
    error::Result,
    execution::{
        SessionState, SessionStateBuilder,
        context::SQLOptions,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlan,
    prelude::SessionConfig,
};
use outrigger_model::{bytes::ByteSize, names::INTERNAL_DATABASE};
use outrigger_storage::{Snapshot, Storage};
use prometheus::core::Collector;

use crate::{
    BatchStream, LiveTable, Param, Plan, QueryError,
    catalog::{CATALOG, SYSTEM_SCHEMA, USER_SCHEMA, catalog_list},
    file,
    metrics::Metrics,
    param,
    table::{self, Choices},
};

/// What queries may use.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How much memory the intermediate results of all running queries may take; a query
    /// that needs more fails.
    pub exec_mem_pool_bytes: ByteSize,
    /// How many threads' worth of work a query is split into.
    pub target_partitions: NonZeroUsize,
}

/// Plans queries. Clones are handles to the same engine.
#[derive(Clone)]
pub struct QueryEngine {
    storage: Storage,
    // What all queries have in common: functions, settings, the memory pool.
    base: Arc<SessionState>,
    live: Arc<[Arc<dyn LiveTable>]>,
    metrics: Metrics,
}

impl fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEngine").finish_non_exhaustive()
    }
}

/// A table that queries on a database can name.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// The schema it is in; the catalog is always `public`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `BASE TABLE` or `VIEW`.
    pub table_type: &'static str,
    /// Its columns.
    pub columns: SchemaRef,
}

impl QueryEngine {
    /// An engine that queries `storage`.
    pub fn new(storage: Storage, config: Config) -> Self {
        let session = session_config(config);
        let runtime = runtime(config);
        table::register(&runtime, storage.files());
        let base = SessionStateBuilder::new()
            .with_config(session)
            .with_runtime_env(runtime)
            .with_default_features()
            .build();
        let base = Arc::new(base);
        Self {
            storage,
            base,
            live: Arc::default(),
            metrics: Metrics::default(),
        }
    }

    /// Adds tables to the schema `system`.
    pub fn with_live_tables(self, tables: Vec<Arc<dyn LiveTable>>) -> Self {
        Self {
            live: tables.into(),
            ..self
        }
    }

    /// What is counted about queries, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        self.metrics.collectors()
    }

    /// Plans a query on a database as it is now. `params` are the values of the
    /// placeholders `$name`.
    pub async fn plan(
        &self,
        database: &str,
        sql: &str,
        params: BTreeMap<String, Param>,
    ) -> Result<Plan, QueryError> {
        let asked = self.metrics.begin();
        let planned = self.try_plan(database, sql, params).await;
        match planned {
            Ok((state, plan)) => Ok(Plan::new(state, plan, asked)),
            Err(error) => {
                asked.refused();
                Err(error)
            }
        }
    }

    async fn try_plan(
        &self,
        database: &str,
        sql: &str,
        params: BTreeMap<String, Param>,
    ) -> Result<(SessionState, LogicalPlan), QueryError> {
        let state = self.session(database)?;
        let params = param::values(params)?;
        // Boxed: DataFusion's futures are large.
        let plan = Box::pin(state.create_logical_plan(sql))
            .await
            .map_err(QueryError::plan)?;
        read_only().verify_plan(&plan).map_err(QueryError::plan)?;
        let plan = plan.with_param_values(params).map_err(QueryError::plan)?;
        Ok((state, plan))
    }

    /// Reads one file of a table: its columns, and those of its rows, as they lie there. Whoever
    /// asks has to see to it that the file stays.
    pub async fn read_file(
        &self,
        path: &str,
        size_bytes: u64,
        rows: Range<u64>,
    ) -> Result<(SchemaRef, BatchStream), QueryError> {
        file::read(self.storage.files().clone(), (path, size_bytes), rows).await
    }

    /// Every table that queries on the database can name, sorted by schema and name.
    pub async fn tables(&self, database: &str) -> Result<Vec<TableInfo>, QueryError> {
        let state = self.session(database)?;
        let mut found = Vec::new();
        for schema in ["information_schema", USER_SCHEMA, SYSTEM_SCHEMA] {
            let reference = format!("{CATALOG}.{schema}.x");
            let provider = state.schema_for_ref(reference).map_err(QueryError::plan)?;
            found.extend(
                tables_of(schema, provider.as_ref())
                    .await
                    .map_err(QueryError::plan)?,
            );
        }
        Ok(found)
    }

    /// A session in which names mean what they mean in `database` now.
    fn session(&self, database: &str) -> Result<SessionState, QueryError> {
        let snapshot = Arc::new(self.snapshot(database)?);
        let catalogs =
            catalog_list(snapshot, database, self.live.clone()).map_err(QueryError::plan)?;
        let base = SessionState::clone(&self.base);
        let mut state = SessionStateBuilder::new_from_existing(base)
            .with_catalog_list(catalogs)
            .build();
        state
            .config_mut()
            .set_extension(Arc::new(Choices::default()));
        // From here on, `now()` is this moment.
        state.mark_start_execution();
        Ok(state)
    }

    fn snapshot(&self, database: &str) -> Result<Snapshot, QueryError> {
        if database == INTERNAL_DATABASE {
            return Ok(self.storage.internal_snapshot());
        }
        let snapshot = self.storage.snapshot(database);
        snapshot.map_err(|_missing| QueryError::DatabaseNotFound(database.to_owned()))
    }
}

async fn tables_of(schema: &str, provider: &dyn SchemaProvider) -> Result<Vec<TableInfo>> {
    let mut names = provider.table_names();
    names.sort();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let Some(table) = provider.table(&name).await? else {
            continue;
        };
        let is_view = schema == "information_schema";
        found.push(TableInfo {
            schema: schema.to_owned(),
            name,
            table_type: if is_view { "VIEW" } else { "BASE TABLE" },
            columns: table.schema(),
        });
    }
    Ok(found)
}

/// The session's time zone stays unset: times have no zone here and are UTC, and so is
/// what `now()` returns.
fn session_config(config: Config) -> SessionConfig {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.target_partitions.get())
        .with_default_catalog_and_schema(CATALOG, USER_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    // Text is Utf8 everywhere: not every client knows Utf8View.
    session
        .options_mut()
        .sql_parser
        .map_string_types_to_utf8view = false;
    session
}

/// One pool for all queries. Nothing is spilled to disk: this server has no scratch
/// directory yet, and a clear error is better than filling somebody's `/tmp`.
fn runtime(config: Config) -> Arc<RuntimeEnv> {
    let pool = GreedyMemoryPool::new(config.exec_mem_pool_bytes.0);
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .build_arc()
        .expect("a runtime without a disk manager has nothing to fail at")
}

fn read_only() -> SQLOptions {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

#[cfg(test)]
mod tests;
