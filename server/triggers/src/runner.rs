//! How one trigger's plugin is run for an event, whatever the event is: the newest source
//! that loads, the lines in the plugin log, the commit of what comes of it.

use std::sync::Arc;

use outrigger_catalog::{
    Catalog, CatalogChange,
    trigger::{ErrorBehavior, Trigger, TriggerEvent},
};
use outrigger_model::{
    error::Report,
    ids::{DatabaseId, Sequence, TriggerId},
};
use outrigger_storage::{
    Commit, MakeChange, RejectedWrite, Storage, Target, TargetWrite,
    journal::{LogLevel, PluginLog},
};
use outrigger_supervisor::{
    Event, ExitReason, Finished, Invocation, InvocationError, InvocationId, Package, Plugin,
    Response, Source, Supervisor,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    backend::{binding_key, describe},
    last_good::LastGood,
    logs::{PluginLogger, mirror},
    manager::Config,
    requests::{AnswerError, Routes},
    source::{PluginDirectory, PluginSource, PluginText, SourceError},
};

/// What every trigger's task works with.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) storage: Storage,
    pub(crate) supervisor: Supervisor,
    pub(crate) plugins: PluginDirectory,
    pub(crate) logger: PluginLogger,
    pub(crate) routes: Routes,
    pub(crate) config: Config,
}

/// An event that a plugin is to be run for.
#[derive(Clone, Debug)]
pub(crate) struct Occasion {
    pub(crate) id: InvocationId,
    pub(crate) event: Event,
    /// What the log says first.
    pub(crate) starting: String,
    /// Where the trigger's cursor is once the event is dealt with.
    pub(crate) cursor: Option<Sequence>,
}

/// What becomes of a trigger after an invocation.
pub(crate) enum Next {
    /// The event is dealt with.
    Done,
    /// The same event again.
    Again,
    /// The task ends.
    Stop,
}

/// Why a run has no result.
enum Failure {
    Source(SourceError),
    Invocation(InvocationError),
}

/// Runs one trigger's plugin.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) engine: Engine,
    pub(crate) trigger: Arc<Trigger>,
    database: DatabaseId,
    sources: LastGood,
    pub(crate) stop: CancellationToken,
}

impl Runner {
    pub(crate) fn new(
        engine: Engine,
        database: DatabaseId,
        trigger: Arc<Trigger>,
        stop: CancellationToken,
    ) -> Self {
        let plugin = trigger.definition.plugin.clone();
        let sources = LastGood::new(engine.plugins.clone(), plugin);
        Self {
            engine,
            trigger,
            database,
            sources,
            stop,
        }
    }

    /// Runs the plugin once, commits what comes of it, and does with a failure what the
    /// trigger's error behaviour says.
    pub(crate) async fn attempt(&mut self, occasion: &Occasion, attempt: u32) -> Next {
        match self.run(occasion, attempt).await {
            Ok(finished) => self.on_finished(occasion, finished).await,
            Err(Failure::Source(error)) => {
                let text = format!("error executing {} plugin: {}", self.kind(), Report(&error));
                self.on_failure(occasion, text).await
            }
            Err(Failure::Invocation(error)) => self.on_error(occasion, error).await,
        }
    }

    /// Runs the plugin once and returns its answer; its lines are committed first.
    pub(crate) async fn answer(&mut self, occasion: &Occasion) -> Result<Response, AnswerError> {
        let error = match self.run(occasion, 1).await {
            Ok(mut finished) => {
                let response = finished.response.take().ok_or(AnswerError::Unavailable)?;
                if finished.lines.is_empty() {
                    // Nothing to make durable that the client would have to wait for.
                    self.log(&occasion.id, LogLevel::Info, finished_text(&finished))
                        .await;
                    return Ok(response);
                }
                return match self.on_finished(occasion, finished).await {
                    Next::Done => Ok(response),
                    Next::Again | Next::Stop => Err(AnswerError::Unavailable),
                };
            }
            Err(Failure::Source(error)) => AnswerError::Plugin(Report(&error).to_string()),
            Err(Failure::Invocation(error)) => {
                let text = self.failure_text("running request", &error);
                self.log(&occasion.id, LogLevel::Error, text).await;
                answer_error(error)
            }
        };
        Err(error)
    }

