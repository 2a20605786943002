//! What a running plugin may ask of the database.

use std::{borrow::Cow, ops::Range, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use outrigger_catalog::{Database, trigger::Trigger};
use outrigger_model::{
    error::{ErrorKind, Report},
    ids::TriggerId,
    line_protocol::{LineError, Precision},
};
use outrigger_query::{Param, QueryEngine, QueryError};
use outrigger_storage::{Storage, WriteError, WriteErrorBody, WriteRequest, journal::PluginLog};
use outrigger_supervisor::{
    Backend, BackendError, BindingKey, EventFile, LogLine, QueryRequest, QueryStream, Scope, Value,
};

use crate::{
    dry_run::{Captures, is_dry_run},
    logs::{PluginLogger, level},
};

/// How much of a query its failure repeats, and how much of the reason. Both travel to the
/// worker in a header, where a byte takes up to three and gRPC allows 8 KiB.
const SQL_BYTES_MAX: usize = 1000;
const REASON_BYTES_MAX: usize = 1500;

/// The database, as plugins see it.
#[derive(Clone, Debug)]
pub struct PluginBackend {
    storage: Storage,
    queries: QueryEngine,
    logger: PluginLogger,
    captures: Captures,
}

/// The binding of a trigger's worker.
pub(crate) fn binding_key(trigger: TriggerId) -> BindingKey {
    BindingKey(format!("trigger-{trigger}").into())
}

pub(crate) fn trigger_id(key: &BindingKey) -> Option<TriggerId> {
    key.0.strip_prefix("trigger-")?.parse().ok().map(TriggerId)
}

impl PluginBackend {
    /// A backend over the server's parts.
    pub fn new(
        storage: Storage,
        queries: QueryEngine,
        logger: PluginLogger,
        captures: Captures,
    ) -> Self {
        Self {
            storage,
            queries,
            logger,
            captures,
        }
    }

    fn trigger(&self, scope: &Scope) -> Result<(Arc<Database>, Arc<Trigger>), BackendError> {
        let catalog = self.storage.catalog();
        trigger_id(&scope.binding)
            .and_then(|id| catalog.trigger_by_id(id))
            .map(|(database, trigger)| (database.clone(), trigger.clone()))
            .ok_or_else(|| BackendError {
                kind: ErrorKind::NotFound,
                message: "the trigger was deleted".to_owned(),
            })
    }

    fn database(&self, scope: &Scope, target: Option<String>) -> Result<String, BackendError> {
        match target {
            Some(name) => Ok(name),
            None if is_dry_run(&scope.binding) => {
                Ok(self.captures.of(scope)?.database().to_owned())
            }
            None => Ok(self.trigger(scope)?.0.name.to_string()),
        }
    }
}

#[async_trait]
impl Backend for PluginBackend {
    async fn query(
        &self,
        scope: &Scope,
        request: QueryRequest,
    ) -> Result<QueryStream, BackendError> {
        let database = self.database(scope, request.target)?;
        let parameters = request
            .parameters
            .into_iter()
            .map(|(name, value)| (name, param(value)))
            .collect();
        let sql = request.text;
        let failed = failed_query(&database, &sql);
        let plan = self
            .queries
            .plan(&database, &sql, parameters)
            .await
            .map_err(&failed)?;
        let schema = plan.schema().clone();
        let batches = plan.execute().await.map_err(&failed)?.map_err(failed);
        Ok(QueryStream {
            schema,
            batches: batches.boxed(),
        })
    }

    async fn read(
        &self,
        _scope: &Scope,
        file: &EventFile,
        rows: Range<u64>,
    ) -> Result<QueryStream, BackendError> {
        let failed = failed_read(&file.path);
        let (schema, batches) = self
            .queries
            .read_file(&file.path, file.size_bytes, rows)
            .await
            .map_err(&failed)?;
        Ok(QueryStream {
            schema,
            batches: batches.map_err(failed).boxed(),
        })
    }

    async fn write(
        &self,
        scope: &Scope,
        target: Option<String>,
        lines: String,
        no_sync: bool,
    ) -> Result<(), BackendError> {
        if is_dry_run(&scope.binding) {
            return self.captures.of(scope)?.write_now(target, lines).await;
        }
        let database = self.database(scope, target)?;
        let request = WriteRequest {
            database: database.clone(),
            text: lines.into(),
            precision: Precision::Nanosecond,
            accept_partial: false,
            no_sync,
            trace: scope.trace.clone(),
        };
        self.storage
            .write(request)
            .await
            .map_err(|error| refusal(&database, &error))
    }

    async fn log(&self, scope: &Scope, line: LogLine) {
        if is_dry_run(&scope.binding) {
            // What comes after its end has nobody to tell.
            if let Ok(capture) = self.captures.of(scope) {
                capture.log(&line);
            }
            return;
        }
        // Who was deleted while its plugin ran has no log to write to.
        let Ok((_, trigger)) = self.trigger(scope) else {
            return;
        };
        let row = PluginLog {
            event_time: line.time,
            trigger_name: trigger.definition.name.clone(),
            log_level: level(line.level),
            log_text: line.text,
            invocation_id: Some(scope.invocation.to_string()),
            trace: Some(scope.trace.context()),
        };
        self.logger.log(row).await;
    }
}

/// What a plugin is told of its query that failed; with the words of InfluxDB 3.
fn failed_query(database: &str, sql: &str) -> impl Fn(QueryError) -> BackendError + use<> {
    let place = format!("executing query on {database}: {}", cut(sql, SQL_BYTES_MAX));
    move |error| {
        let reason = Report(&error).to_string();
        let reason = cut(&reason, REASON_BYTES_MAX);
        BackendError {
            kind: error.kind(),
            message: format!("error: {reason} {place}"),
        }
    }
}

/// What a plugin is told of a file that could not be read.
fn failed_read(path: &str) -> impl Fn(QueryError) -> BackendError + use<> {
    let path = path.to_owned();
    move |error| {
        let reason = Report(&error).to_string();
        let reason = cut(&reason, REASON_BYTES_MAX);
        BackendError {
            kind: error.kind(),
            message: format!("cannot read the file {path}: {reason}"),
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    let kept = text.floor_char_boundary(bytes_max);
    format!("{}…", &text[..kept]).into()
}

/// A refused write, as the plugin is told.
pub(crate) fn refusal(database: &str, error: &WriteError) -> BackendError {
    cannot_write(database, error.kind(), &describe(error))
}

/// A write that was refused for this reason, as the plugin is told; with the words of
/// InfluxDB 3.
pub(crate) fn cannot_write(database: &str, kind: ErrorKind, reason: &str) -> BackendError {
    BackendError {
        kind,
        message: format!("error writing line protocol to {database}: Cannot write: {reason}"),
    }
}

/// A refused write, with the line because of which it was refused.
pub(crate) fn describe(error: &WriteError) -> String {
    match error.lines() {
        WriteErrorBody::One(line) => describe_line(line),
        _ => Report(error).to_string(),
    }
}

/// A refused line.
pub(crate) fn describe_line(line: &LineError) -> String {
    format!("{line} (line begins with {:?})", line.original_line)
}

fn param(value: Value) -> Param {
    match value {
        Value::Null => Param::Null,
        Value::Bool(value) => Param::Bool(value),
        Value::Int(value) => Param::Int(value),
        Value::Uint(value) => Param::Uint(value),
        Value::Float(value) => Param::Float(value),
        Value::Text(value) => Param::Text(value),
        Value::List(items) => Param::List(items.into_iter().map(param).collect()),
        Value::Map(members) => {
            let members = members.into_iter();
            Param::Map(members.map(|(name, value)| (name, param(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_query_is_named_but_not_at_any_length() {
        let sql = format!("SELECT '{}'", "ä".repeat(1000));
        let error = QueryError::DatabaseNotFound("x".to_owned());
        let message = failed_query("db", &sql)(error).message;
        let prefix = "error: database not found: x executing query on db: SELECT 'ää";
        assert!(message.starts_with(prefix), "{message}");
        assert!(message.ends_with("ä…"), "{message}");
        assert!(message.len() < SQL_BYTES_MAX + 100, "{message}");
    }

    #[test]
    fn a_binding_leads_back_to_its_trigger() {
        assert_eq!(trigger_id(&binding_key(TriggerId(7))), Some(TriggerId(7)));
        assert_eq!(trigger_id(&BindingKey("other".into())), None);
    }
}
