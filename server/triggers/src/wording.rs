//! How the engine words its own lines around a run, in the log and in dry runs.

use std::time::Duration;

use outrigger_supervisor::{Event, InvocationError};

use crate::timetable::at;

/// Before the plugin is called.
pub(crate) fn starting(event: &Event) -> String {
    match event {
        Event::Writes(_) => "starting execution of wal plugin.".to_owned(),
        Event::Files(_) => "starting execution of parquet plugin.".to_owned(),
        Event::Schedule { call_time } => {
            format!("starting execution with scheduled time {}", at(*call_time))
        }
        Event::Request(_) => "starting execution of request plugin.".to_owned(),
    }
}

/// After it has succeeded.
pub(crate) fn finished(wall: Duration) -> String {
    format!("finished execution in {}", humantime::format_duration(wall))
}

/// The first line of a failure, then everything that helps to find its reason.
pub(crate) fn with_details(first: String, error: &InvocationError) -> String {
    let details = match error {
        InvocationError::Load(failure) | InvocationError::Plugin(failure) => {
            failure.traceback.trim_end().to_owned()
        }
        InvocationError::Worker { stderr, .. } => stderr.join("\n"),
        InvocationError::HostLost
        | InvocationError::Stopped
        | InvocationError::Host(_)
        | InvocationError::Paused { .. }
        | InvocationError::Released => String::new(),
    };
    if details.is_empty() {
        first
    } else {
        format!("{first}\n{details}")
    }
}

#[cfg(test)]
mod tests {
    use outrigger_supervisor::{ExitReason, PluginFailure};

    use super::*;

    #[test]
    fn a_failure_begins_with_its_line() {
        let failure = PluginFailure {
            exception: "ValueError".to_owned(),
            message: "boom".to_owned(),
            traceback: "Traceback …\n".to_owned(),
        };
        let text = with_details("first".to_owned(), &InvocationError::Plugin(failure));
        assert_eq!(text, "first\nTraceback …");
        let worker = InvocationError::Worker {
            reason: ExitReason::Code(3),
            stderr: Vec::new(),
        };
        assert_eq!(with_details("first".to_owned(), &worker), "first");
    }
}
