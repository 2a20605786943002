//! The catalog as a snapshot keeps it.
//!
//! Serialised as JSON. Fields are only ever added, with defaults, so that old snapshots
//! stay readable.

use std::time::Duration;

use outrigger_model::{
    ids::{DatabaseId, Sequence, TableId, TriggerId},
    names::DatabaseName,
    schema::ColumnType,
};
use serde::{Deserialize, Serialize};

use crate::{deletion::Deletion, trigger::TriggerDefinition};

/// All of a catalog.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct CatalogImage {
    /// The last id that was given to a database; ids are never used again.
    pub last_database: DatabaseId,
    /// Likewise for tables.
    pub last_table: TableId,
    /// Likewise for triggers.
    pub last_trigger: TriggerId,
    /// Every database.
    pub databases: Vec<DatabaseImage>,
}

/// A database.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DatabaseImage {
    /// Its id.
    pub id: DatabaseId,
    /// Its name.
    pub name: DatabaseName,
    /// How long its rows can be seen; forever if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Duration>,
    /// Whether it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// Its tables.
    pub tables: Vec<TableImage>,
    /// Its triggers.
    pub triggers: Vec<TriggerImage>,
}

/// A table.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TableImage {
    /// Its id.
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// Whether it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// Names and types, without the time.
    pub columns: Vec<(String, ColumnType)>,
}

/// A trigger, and how far it has come.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TriggerImage {
    /// Its id.
    pub id: TriggerId,
    /// What the user said.
    pub definition: TriggerDefinition,
    /// The log entry that created it, or the last one that enabled it.
    pub since: Sequence,
    /// Everything up to this entry is dealt with.
    pub cursor: Sequence,
    /// Ranges beyond the cursor that are dealt with: the entry before the first, and the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<(Sequence, Sequence)>,
}
