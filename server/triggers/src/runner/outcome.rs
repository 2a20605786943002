//! What becomes of an event, and of its trigger, once the plugin has run or could not?

use std::time::Duration;

use outrigger_catalog::{Catalog, CatalogChange, trigger::ErrorBehavior};
use outrigger_model::{error::Report, ids::TriggerId, trace::Span};
use outrigger_storage::{
    Commit, MakeChange, RejectedWrite, Target, TargetWrite,
    journal::{JournalRows, LogLevel, PluginInvocation},
};
use outrigger_supervisor::{ExitReason, Finished, InvocationError};
use tracing::{error, warn};

use super::{Attempt, Next, Runner};
use crate::{logs::mirror, wording};

impl Runner {
    pub(super) async fn on_error(
        &self,
        attempt: &Attempt<'_>,
        error: InvocationError,
        account: PluginInvocation,
    ) -> Next {
        let text = self.voice(attempt).failure("executing", &error);
        match error {
            InvocationError::Worker {
                reason: ExitReason::Unwanted,
                ..
            } => {
                let text = format!("{text}\nits trigger was disabled or deleted");
                self.say(attempt, LogLevel::Warn, text).await;
                self.engine.logger.account(account).await;
                Next::Stop
            }
            // The shutdown has ended the worker, not the plugin: the event comes again.
            InvocationError::Released
            | InvocationError::HostLost
            | InvocationError::Stopped
            | InvocationError::Host(_)
            | InvocationError::Paused { .. }
            | InvocationError::Worker { .. }
                if self.stop.is_cancelled() =>
            {
                Next::Stop
            }
            // The plugin did not run, or not to its end, for reasons that are not its own.
            InvocationError::HostLost
            | InvocationError::Stopped
            | InvocationError::Host(_)
            | InvocationError::Released => {
                let text = format!("{text}; trying again");
                self.say(attempt, LogLevel::Error, text).await;
                self.engine.logger.account(account).await;
                Next::Again
            }
            InvocationError::Paused { left, .. } => {
                // Whole seconds read better, and a little later is no harm.
                let left = Duration::from_secs(left.as_secs() + 1);
                let again = humantime::format_duration(left);
                let text =
                    format!("{text}; it is run again in {again}, or when the trigger is enabled");
                self.say(attempt, LogLevel::Error, text).await;
                Next::Wait(left)
            }
            InvocationError::Worker { reason, .. } => {
                let (trigger, invocation) = (&self.trigger.definition.name, &attempt.occasion.id);
                let reason = reason.to_string();
                warn!(trigger, %invocation, reason, "a plugin's worker ended");
                self.on_failure(attempt, text, account).await
            }
            InvocationError::Load(_) | InvocationError::Plugin(_) => {
                self.on_failure(attempt, text, account).await
            }
        }
    }

    /// Commits the plugin's lines and what the trigger has dealt with together.
    pub(super) async fn on_finished(
        &self,
        attempt: &Attempt<'_>,
        finished: Finished,
        account: PluginInvocation,
    ) -> Next {
        let own = Target::Existing(self.database);
        let text = wording::finished(account.wall);
        let writes = finished
            .lines
            .into_iter()
            .map(|(target, text)| TargetWrite {
                target: target.map_or_else(|| own.clone(), Target::Named),
                text: text.into(),
            })
            .collect();
        let voice = self.voice(attempt);
        let journal = move |rejected: &[RejectedWrite]| {
            let rejections = rejected.iter().map(|write| voice.rejection(write));
            let finished = voice.line(LogLevel::Info, text.clone());
            JournalRows {
                logs: rejections.chain([finished]).collect(),
                invocations: vec![account.clone()],
            }
        };
        let span = attempt.trace.child("write back");
        let commit = Commit {
            writes,
            done: attempt.occasion.done.map(|done| (self.trigger.id, done)),
            change: None,
            journal: Box::new(journal),
            trace: span.trace(),
        };
        self.commit(commit, span).await
    }

    /// Does with a failed event what the trigger's error behaviour says.
    pub(super) async fn on_failure(
        &self,
        attempt: &Attempt<'_>,
        text: String,
        account: PluginInvocation,
    ) -> Next {
        let behavior = self.trigger.definition.error_behavior;
        if behavior == ErrorBehavior::Retry {
            let text = format!("{text}\ntrying again");
            self.say(attempt, LogLevel::Error, text).await;
            self.engine.logger.account(account).await;
            return Next::Again;
        }
        let disables = behavior == ErrorBehavior::Disable;
        let voice = self.voice(attempt);
        let journal = move |_: &[RejectedWrite]| {
            let mut logs = vec![voice.line(LogLevel::Error, text.clone())];
            if disables {
                let text = "the trigger was disabled because its plugin failed".to_owned();
                logs.push(voice.line(LogLevel::Error, text));
            }
            JournalRows {
                logs,
                invocations: vec![account.clone()],
            }
        };
        let trigger = self.trigger.id;
        let span = attempt.trace.child("record failure");
        let commit = Commit {
            writes: Vec::new(),
            done: attempt.occasion.done.map(|done| (trigger, done)),
            change: disables.then(|| disable(trigger)),
            journal: Box::new(journal),
            trace: span.trace(),
        };
        match self.commit(commit, span).await {
            Next::Done if disables => Next::Stop,
            next => next,
        }
    }

    async fn commit(&self, commit: Commit, mut span: Span) -> Next {
        match self.engine.storage.commit(commit).await {
            Ok(committed) => {
                if let Some(rejected) = committed.rejected.first() {
                    span.fail(&rejected.error);
                }
                committed.journal.logs.iter().for_each(mirror);
                Next::Done
            }
            // Nothing of it is in the log: the same event will come again.
            Err(_stopped) if self.stop.is_cancelled() => Next::Stop,
            Err(error) => {
                span.fail(&Report(&error));
                let trigger = &self.trigger.definition.name;
                error!(trigger, error = %Report(&error), "cannot commit an invocation, trying again");
                Next::Again
            }
        }
    }
}

/// The change that disables a trigger, unless somebody has done so or deleted it.
fn disable(id: TriggerId) -> Box<MakeChange> {
    Box::new(move |catalog: &Catalog| {
        let enabled = catalog
            .trigger_by_id(id)
            .is_some_and(|(_, trigger)| !trigger.definition.disabled);
        Ok(enabled.then_some(CatalogChange::SetTriggerDisabled { id, disabled: true }))
    })
}
