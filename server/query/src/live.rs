//! System tables whose rows are known above this crate: how triggers and workers are doing
//! now, which files there are.

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use async_trait::async_trait;
use outrigger_catalog::Catalog;
use outrigger_model::ids::DatabaseId;

/// A table of the schema `system`. Its rows are made anew for every query that names it.
#[async_trait]
pub trait LiveTable: fmt::Debug + Send + Sync {
    /// Its name, without the schema.
    fn name(&self) -> &'static str;

    /// Its columns.
    fn schema(&self) -> SchemaRef;

    /// Whether only the server's own database has it.
    fn is_internal(&self) -> bool {
        false
    }

    /// Its rows as they are now. What takes time does so on a thread that may be blocked.
    async fn rows(&self, view: &LiveView) -> Result<RecordBatch, ArrowError>;
}

/// For whom a live table is read.
#[derive(Clone, Debug)]
pub struct LiveView {
    /// The catalog that the rest of the query sees.
    pub catalog: Arc<Catalog>,
    /// The database of the query; `None` for the server's own, from which all can be seen.
    pub database: Option<DatabaseId>,
}

impl LiveView {
    /// Whether what belongs to `database` is shown.
    pub fn shows(&self, database: DatabaseId) -> bool {
        self.database.is_none_or(|own| own == database)
    }
}
