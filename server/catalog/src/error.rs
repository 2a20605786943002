//! Why a catalog change was refused.

use outrigger_model::{error::ErrorKind, names::DatabaseNameError, schema::COLUMNS_MAX};

/// A change that does not fit the catalog as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// There is something of that name already.
    #[error("attempted to create a resource that already exists: {what} {name:?}")]
    Exists {
        /// Database or trigger.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The database name is not allowed.
    #[error("invalid database name")]
    DatabaseName(#[from] DatabaseNameError),
    /// Another trigger answers requests to the path.
    #[error("the path {path:?} belongs to trigger {trigger:?} of database {database:?}")]
    PathTaken {
        /// The path.
        path: String,
        /// Its owner.
        trigger: String,
        /// The owner's database.
        database: String,
    },
    /// There is no such database.
    #[error("database not found: {0}")]
    NoDatabase(String),
    /// There is no such table in that database.
    #[error("table not found: {table:?} in database {database:?}")]
    NoTable {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// A database or table that is deleted, and can only be read.
    #[error("attempted to modify resource that was already deleted: {0}")]
    Deleted(String),
    /// A table cannot be made of such columns.
    #[error("{0}")]
    Columns(String),
    /// A table would have too many columns.
    #[error(
        "Update to schema would exceed number of columns per table limit of {COLUMNS_MAX} columns"
    )]
    TooManyColumns,
    /// There is no such trigger in that database.
    #[error("trigger not found: {trigger:?} in database {database:?}")]
    NoTrigger {
        /// The database.
        database: String,
        /// The trigger.
        trigger: String,
    },
    /// An enabled trigger is deleted only by force.
    #[error("Cannot delete running plugin {0}. Disable it first or use --force.")]
    TriggerRuns(String),
    /// The server's own database cannot be changed.
    #[error("the database _internal belongs to the server and cannot be changed")]
    Internal,
    /// A column exists with another type.
    #[error("invalid column type for column '{column}', expected {expected}, got {found}")]
    ColumnType {
        /// The column.
        column: String,
        /// The type it has.
        expected: &'static str,
        /// The type it was used with.
        found: &'static str,
    },
    /// An id in a log record names nothing.
    #[error("the {what} with id {id} does not exist")]
    UnknownId {
        /// Database, table or trigger.
        what: &'static str,
        /// Its id.
        id: u32,
    },
}

impl CatalogError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } | Self::PathTaken { .. } | Self::TriggerRuns(_) => {
                ErrorKind::Conflict
            }
            Self::DatabaseName(_)
            | Self::Internal
            | Self::Deleted(_)
            | Self::Columns(_)
            | Self::ColumnType { .. } => ErrorKind::Invalid,
            Self::TooManyColumns => ErrorKind::Exhausted,
            Self::NoDatabase(_) | Self::NoTable { .. } | Self::NoTrigger { .. } => {
                ErrorKind::NotFound
            }
            Self::UnknownId { .. } => ErrorKind::Internal,
        }
    }
}
