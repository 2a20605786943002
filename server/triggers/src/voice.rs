//! How the engine words its own lines in the plugin log.

use outrigger_storage::{
    RejectedWrite, Storage, Target,
    journal::{LogLevel, PluginLog},
};
use outrigger_supervisor::{InvocationError, InvocationId};

use crate::backend::describe;

/// Speaks about one invocation of one trigger.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) storage: Storage,
    pub(crate) trigger: String,
    /// What the log calls the plugin: wal, schedule, request.
    pub(crate) kind: &'static str,
    pub(crate) invocation: InvocationId,
}

impl Voice {
    pub(crate) fn line(&self, log_level: LogLevel, log_text: String) -> PluginLog {
        PluginLog {
            event_time: self.storage.clock().now(),
            trigger_name: self.trigger.clone(),
            log_level,
            log_text,
            invocation_id: Some(self.invocation.to_string()),
        }
    }

    /// The contract's line, then everything that helps to find the reason.
    pub(crate) fn failure(&self, doing: &str, error: &InvocationError) -> String {
        let kind = self.kind;
        let first = match doing {
            "executing" => format!("error executing {kind} plugin: {error}"),
            doing => format!("error {doing} plugin: {error}"),
        };
        with_details(first, error)
    }

    pub(crate) fn rejection(&self, write: &RejectedWrite) -> PluginLog {
        let target = match &write.target {
            Target::Named(name) => name.clone(),
            Target::Existing(id) => {
                let catalog = self.storage.catalog();
                let name = catalog
                    .database_by_id(*id)
                    .map(|database| database.name.to_string());
                name.unwrap_or_else(|| "its own database, which was deleted".to_owned())
            }
        };
        let (kind, reason) = (self.kind, describe(&write.error));
        let text =
            format!("error running {kind} plugin: error writing back lines to {target}: {reason}");
        self.line(LogLevel::Error, text)
    }
}

fn with_details(first: String, error: &InvocationError) -> String {
    let details = match error {
        InvocationError::Load(failure) | InvocationError::Plugin(failure) => {
            failure.traceback.trim_end().to_owned()
        }
        InvocationError::Worker { stderr, .. } => stderr.join("\n"),
        InvocationError::Host(_) | InvocationError::Paused { .. } | InvocationError::Released => {
            String::new()
        }
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
