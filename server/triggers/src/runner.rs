//! How one trigger's plugin is run for an event, whatever the event is: the newest source
//! that loads, the lines in the plugin log, the commit of what comes of it.

mod answer;
mod outcome;
mod words;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use outrigger_catalog::{
    progress::EntryRange,
    trigger::{Trigger, TriggerDefinition},
};
use outrigger_model::{
    error::Report,
    ids::DatabaseId,
    shutdown::Gate,
    trace::{Span, SpanKind, Trace, Tracer},
};
use outrigger_storage::{
    Storage,
    journal::{LogLevel, PluginInvocation},
};
use outrigger_supervisor::{
    Concluded, Event, Finished, Grants, Invocation, InvocationError, InvocationId, Plugin,
    Supervisor, Usage,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::{
    account,
    backend::binding_key,
    board::Board,
    last_good::LastGood,
    logs::PluginLogger,
    manager::Config,
    origin::Origin,
    plugins::Plugins,
    retry,
    source::{PluginSource, SourceError},
    wording,
};

/// What every trigger's task works with.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) storage: Storage,
    pub(crate) supervisor: Supervisor,
    pub(crate) plugins: Plugins,
    pub(crate) logger: PluginLogger,
    pub(crate) board: Board,
    pub(crate) config: Config,
    pub(crate) tracer: Tracer,
    /// Knows what a shutdown waits for.
    pub(crate) gate: Gate,
}

/// An event that a plugin is to be run for.
#[derive(Clone, Debug)]
pub(crate) struct Occasion {
    pub(crate) id: InvocationId,
    pub(crate) event: Event,
    /// What of the log the trigger has dealt with once the event is dealt with.
    pub(crate) done: Option<EntryRange>,
    /// To which trace it belongs.
    pub(crate) origin: Origin,
    /// How long it has waited for its turn, since somebody asked for it.
    pub(crate) waited: Duration,
}

/// One run of the plugin for an occasion.
#[derive(Debug)]
struct Attempt<'a> {
    occasion: &'a Occasion,
    /// 1 for the first.
    number: u32,
    trace: Trace,
}

/// What becomes of a trigger after an invocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// The event is dealt with.
    Done,
    /// The same event again.
    Again,
    /// The same event after this time; the plugin did not run.
    Wait(Duration),
    /// The task ends.
    Stop,
}

/// Why a run has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    Source(SourceError),
    Invocation(InvocationError),
}

/// What a run gave, and what is recorded of it.
struct Ran {
    result: Result<Finished, Failure>,
    account: PluginInvocation,
}

/// Runs one trigger's plugin.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) engine: Engine,
    pub(crate) trigger: Arc<Trigger>,
    database: DatabaseId,
    sources: LastGood,
    pub(crate) stop: CancellationToken,
    /// Nobody wants the results of what still runs.
    unwanted: CancellationToken,
}

impl Runner {
    pub(crate) fn new(
        engine: Engine,
        database: DatabaseId,
        trigger: Arc<Trigger>,
        stop: CancellationToken,
        unwanted: CancellationToken,
    ) -> Self {
        let sources = LastGood::new(engine.plugins.clone());
        engine.supervisor.prepare(binding_key(trigger.id));
        Self {
            engine,
            trigger,
            database,
            sources,
            stop,
            unwanted,
        }
    }

    /// How many invocations may run at the same time.
    pub(crate) fn concurrency(&self) -> NonZeroUsize {
        if self.trigger.definition.run_async {
            self.engine.config.concurrency
        } else {
            NonZeroUsize::MIN
        }
    }

    /// Gives back what belongs to the trigger; nothing of it runs any more.
    pub(crate) fn release(&self) {
        let id = self.trigger.id;
        self.engine.supervisor.release(&binding_key(id));
        self.engine.board.statuses().forget(id);
    }

    /// Runs the plugin until the event is dealt with ([`Next::Done`]) or the trigger
    /// stops ([`Next::Stop`]).
    pub(crate) async fn deal_with(&self, occasion: &Occasion) -> Next {
        let mut number = 1;
        let mut origin = occasion.origin.clone();
        while !self.stop.is_cancelled() {
            let span = self.begin(occasion, &origin, number);
            origin.on_first(span.context());
            let lines = self.log_span(occasion, &span);
            let attempt = self.attempt(occasion, number, span).instrument(lines);
            let pause = match attempt.await {
                Next::Again => {
                    let pause = retry::pause(number);
                    number += 1;
                    pause
                }
                Next::Wait(pause) => pause,
                next => return next,
            };
            self.pause(pause).await;
        }
        Next::Stop
    }

    /// Begins an attempt's span.
    fn begin(&self, occasion: &Occasion, origin: &Origin, number: u32) -> Span {
        let definition = &self.trigger.definition;
        let name = format!("trigger {}", definition.name);
        let kind = match occasion.event {
            Event::Writes(_) | Event::Files(_) => SpanKind::Consumer,
            Event::Schedule { .. } | Event::Request(_) => SpanKind::Internal,
        };
        let mut span = origin.begin(&self.engine.tracer, name, kind);
        span.set("trigger", definition.name.as_str());
        span.set("plugin", definition.plugin.as_str());
        span.set("invocation", &*occasion.id.0);
        span.set("attempt", u64::from(number));
        span
    }

    /// What the server's own log lines say about where they come from.
    fn log_span(&self, occasion: &Occasion, span: &Span) -> tracing::Span {
        let trigger = &self.trigger.definition.name;
        let trace_id = span.context().trace_id;
        info_span!("invocation", trigger, invocation = %occasion.id, %trace_id)
    }

