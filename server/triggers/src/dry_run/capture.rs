//! What becomes of a dry run's writes and log lines: they are checked and kept, not stored.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use outrigger_model::{
    bytes::ByteSize,
    error::ErrorKind,
    line_protocol::{self, LineError},
};
use outrigger_storage::{Rehearsal, Rehearsed, WriteError, feed::TableBatch};
use outrigger_supervisor::{BackendError, InvocationId, LogLevel, LogLine, Scope};
use parking_lot::Mutex;

use crate::{
    backend::{cannot_write, describe, describe_line, refusal},
    logs::level,
};

/// How many bytes of log lines are kept.
const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The dry runs that go on, for the [`Backend`](outrigger_supervisor::Backend) to find.
#[derive(Clone, Debug, Default)]
pub struct Captures(Arc<Mutex<HashMap<InvocationId, Arc<Capture>>>>);

/// Takes a dry run out of the [`Captures`] when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    captures: Captures,
    id: InvocationId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.captures.0.lock().remove(&self.id);
    }
}

impl Captures {
    pub(super) fn register(&self, id: InvocationId, capture: Arc<Capture>) -> Registered {
        self.0.lock().insert(id.clone(), capture);
        let captures = self.clone();
        Registered { captures, id }
    }

    /// The dry run that asks.
    pub(crate) fn of(&self, scope: &Scope) -> Result<Arc<Capture>, BackendError> {
        let capture = self.0.lock().get(&scope.invocation).cloned();
        capture.ok_or_else(|| BackendError {
            kind: ErrorKind::NotFound,
            message: "the dry run is over".to_owned(),
        })
    }
}

/// What one dry run leaves.
#[derive(Debug)]
pub(crate) struct Capture {
    database: String,
    lines_bytes_max: ByteSize,
    rehearsal: tokio::sync::Mutex<Rehearsal>,
    kept: Mutex<Kept>,
}

/// What is shown in the end.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) log_lines: Vec<String>,
    log_bytes: usize,
    log_dropped: u64,
    /// Lines by database, in the order in which they were written.
    pub(super) writes: BTreeMap<String, Vec<String>>,
    write_bytes: usize,
    pub(super) errors: Vec<String>,
}

impl Capture {
    pub(super) fn new(database: String, rehearsal: Rehearsal, lines_bytes_max: ByteSize) -> Self {
        Self {
            database,
            lines_bytes_max,
            rehearsal: tokio::sync::Mutex::new(rehearsal),
            kept: Mutex::default(),
        }
    }

    /// The database that the trigger would belong to.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// Takes a log line of the plugin.
    pub(crate) fn log(&self, line: &LogLine) {
        self.say(line.level, &line.text);
    }

    pub(super) fn say(&self, log_level: LogLevel, text: &str) {
        let line = format!("{}: {text}", level(log_level).as_str());
        let mut kept = self.kept.lock();
        if kept.log_bytes + line.len() > LOG_BYTES_MAX {
            kept.log_dropped += 1;
            return;
        }
        kept.log_bytes += line.len();
        kept.log_lines.push(line);
    }

    /// Takes lines that the plugin wants to be stored at once; refuses what a real write
    /// would refuse, and for the same reasons.
    pub(crate) async fn write_now(
        &self,
        target: Option<String>,
        lines: String,
    ) -> Result<(), BackendError> {
        let database = target.unwrap_or_else(|| self.database.clone());
        let text: Arc<str> = lines.into();
        let taken = match self.rehearse(&database, text.clone()).await {
            Ok(Rehearsed { tables, refused }) => match refused.into_iter().next() {
                Some(line) => Err(refusal(&database, &WriteError::Line(line))),
                None if tables.is_empty() => Err(refusal(&database, &WriteError::Empty)),
                None => self
                    .keep(&database, &text)
                    .map_err(|why| cannot_write(&database, ErrorKind::Exhausted, &why)),
            },
            Err(error) => Err(refusal(&database, &error)),
        };
        if let Err(error) = &taken {
            self.kept.lock().errors.push(error.to_string());
        }
        taken
    }

    /// Takes the lines that the plugin has buffered. They are shown in any case; the errors
    /// say which of them would be refused, and with them all others for their database.
    pub(super) async fn write_buffered(&self, target: Option<String>, lines: String) {
        let database = target.unwrap_or_else(|| self.database.clone());
        let text: Arc<str> = lines.into();
        let reasons = match self.rehearse(&database, text.clone()).await {
            Ok(rehearsed) => rehearsed.refused.iter().map(describe_line).collect(),
            Err(error) => vec![describe(&error)],
        };
        let kept = self.keep(&database, &text);
        let reasons = reasons.into_iter().chain(kept.err());
        let errors = reasons.map(|why| format!("error writing back lines to {database}: {why}"));
        self.kept.lock().errors.extend(errors);
    }

    /// The tables that would be written to by the lines that fire the plugin, or what is
    /// wrong with them.
    pub(super) async fn input(
        &self,
        lines: String,
    ) -> Result<Result<Vec<TableBatch>, Vec<LineError>>, WriteError> {
        let Rehearsed { tables, refused } = self.rehearse(&self.database, lines.into()).await?;
        Ok(if refused.is_empty() {
            Ok(tables)
        } else {
            Err(refused)
        })
    }

    async fn rehearse(&self, database: &str, text: Arc<str>) -> Result<Rehearsed, WriteError> {
        self.rehearsal.lock().await.write(database, text).await
    }

    fn keep(&self, database: &str, text: &str) -> Result<(), String> {
        let mut kept = self.kept.lock();
        if kept.write_bytes + text.len() > self.lines_bytes_max.0 {
            let max = self.lines_bytes_max;
            return Err(format!("a dry run keeps no more than {max} of lines"));
        }
        kept.write_bytes += text.len();
        let lines = line_protocol::lines(text).map(str::to_owned);
        kept.writes
            .entry(database.to_owned())
            .or_default()
            .extend(lines);
        Ok(())
    }

    /// Everything up to now.
    pub(super) fn take(&self) -> Kept {
        let mut kept = std::mem::take(&mut *self.kept.lock());
        if kept.log_dropped > 0 {
            let dropped = kept.log_dropped;
            let text = format!("WARN: {dropped} lines were dropped: the dry run logs too much");
            kept.log_lines.push(text);
        }
        kept
    }
}
