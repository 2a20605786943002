//! What `system.plugin_invocations` says about an invocation.

use outrigger_model::{clock::Timestamp, error::Report, trace::TraceContext};
use outrigger_storage::journal::{Outcome, PluginInvocation};
use outrigger_supervisor::{ExitReason, InvocationError, Usage};

use crate::{runner::Failure, source::SourceError};

/// The longest detail, in bytes.
const DETAIL_BYTES_MAX: usize = 1024;

/// Of which invocation is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) start_time: Timestamp,
    pub(crate) database_name: String,
    pub(crate) trigger_name: String,
    pub(crate) invocation_id: String,
    pub(crate) attempt: u32,
    pub(crate) trace: TraceContext,
}

/// The row of an invocation.
pub(crate) fn row(subject: Subject, outcome: Outcome, usage: &Usage) -> PluginInvocation {
    PluginInvocation {
        start_time: subject.start_time,
        database_name: subject.database_name,
        trigger_name: subject.trigger_name,
        invocation_id: subject.invocation_id,
        attempt: subject.attempt.into(),
        outcome,
        pid: usage.pid.into(),
        queue_wait: usage.queued,
        bind: usage.bound,
        wall: usage.wall,
        user_cpu: usage.user_cpu,
        system_cpu: usage.system_cpu,
        transfer: usage.phases.transfer,
        conversion: usage.phases.conversion,
        plugin: usage.phases.plugin,
        peak_memory_bytes: usage.peak_memory_bytes,
        rows_in: usage.rows_in,
        bytes_in: usage.bytes_in,
        lines_out: usage.lines_out,
        bytes_out: usage.bytes_out,
        log_lines: usage.log_lines,
        trace: Some(subject.trace),
    }
}

/// The outcome of an invocation whose plugin completed.
pub(crate) fn ok() -> Outcome {
    Outcome {
        name: "ok",
        detail: None,
    }
}

/// The outcome of one that failed.
pub(crate) fn failed(failure: &Failure) -> Outcome {
    let (name, detail) = match failure {
        Failure::Source(error) => ("source_error", source_detail(error)),
        Failure::Invocation(error) => (word(error), error.to_string()),
    };
    Outcome {
        name,
        detail: Some(first_line(&detail)),
    }
}

fn word(error: &InvocationError) -> &'static str {
    match error {
        InvocationError::Load(_) => "load_error",
        InvocationError::Plugin(_) => "plugin_error",
        InvocationError::Worker { reason, .. } => reason.label(),
        InvocationError::HostLost => ExitReason::HostLost.label(),
        InvocationError::Stopped => "stopped",
        InvocationError::Host(_) => "no_worker",
        InvocationError::Paused { .. } => "paused",
        InvocationError::Released => "released",
    }
}

fn source_detail(error: &SourceError) -> String {
    Report(error).to_string()
}

fn first_line(text: &str) -> String {
    let mut line = text.lines().next().unwrap_or_default().to_owned();
    line.truncate(line.floor_char_boundary(DETAIL_BYTES_MAX));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_lost_its_host_is_not_one_that_had_no_worker() {
        let lost = failed(&Failure::Invocation(InvocationError::HostLost));
        let detail = "the worker's host ended, and the worker with it";
        assert_eq!(
            (lost.name, lost.detail.as_deref()),
            ("host_lost", Some(detail))
        );
        let none = failed(&Failure::Invocation(InvocationError::Host("x".to_owned())));
        assert_eq!(none.name, "no_worker");
    }
}