    async fn run(&mut self, occasion: &Occasion, attempt: u32) -> Result<Finished, Failure> {
        let installations = self.engine.supervisor.installations();
        self.sources.on_installations(installations);
        let mut source = self.sources.current().await.map_err(Failure::Source)?;
        self.log(&occasion.id, LogLevel::Info, occasion.starting.clone())
            .await;
        let mut result = self.invoke(&source, occasion, attempt).await;
        if let Err(error @ InvocationError::Load(_)) = &result
            && let Some(last_good) = self.sources.on_broken(&source)
        {
            let text = self.failure_text("executing", error);
            let text = format!("{text}\nthe last version that loads goes on running");
            self.log(&occasion.id, LogLevel::Error, text).await;
            source = last_good;
            result = self.invoke(&source, occasion, attempt).await;
        }
        if let Ok(_) | Err(InvocationError::Plugin(_)) = &result {
            self.sources.on_loaded(source);
        }
        result.map_err(Failure::Invocation)
    }

    async fn invoke(
        &self,
        source: &PluginSource,
        occasion: &Occasion,
        attempt: u32,
    ) -> Result<Finished, InvocationError> {
        let timeout = self.trigger.definition.timeout;
        let invocation = Invocation {
            id: occasion.id.clone(),
            attempt,
            timeout: timeout.unwrap_or(self.engine.config.invocation_timeout),
            event: occasion.event.clone(),
        };
        let plugin = Arc::new(self.plugin(source));
        self.engine.supervisor.invoke(plugin, invocation).await
    }

    fn plugin(&self, source: &PluginSource) -> Plugin {
        let text = match &source.text {
            PluginText::File(text) => Source::SingleFile(text.clone()),
            PluginText::Directory { name, files } => Source::Package(Package {
                name: name.clone(),
                files: files.clone(),
            }),
        };
        Plugin {
            binding: binding_key(self.trigger.id),
            name: self.trigger.definition.plugin.clone(),
            revision: source.revision.clone(),
            source: text,
            arguments: self.trigger.definition.arguments.clone(),
        }
    }

    async fn on_error(&self, occasion: &Occasion, error: InvocationError) -> Next {
        match &error {
            // The shutdown has ended the worker, not the plugin: the event comes again.
            InvocationError::Host(_) | InvocationError::Worker { .. }
                if self.stop.is_cancelled() =>
            {
                Next::Stop
            }
            // The plugin did not run, or not to its end, for reasons that are not its own.
            InvocationError::Host(_) => {
                let text = self.failure_text("executing", &error);
                self.log(
                    &occasion.id,
                    LogLevel::Error,
                    format!("{text}; trying again"),
                )
                .await;
                Next::Again
            }
            InvocationError::Worker { reason, .. } => {
                let (trigger, invocation) = (&self.trigger.definition.name, &occasion.id);
                warn!(trigger, %invocation, %reason, "a plugin's worker ended");
                self.on_failure(occasion, self.failure_text("executing", &error))
                    .await
            }
            InvocationError::Load(_) | InvocationError::Plugin(_) => {
                self.on_failure(occasion, self.failure_text("executing", &error))
                    .await
            }
        }
    }

    /// Commits the plugin's lines and the cursor together.
    async fn on_finished(&self, occasion: &Occasion, finished: Finished) -> Next {
        let own = Target::Existing(self.database);
        let text = finished_text(&finished);
        let writes = finished
            .lines
            .into_iter()
            .map(|(target, text)| TargetWrite {
                target: target.map_or_else(|| own.clone(), Target::Named),
                text: text.into(),
            })
            .collect();
        let voice = self.voice(&occasion.id);
        let kind = self.kind();
        let logs = move |rejected: &[RejectedWrite]| {
            let rejections = rejected.iter().map(|write| voice.rejection(kind, write));
            rejections
                .chain([voice.line(LogLevel::Info, text.clone())])
                .collect()
        };
        let cursor = occasion.cursor.map(|cursor| (self.trigger.id, cursor));
        self.commit(Commit {
            writes,
            cursor,
            change: None,
            logs: Box::new(logs),
        })
        .await
    }

