//! What is kept about a trigger. How its specification is written and what it
//! means is the `triggers` crate's; here it is only a value that is stored.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use outrigger_model::ids::{Sequence, TriggerId};
use serde::{Deserialize, Serialize};

use crate::{
    grants::Grants,
    progress::{EntryRange, Progress},
};

/// When a trigger fires. The serialised form is the one that
/// `system.processing_engine_triggers` shows and that existing clients parse.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerEvent {
    /// Rows were written to any table of the database.
    AllTablesWalWrite,
    /// Rows were written to one table.
    SingleTableWalWrite {
        /// The table; need not exist yet.
        table_name: String,
    },
    /// Parquet files of any table of the database were committed.
    AllTablesParquetPersist,
    /// Parquet files of one table were committed.
    SingleTableParquetPersist {
        /// The table; need not exist yet.
        table_name: String,
    },
    /// The times of a cron expression, in UTC.
    Schedule {
        /// With seconds first, and days of the week from 1 for Sunday; or as in crontab, if
        /// it has 5 fields.
        schedule: String,
    },
    /// The multiples of a duration since the Unix epoch.
    Every {
        /// At least a millisecond, at most a year.
        duration: Duration,
    },
    /// HTTP requests.
    RequestPath {
        /// What follows `/api/v3/engine/`; unique over all databases.
        path: String,
    },
}

impl TriggerEvent {
    /// Whether it fires on rows that were written.
    pub fn is_of_rows(&self) -> bool {
        matches!(
            self,
            Self::AllTablesWalWrite | Self::SingleTableWalWrite { .. }
        )
    }

    /// Whether it fires on files that were committed.
    pub fn is_of_files(&self) -> bool {
        matches!(
            self,
            Self::AllTablesParquetPersist | Self::SingleTableParquetPersist { .. }
        )
    }

    /// The only table that it is about, if there is one.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::SingleTableWalWrite { table_name }
            | Self::SingleTableParquetPersist { table_name } => Some(table_name),
            _ => None,
        }
    }
}

/// What happens after a plugin failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBehavior {
    /// Log it and go on with the next event.
    #[default]
    Log,
    /// Try the same event again, with back-off.
    Retry,
    /// Log it and disable the trigger.
    Disable,
}

impl ErrorBehavior {
    /// The name that users write and read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Retry => "retry",
            Self::Disable => "disable",
        }
    }
}

impl FromStr for ErrorBehavior {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "log" => Ok(Self::Log),
            "retry" => Ok(Self::Retry),
            "disable" => Ok(Self::Disable),
            _ => Err(format!(
                "unknown error behavior {text:?}, expected log, retry or disable"
            )),
        }
    }
}

/// Which content of a repository's plugin a trigger runs. The content itself is stored
/// under its hash, beside the log.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The content's SHA-256, in hexadecimal.
    pub sha256: String,
    /// The content's length.
    pub bytes: u64,
}

/// Everything that a user says when creating a trigger.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TriggerDefinition {
    /// Unique in its database.
    pub name: String,
    /// The plugin's path in the plugin directory, or in the repository after `gh:`.
    pub plugin: String,
    /// What was fetched, if the plugin is from the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// When it fires.
    pub event: TriggerEvent,
    /// What the plugin gets as `args`; `None` if the user gave nothing.
    pub arguments: Option<BTreeMap<String, String>>,
    /// What happens after the plugin failed.
    pub error_behavior: ErrorBehavior,
    /// A disabled trigger does not fire.
    pub disabled: bool,
    /// How long one invocation may take; the server's own limit if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether invocations may overlap.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub run_async: bool,
    /// What its plugin may do beyond what every plugin may.
    #[serde(default, skip_serializing_if = "Grants::is_default")]
    pub grants: Grants,
}

/// A trigger as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trigger {
    /// Its number in the log.
    pub id: TriggerId,
    /// What the user said.
    pub definition: TriggerDefinition,
    /// The log entry that created it, or the last one that enabled it: whatever it kept in
    /// memory before is gone.
    pub since: Sequence,
    /// Which log entries it has dealt with.
    pub progress: Progress,
}

impl TriggerDefinition {
    /// Whether it follows the log: what is written, or which files are committed.
    pub fn follows_the_log(&self) -> bool {
        self.event.is_of_rows() || self.event.is_of_files()
    }
}

impl Trigger {
    /// It was enabled: what lies before is not delivered any more.
    pub(crate) fn start_at(&mut self, sequence: Sequence) {
        self.since = sequence;
        self.progress.complete(EntryRange {
            after: Sequence::default(),
            through: sequence,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_look_as_clients_expect() {
        check(TriggerEvent::AllTablesWalWrite, r#""all_tables_wal_write""#);
        let table_name = "t".to_owned();
        check(
            TriggerEvent::SingleTableWalWrite { table_name },
            r#"{"single_table_wal_write":{"table_name":"t"}}"#,
        );
        check(
            TriggerEvent::AllTablesParquetPersist,
            r#""all_tables_parquet_persist""#,
        );
        let table_name = "t".to_owned();
        check(
            TriggerEvent::SingleTableParquetPersist { table_name },
            r#"{"single_table_parquet_persist":{"table_name":"t"}}"#,
        );
        let schedule = "0 * * * * *".to_owned();
        check(
            TriggerEvent::Schedule { schedule },
            r#"{"schedule":{"schedule":"0 * * * * *"}}"#,
        );
        let duration = Duration::from_secs(10);
        check(
            TriggerEvent::Every { duration },
            r#"{"every":{"duration":{"secs":10,"nanos":0}}}"#,
        );
        let path = "x".to_owned();
        check(
            TriggerEvent::RequestPath { path },
            r#"{"request_path":{"path":"x"}}"#,
        );
    }

    #[track_caller]
    fn check(event: TriggerEvent, json: &str) {
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(serde_json::from_str::<TriggerEvent>(json).unwrap(), event);
    }
}