    async fn pause(&self, pause: Duration) {
        let nanos = i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX);
        let mut until = self.engine.storage.clock().now();
        until.0 = until.0.saturating_add(nanos);
        self.engine
            .board
            .statuses()
            .retries_at(self.trigger.id, until);
        tokio::select! {
            () = sleep(pause) => {}
            () = self.engine.board.resumed() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Runs the plugin once, commits what comes of it, and does with a failure what the
    /// trigger's error behaviour says.
    async fn attempt(&self, occasion: &Occasion, number: u32, mut span: Span) -> Next {
        let attempt = &Attempt {
            occasion,
            number,
            trace: span.trace(),
        };
        let Ran { result, account } = self.run(attempt, &mut span).await;
        match result {
            Ok(finished) => self.on_finished(attempt, finished, account).await,
            Err(Failure::Source(error)) => {
                let text = format!("error executing {} plugin: {}", self.kind(), Report(&error));
                if matches!(error, SourceError::Pinned(_)) {
                    // Not the plugin's fault, and its source is there or can be restored.
                    let text = format!("{text}; trying again");
                    self.say(attempt, LogLevel::Error, text).await;
                    self.engine.logger.account(account).await;
                    return Next::Again;
                }
                self.on_failure(attempt, text, account).await
            }
            Err(Failure::Invocation(error)) => self.on_error(attempt, error, account).await,
        }
    }

    async fn run(&self, attempt: &Attempt<'_>, span: &mut Span) -> Ran {
        let subject = self.subject(attempt);
        let _named = self.engine.gate.under_way(format!(
            "trigger {:?}, invocation {}",
            self.trigger.definition.name, attempt.occasion.id
        ));
        let (statuses, id) = (self.engine.board.statuses(), self.trigger.id);
        statuses.began(id);
        let (result, mut usage) = self.run_newest(attempt).await;
        usage.queued += attempt.occasion.waited;
        let outcome = match &result {
            Ok(_) => account::ok(),
            Err(failure) => account::failed(failure),
        };
        match &result {
            Err(Failure::Invocation(
                InvocationError::Paused { .. } | InvocationError::Released,
            )) => statuses.put_off(id),
            _ => statuses.ended(id, outcome.detail.clone()),
        }
        if let Some(detail) = &outcome.detail {
            span.fail(detail);
        }
        span.set("outcome", outcome.name);
        span.set("rows", usage.rows_in);
        let account = account::row(subject, outcome, &usage);
        self.engine.board.metrics.count(self.kind(), &account);
        Ran { result, account }
    }

    /// Runs the newest source, or the last one that loads.
    async fn run_newest(&self, attempt: &Attempt<'_>) -> (Result<Finished, Failure>, Usage) {
        let installations = self.engine.supervisor.installations();
        self.sources.on_installations(installations);
        let definition = self.definition();
        let mut found = match self.sources.current(&definition).await {
            Ok(found) => found,
            Err(error) => return (Err(Failure::Source(error)), Usage::default()),
        };
        let starting = wording::starting(&attempt.occasion.event);
        self.say(attempt, LogLevel::Info, starting).await;
        let mut concluded = self.invoke(&found.source, attempt).await;
        if let Err(error @ InvocationError::Load(_)) = &concluded.result
            && let Some(last_good) = self.sources.on_broken(&found.source)
        {
            let text = self.voice(attempt).failure("executing", error);
            let text = format!("{text}\nthe last version that loads goes on running");
            self.say(attempt, LogLevel::Error, text).await;
            found = last_good;
            concluded = self.invoke(&found.source, attempt).await;
        }
        let Concluded { result, usage } = concluded;
        if let Ok(_) | Err(InvocationError::Plugin(_)) = &result {
            self.sources.on_loaded(found);
        }
        (result.map_err(Failure::Invocation), usage)
    }

    async fn invoke(&self, source: &PluginSource, attempt: &Attempt<'_>) -> Concluded {
        let occasion = attempt.occasion;
        let timeout = self.trigger.definition.timeout;
        let invocation = Invocation {
            id: occasion.id.clone(),
            attempt: attempt.number,
            timeout: timeout.unwrap_or(self.engine.config.invocation_timeout),
            unwanted: self.unwanted.clone(),
            trace: attempt.trace.clone(),
            event: occasion.event.clone(),
        };
        let plugin = Arc::new(self.plugin(source));
        self.engine.supervisor.invoke(plugin, invocation).await
    }

    /// The trigger's definition, with the source that it was given since it started.
    fn definition(&self) -> TriggerDefinition {
        let catalog = self.engine.storage.catalog();
        let found = catalog.trigger_by_id(self.trigger.id);
        let trigger = found.map_or(&self.trigger, |(_, trigger)| trigger);
        trigger.definition.clone()
    }

    fn plugin(&self, source: &PluginSource) -> Plugin {
        Plugin {
            binding: binding_key(self.trigger.id),
            name: self.definition().plugin,
            revision: source.revision.clone(),
            source: source.text.for_worker(),
            arguments: self.trigger.definition.arguments.clone(),
            workers_max: self.concurrency().get(),
            grants: self.grants(),
            keeps_files: true,
        }
    }

    /// What this trigger may touch beyond what all may.
    fn grants(&self) -> Grants {
        let granted = &self.trigger.definition.grants;
        Grants {
            subprocesses: granted.subprocesses,
            network: granted.network.clone(),
            ..Grants::default()
        }
    }
}
