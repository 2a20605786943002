//! What of what a worker says and prints is logged?

use std::sync::atomic::Ordering;

use outrigger_model::clock::Clock;
use tokio::time::Instant;

use super::{Worker, allowance::Allowance, stacks::StackDump};
use crate::{
    backend::{LogLevel, LogLine, Scope},
    host::OutputLine,
    registry::Registry,
};

impl Worker {
    /// Logs a line that was printed between invocations.
    pub(crate) async fn log_printed(
        &mut self,
        registry: &Registry,
        scope: &Scope,
        line: OutputLine,
    ) {
        log_output(registry, scope, line, &mut self.allowance).await;
    }

    /// Logs what the last invocation has printed, the line included that it has not finished:
    /// the next one must not get it.
    pub(crate) async fn end_output(&mut self, registry: &Registry, scope: &Scope) {
        self.process.end_lines();
        self.log_remaining_output(registry, scope, None).await;
    }

    /// Logs what was printed up to now, but for what belongs to a dump, and how much was not
    /// logged.
    pub(super) async fn log_remaining_output(
        &mut self,
        registry: &Registry,
        scope: &Scope,
        mut dump: Option<&mut StackDump>,
    ) {
        while let Ok(line) = self.process.output.try_recv() {
            let allowance = &mut self.allowance;
            log_unless_dump(registry, scope, line, allowance, dump.as_deref_mut()).await;
        }
        if let Some(text) = self.allowance.report() {
            let line = LogLine {
                level: LogLevel::Warn,
                text,
                time: self.clock.now(),
            };
            registry.backend.log(scope, line).await;
        }
    }
}

/// Logs a line if the invocation may still say something; whether it may.
pub(super) async fn say(
    registry: &Registry,
    scope: &Scope,
    line: LogLine,
    allowance: &mut Allowance,
) -> bool {
    // Not the line's time: clocks can be set.
    let now = Instant::now();
    if !allowance.takes(line.level, line.text.len(), now) {
        registry.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
        return false;
    }
    if let Some(text) = allowance.report_meanwhile(now) {
        let notice = LogLine {
            level: LogLevel::Warn,
            text,
            time: line.time,
        };
        registry.backend.log(scope, notice).await;
    }
    registry.backend.log(scope, line).await;
    true
}

/// Logs what a worker printed.
pub(super) async fn log_output(
    registry: &Registry,
    scope: &Scope,
    line: OutputLine,
    allowance: &mut Allowance,
) {
    let OutputLine {
        stderr,
        text,
        time,
        dropped,
    } = line;
    count_dropped(registry, allowance, dropped);
    let level = if stderr {
        LogLevel::Warn
    } else {
        LogLevel::Info
    };
    say(registry, scope, LogLine { level, text, time }, allowance).await;
}

/// Logs what a worker printed, or adds it to the dump that it belongs to.
pub(super) async fn log_unless_dump(
    registry: &Registry,
    scope: &Scope,
    line: OutputLine,
    allowance: &mut Allowance,
    dump: Option<&mut StackDump>,
) {
    if dump.is_some_and(|dump| line.stderr && dump.takes(&line.text)) {
        count_dropped(registry, allowance, line.dropped);
        return;
    }
    log_output(registry, scope, line, allowance).await;
}

fn count_dropped(registry: &Registry, allowance: &mut Allowance, dropped: u64) {
    allowance.dropped += dropped;
    registry
        .log_lines_dropped
        .fetch_add(dropped, Ordering::Relaxed);
}
