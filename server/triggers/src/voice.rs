//! How the engine words its own lines in the plugin log.

use outrigger_model::trace::TraceContext;
use outrigger_storage::{
    RejectedWrite, Storage, Target,
    journal::{LogLevel, PluginLog},
};
use outrigger_supervisor::{InvocationError, InvocationId};

use crate::{backend::describe, wording};

/// Speaks about one invocation of one trigger.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) storage: Storage,
    pub(crate) trigger: String,
    /// What the log calls the plugin: wal, schedule, request.
    pub(crate) kind: &'static str,
    pub(crate) invocation: InvocationId,
    /// The attempt at it, where there is one.
    pub(crate) trace: Option<TraceContext>,
}

impl Voice {
    pub(crate) fn line(&self, log_level: LogLevel, log_text: String) -> PluginLog {
        PluginLog {
            event_time: self.storage.clock().now(),
            trigger_name: self.trigger.clone(),
            log_level,
            log_text,
            invocation_id: Some(self.invocation.to_string()),
            trace: self.trace,
        }
    }

    /// The contract's line, then everything that helps to find the reason.
    pub(crate) fn failure(&self, doing: &str, error: &InvocationError) -> String {
        let kind = self.kind;
        let first = match doing {
            "executing" => format!("error executing {kind} plugin: {error}"),
            doing => format!("error {doing} plugin: {error}"),
        };
        wording::with_details(first, error)
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
