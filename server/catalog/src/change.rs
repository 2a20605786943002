//! What can happen to the catalog: the payload of a catalog record.
//!
//! Serialised as JSON. Variants and fields are only ever added, with defaults,
//! so that old logs stay readable.

use std::time::Duration;

use outrigger_model::{
    ids::{DatabaseId, TableId, TriggerId},
    names::DatabaseName,
    schema::ColumnType,
};
use serde::{Deserialize, Serialize};

use crate::trigger::{Pin, TriggerDefinition};

/// One change. Ids are chosen by whoever makes the change, from the catalog's counters.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum CatalogChange {
    /// A database appears.
    CreateDatabase {
        /// Its id.
        id: DatabaseId,
        /// Its name.
        name: DatabaseName,
        /// How long its rows can be seen; forever if `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<Duration>,
    },
    /// A database keeps rows for another time.
    SetRetention {
        /// Its id.
        id: DatabaseId,
        /// How long its rows can be seen; forever if `None`.
        retention: Option<Duration>,
    },
    /// A database is deleted: it has another name from now on, and its triggers are disabled.
    /// For one that is deleted already, only the time changes.
    SoftDeleteDatabase {
        /// Its id.
        id: DatabaseId,
        /// Its new name.
        name: DatabaseName,
        /// When its data goes, in nanoseconds since the epoch; never if `None`.
        hard: Option<i64>,
    },
    /// The tables and triggers of a deleted database go.
    PurgeDatabase {
        /// Its id.
        id: DatabaseId,
    },
    /// A database goes, with its tables and triggers.
    DeleteDatabase {
        /// Its id.
        id: DatabaseId,
    },
    /// A table appears, without columns.
    CreateTable {
        /// The database it is in.
        database: DatabaseId,
        /// Its id.
        id: TableId,
        /// Its name.
        name: String,
    },
    /// A table is deleted: it has another name from now on. For one that is deleted already,
    /// only the time changes.
    SoftDeleteTable {
        /// The database it is in.
        database: DatabaseId,
        /// Its id.
        id: TableId,
        /// Its new name.
        name: String,
        /// When its rows go, in nanoseconds since the epoch; never if `None`.
        hard: Option<i64>,
    },
    /// The rows of a deleted table go.
    PurgeTable {
        /// The database it is in.
        database: DatabaseId,
        /// Its id.
        id: TableId,
    },
    /// A table goes.
    DeleteTable {
        /// The database it is in.
        database: DatabaseId,
        /// Its id.
        id: TableId,
    },
    /// A table gets columns.
    AddColumns {
        /// The database it is in.
        database: DatabaseId,
        /// The table.
        table: TableId,
        /// Names and types.
        columns: Vec<(String, ColumnType)>,
    },
    /// A trigger appears; its cursor is the log entry that holds this change.
    CreateTrigger {
        /// The database it is in.
        database: DatabaseId,
        /// Its id.
        id: TriggerId,
        /// What the user said.
        definition: TriggerDefinition,
        /// The cursor is before the first entry instead.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        earliest: bool,
    },
    /// A trigger goes.
    DeleteTrigger {
        /// Its id.
        id: TriggerId,
    },
    /// A trigger is disabled, or enabled: it then starts at the log entry that holds this change.
    SetTriggerDisabled {
        /// Its id.
        id: TriggerId,
        /// Whether it is disabled from now on.
        disabled: bool,
    },
    /// A trigger runs what was fetched from the repository, from its next run on.
    SetTriggerPin {
        /// Its id.
        id: TriggerId,
        /// The plugin: `gh:` and its path.
        plugin: String,
        /// The content.
        pin: Pin,
    },
}

impl CatalogChange {
    /// The change as the payload of a log record.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers are always valid JSON")
    }

    /// Reads the payload of a log record.
    pub fn decode(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As first written; never change, only add.
    const FROZEN: &str = r#"{"change":"create_trigger","database":1,"id":7,"definition":{"name":"n","plugin":"p.py","event":"all_tables_wal_write","arguments":{"a":"b"},"error_behavior":"retry","disabled":false}}"#;

    const FROZEN_PIN: &str = r#"{"change":"set_trigger_pin","id":7,"plugin":"gh:a/b.py","pin":{"sha256":"00ff","bytes":12}}"#;

    const FROZEN_DATABASE: &str = r#"{"change":"create_database","id":1,"name":"db"}"#;

    const FROZEN_DELETION: &str = r#"{"change":"soft_delete_table","database":1,"id":2,"name":"t-20261123T021500","hard":1000}"#;

    const FROZEN_RETENTION: &str =
        r#"{"change":"set_retention","id":1,"retention":{"secs":60,"nanos":0}}"#;

    #[test]
    fn a_frozen_change_is_read_and_written() {
        for frozen in [
            FROZEN,
            FROZEN_PIN,
            FROZEN_DATABASE,
            FROZEN_DELETION,
            FROZEN_RETENTION,
        ] {
            let change = CatalogChange::decode(frozen.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(change.encode()).unwrap(), frozen);
        }
    }
}
