//! Where log lines of plugins and of the engine go: the server's log, and the
//! durable table behind `system.processing_engine_logs`.

use outrigger_model::error::Report;
use outrigger_storage::{
    Storage,
    journal::{JournalRows, LogLevel, PluginInvocation, PluginLog},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, field, info};

/// How many lines may wait; then whoever logs waits.
const WAITING_MAX: usize = 4096;
/// How many lines are stored at a time.
const BATCH_MAX: usize = 2048;

/// Takes log lines. Clones write to the same log.
#[derive(Clone, Debug)]
pub struct PluginLogger(mpsc::Sender<Row>);

#[derive(Debug)]
enum Row {
    Log(PluginLog),
    Invocation(Box<PluginInvocation>),
}

impl PluginLogger {
    /// A logger and the task that stores what it takes.
    pub fn new(storage: Storage) -> (Self, PluginLoggerTask) {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        (Self(sender), PluginLoggerTask { storage, inbox })
    }

    /// Logs a line; waits while too many are not stored yet.
    pub async fn log(&self, line: PluginLog) {
        mirror(&line);
        // The task ends at shutdown only; the server's log has the line anyhow.
        drop(self.0.send(Row::Log(line)).await);
    }

    /// Records an invocation that commits nothing; waits while too much is not stored yet.
    pub(crate) async fn account(&self, invocation: PluginInvocation) {
        drop(self.0.send(Row::Invocation(Box::new(invocation))).await);
    }
}

/// Writes a line to the server's log too. Its text is quoted, so that it cannot
/// pass for lines or fields of ours, and it is never more than information: a
/// plugin must not be able to alarm the operator.
pub(crate) fn mirror(line: &PluginLog) {
    let PluginLog {
        trigger_name: trigger,
        log_level,
        log_text,
        invocation_id,
        trace,
        ..
    } = line;
    let (invocation, log_level) = (invocation_id.as_deref(), log_level.as_str());
    let trace_id = trace.map(|trace| field::display(trace.trace_id));
    // Without the fields of the spans around it, which would say the same once more.
    info!(
        target: "plugin", parent: None,
        trigger, invocation, trace_id, log_level, text = ?log_text
    );
}

/// Stores log lines.
#[derive(Debug)]
pub struct PluginLoggerTask {
    storage: Storage,
    inbox: mpsc::Receiver<Row>,
}

impl PluginLoggerTask {
    /// Runs until `shutdown`, then stores what is left.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let mut lines = Vec::new();
            tokio::select! {
                count = self.inbox.recv_many(&mut lines, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                () = shutdown.cancelled() => self.inbox.close(),
            }
            self.store(lines).await;
        }
    }

    /// Returns once the lines are durable, so that all that comes meanwhile is
    /// stored together the next time.
    async fn store(&self, waiting: Vec<Row>) {
        let mut rows = JournalRows::default();
        for row in waiting {
            match row {
                Row::Log(line) => rows.logs.push(line),
                Row::Invocation(invocation) => rows.invocations.push(*invocation),
            }
        }
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.storage.append(&rows).await {
            let lines = rows.logs.len();
            error!(lines, error = %Report(&error), "cannot store plugin log lines");
        }
    }
}

/// The level in our table of a level in the supervisor's words.
pub(crate) fn level(level: outrigger_supervisor::LogLevel) -> LogLevel {
    match level {
        outrigger_supervisor::LogLevel::Info => LogLevel::Info,
        outrigger_supervisor::LogLevel::Warn => LogLevel::Warn,
        outrigger_supervisor::LogLevel::Error => LogLevel::Error,
    }
}