    /// Does with a failed event what the trigger's error behaviour says.
    async fn on_failure(&self, occasion: &Occasion, text: String) -> Next {
        let behavior = self.trigger.definition.error_behavior;
        if behavior == ErrorBehavior::Retry {
            self.log(
                &occasion.id,
                LogLevel::Error,
                format!("{text}\ntrying again"),
            )
            .await;
            return Next::Again;
        }
        let disables = behavior == ErrorBehavior::Disable;
        let voice = self.voice(&occasion.id);
        let logs = move |_: &[RejectedWrite]| {
            let mut logs = vec![voice.line(LogLevel::Error, text.clone())];
            if disables {
                let text = "the trigger was disabled because its plugin failed".to_owned();
                logs.push(voice.line(LogLevel::Error, text));
            }
            logs
        };
        let trigger = self.trigger.id;
        let commit = Commit {
            writes: Vec::new(),
            cursor: occasion.cursor.map(|cursor| (trigger, cursor)),
            change: disables.then(|| disable(trigger)),
            logs: Box::new(logs),
        };
        match self.commit(commit).await {
            Next::Done if disables => Next::Stop,
            next => next,
        }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Next {
        match self.engine.storage.commit(commit).await {
            Ok(committed) => {
                committed.logs.iter().for_each(mirror);
                Next::Done
            }
            // Nothing of it is in the log: the same event will come again.
            Err(_stopped) if self.stop.is_cancelled() => Next::Stop,
            Err(error) => {
                let trigger = &self.trigger.definition.name;
                error!(trigger, error = %Report(&error), "cannot commit an invocation, trying again");
                Next::Again
            }
        }
    }

    pub(crate) async fn log(&self, id: &InvocationId, level: LogLevel, text: String) {
        self.engine
            .logger
            .log(self.voice(id).line(level, text))
            .await;
    }

    fn voice(&self, id: &InvocationId) -> Voice {
        Voice {
            storage: self.engine.storage.clone(),
            trigger: self.trigger.clone(),
            invocation: id.clone(),
        }
    }

    /// What the log calls the plugin.
    fn kind(&self) -> &'static str {
        match self.trigger.definition.event {
            TriggerEvent::AllTablesWalWrite | TriggerEvent::SingleTableWalWrite { .. } => "wal",
            TriggerEvent::Schedule { .. } | TriggerEvent::Every { .. } => "schedule",
            TriggerEvent::RequestPath { .. } => "request",
        }
    }

    /// The contract's line, then everything that helps to find the reason.
    fn failure_text(&self, doing: &str, error: &InvocationError) -> String {
        let kind = self.kind();
        let first = match doing {
            "executing" => format!("error executing {kind} plugin: {error}"),
            doing => format!("error {doing} plugin: {error}"),
        };
        with_details(first, error)
    }
}

fn finished_text(finished: &Finished) -> String {
    format!(
        "finished execution in {}",
        humantime::format_duration(finished.wall)
    )
}

fn with_details(first: String, error: &InvocationError) -> String {
    let details = match error {
        InvocationError::Load(failure) | InvocationError::Plugin(failure) => {
            failure.traceback.trim_end().to_owned()
        }
        InvocationError::Worker { stderr, .. } => stderr.join("\n"),
        InvocationError::Host(_) => String::new(),
    };
    if details.is_empty() {
        first
    } else {
        format!("{first}\n{details}")
    }
}

fn answer_error(error: InvocationError) -> AnswerError {
    match error {
        InvocationError::Load(failure) | InvocationError::Plugin(failure) => {
            AnswerError::Plugin(format!("Python function call failed: {failure}"))
        }
        InvocationError::Worker {
            reason: reason @ ExitReason::DeadlineExceeded { .. },
            ..
        } => AnswerError::Deadline(reason.to_string()),
        InvocationError::Worker { reason, .. } => AnswerError::Plugin(reason.to_string()),
        InvocationError::Host(_) => AnswerError::Unavailable,
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

/// Words the engine's own lines in the plugin log.
#[derive(Clone, Debug)]
struct Voice {
    storage: Storage,
    trigger: Arc<Trigger>,
    invocation: InvocationId,
}

impl Voice {
    fn line(&self, log_level: LogLevel, log_text: String) -> PluginLog {
        PluginLog {
            event_time: self.storage.clock().now(),
            trigger_name: self.trigger.definition.name.clone(),
            log_level,
            log_text,
            invocation_id: Some(self.invocation.to_string()),
        }
    }

    fn rejection(&self, kind: &str, write: &RejectedWrite) -> PluginLog {
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
        let reason = describe(&write.error);
        let text =
            format!("error running {kind} plugin: error writing back lines to {target}: {reason}");
        self.line(LogLevel::Error, text)
    }
}

#[cfg(test)]
mod tests {
    use outrigger_supervisor::PluginFailure;

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
