//! A WAL trigger: follows the log and runs its plugin on what was written.

use std::{sync::Arc, time::Duration};

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
    feed::{Delivery, Feed, Filter},
    journal::{LogLevel, PluginLog},
};
use outrigger_supervisor::{
    Event, EventTable, Finished, Invocation, InvocationError, InvocationId, Plugin, Source,
    Supervisor,
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    backend::{binding_key, describe},
    last_good::LastGood,
    logs::{PluginLogger, mirror},
    manager::Config,
    retry,
    source::{PluginDirectory, PluginSource},
};

/// How many entries without rows the durable cursor may lag behind.
const UNSAVED_ENTRIES_MAX: u64 = 1000;

/// What every trigger's task works with.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) storage: Storage,
    pub(crate) supervisor: Supervisor,
    pub(crate) plugins: PluginDirectory,
    pub(crate) logger: PluginLogger,
    pub(crate) config: Config,
}

/// Owns one trigger's cursor.
#[derive(Debug)]
pub(crate) struct WalTask {
    engine: Engine,
    trigger: Arc<Trigger>,
    filter: Filter,
    feed: Feed,
    /// As far as this task has looked.
    cursor: Sequence,
    /// The cursor that a restart would find.
    durable: Sequence,
    sources: LastGood,
    stop: CancellationToken,
}

/// What becomes of a trigger after an invocation.
enum Next {
    /// The event is dealt with.
    Done,
    /// The same event again.
    Again,
    /// The task ends.
    Stop,
}

impl WalTask {
    pub(crate) fn new(
        engine: Engine,
        database: DatabaseId,
        trigger: Arc<Trigger>,
        stop: CancellationToken,
    ) -> Self {
        let table = match &trigger.definition.event {
            TriggerEvent::AllTablesWalWrite => None,
            TriggerEvent::SingleTableWalWrite { table_name } => Some(table_name.clone()),
        };
        let filter = Filter {
            database,
            table,
            rows_max: engine.config.batch_rows_max,
            bytes_max: engine.config.batch_bytes_max.0,
        };
        let plugin = trigger.definition.plugin.clone();
        let sources = LastGood::new(engine.plugins.clone(), plugin);
        let (feed, cursor) = (engine.storage.feed(), trigger.cursor);
        Self {
            engine,
            trigger,
            filter,
            feed,
            cursor,
            durable: cursor,
            sources,
            stop,
        }
    }

    /// Runs until it is stopped; an invocation that runs is finished first.
    pub(crate) async fn run(mut self) {
        let mut news = self.feed.subscribe();
        while !self.stop.is_cancelled() {
            let next = match self.feed.read(self.cursor, &self.filter).await {
                Ok(delivery) => self.on_delivery(delivery, &mut news).await,
                Err(error) => {
                    let trigger = &self.trigger.definition.name;
                    warn!(trigger, error = %Report(&error), "cannot read the log, trying again");
                    self.pause(retry::pause(1)).await;
                    Next::Again
                }
            };
            if matches!(next, Next::Stop) {
                break;
            }
        }
        let key = binding_key(self.trigger.id);
        self.engine.supervisor.release(&key);
    }

    async fn on_delivery(
        &mut self,
        delivery: Delivery,
        news: &mut watch::Receiver<Sequence>,
    ) -> Next {
        if delivery.tables.is_empty() {
            self.cursor = delivery.through;
            self.save_cursor().await;
            return self.wait_for_news(news).await;
        }
        for attempt in 1.. {
            match self.attempt(&delivery, attempt).await {
                Next::Done => {
                    self.cursor = delivery.through;
                    self.durable = delivery.through;
                    break;
                }
                Next::Stop => return Next::Stop,
                Next::Again => self.pause(retry::pause(attempt)).await,
            }
            if self.stop.is_cancelled() {
                return Next::Stop;
            }
        }
        Next::Done
    }

    /// Makes the cursor durable where it has passed many entries without rows, so that a
    /// restart need not read them again. Failing is no harm.
    async fn save_cursor(&mut self) {
        if self.cursor.0 - self.durable.0 < UNSAVED_ENTRIES_MAX {
            return;
        }
        let cursor = Some((self.trigger.id, self.cursor));
        let commit = Commit {
            writes: Vec::new(),
            cursor,
            change: None,
            logs: Box::new(|_| Vec::new()),
        };
        if self.engine.storage.commit(commit).await.is_ok() {
            self.durable = self.cursor;
        }
    }

    async fn wait_for_news(&self, news: &mut watch::Receiver<Sequence>) -> Next {
        let cursor = self.cursor;
        tokio::select! {
            changed = news.wait_for(|last| *last > cursor) => match changed {
                Ok(_) => Next::Done,
                Err(_closed) => Next::Stop,
            },
            () = self.stop.cancelled() => Next::Stop,
        }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Runs the plugin once on the delivered rows, and commits what comes of it.
    async fn attempt(&mut self, delivery: &Delivery, attempt: u32) -> Next {
        let id = self.invocation_id(delivery);
        let mut source = match self.sources.current().await {
            Ok(source) => source,
            Err(error) => {
                let text = format!("error executing wal plugin: {}", Report(&error));
                return self.on_failure(delivery, &id, text).await;
            }
        };
        let starting = "starting execution of wal plugin.".to_owned();
        self.log(&id, LogLevel::Info, starting).await;
        let mut result = self.invoke(&source, delivery, &id, attempt).await;
        if let Err(error @ InvocationError::Load(_)) = &result
            && let Some(last_good) = self.sources.on_broken(&source)
        {
            let text = failure_text(error);
            let text = format!("{text}\nthe last version that loads goes on running");
            self.log(&id, LogLevel::Error, text).await;
            source = last_good;
            result = self.invoke(&source, delivery, &id, attempt).await;
        }
        if let Ok(_) | Err(InvocationError::Plugin(_)) = &result {
            self.sources.on_loaded(source);
        }
        self.on_result(delivery, &id, result).await
    }

    async fn invoke(
        &self,
        source: &PluginSource,
        delivery: &Delivery,
        id: &InvocationId,
        attempt: u32,
    ) -> Result<Finished, InvocationError> {
        let tables = delivery.tables.iter().map(|table| EventTable {
            name: table.name.clone(),
            batches: table.batches.clone(),
        });
        let invocation = Invocation {
            id: id.clone(),
            attempt,
            timeout: self.engine.config.invocation_timeout,
            event: Event::Writes(tables.collect()),
        };
        let plugin = Arc::new(self.plugin(source.clone()));
        self.engine.supervisor.invoke(plugin, invocation).await
    }

    async fn on_result(
        &self,
        delivery: &Delivery,
        id: &InvocationId,
        result: Result<Finished, InvocationError>,
    ) -> Next {
        let error = match result {
            Ok(finished) => return self.on_finished(delivery, id, finished).await,
            Err(error) => error,
        };
        match &error {
            // The shutdown has ended the worker, not the plugin: the rows come again.
            InvocationError::Host(_) | InvocationError::Worker { .. }
                if self.stop.is_cancelled() =>
            {
                Next::Stop
            }
            // The plugin did not run, or not to its end, for reasons that are not its own.
            InvocationError::Host(_) => {
                let text = format!("error executing wal plugin: {error}; trying again");
                self.log(id, LogLevel::Error, text).await;
                Next::Again
            }
            InvocationError::Worker { reason, .. } => {
                let trigger = &self.trigger.definition.name;
                warn!(trigger, invocation = %id, %reason, "a plugin's worker ended");
                self.on_failure(delivery, id, failure_text(&error)).await
            }
            InvocationError::Load(_) | InvocationError::Plugin(_) => {
                self.on_failure(delivery, id, failure_text(&error)).await
            }
        }
    }

    fn plugin(&self, source: PluginSource) -> Plugin {
        Plugin {
            binding: binding_key(self.trigger.id),
            name: self.trigger.definition.plugin.clone(),
            revision: source.revision,
            source: Source::SingleFile(source.text),
            arguments: self.trigger.definition.arguments.clone(),
        }
    }

    /// The same for every attempt at the same rows, also after a restart; rows that were
    /// written meanwhile may join them then, which makes another id.
    fn invocation_id(&self, delivery: &Delivery) -> InvocationId {
        let (first, last) = delivery
            .entries
            .unwrap_or((delivery.through, delivery.through));
        InvocationId(format!("{}-{first}-{last}", self.trigger.id).into())
    }

    /// Commits the plugin's lines and the cursor together.
    async fn on_finished(
        &self,
        delivery: &Delivery,
        id: &InvocationId,
        finished: Finished,
    ) -> Next {
        let own = Target::Existing(self.filter.database);
        let writes = finished
            .lines
            .into_iter()
            .map(|(target, text)| TargetWrite {
                target: target.map_or_else(|| own.clone(), Target::Named),
                text: text.into(),
            })
            .collect();
        let voice = self.voice(id);
        let took = humantime::format_duration(finished.wall);
        let logs = move |rejected: &[RejectedWrite]| {
            let rejections = rejected.iter().map(|write| voice.rejection(write));
            let text = format!("finished execution in {took}");
            rejections
                .chain([voice.line(LogLevel::Info, text)])
                .collect()
        };
        let cursor = Some((self.trigger.id, delivery.through));
        self.commit(Commit {
            writes,
            cursor,
            change: None,
            logs: Box::new(logs),
        })
        .await
    }

    /// Does with a failed event what the trigger's error behaviour says.
    async fn on_failure(&self, delivery: &Delivery, id: &InvocationId, text: String) -> Next {
        let behavior = self.trigger.definition.error_behavior;
        if behavior == ErrorBehavior::Retry {
            self.log(id, LogLevel::Error, format!("{text}\ntrying again"))
                .await;
            return Next::Again;
        }
        let disables = behavior == ErrorBehavior::Disable;
        let voice = self.voice(id);
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
            cursor: Some((trigger, delivery.through)),
            change: disables.then(|| disable(trigger)),
            logs: Box::new(logs),
        };
        match self.commit(commit).await {
            Next::Done if disables => Next::Stop,
            next => next,
        }
    }

    async fn commit(&self, commit: Commit) -> Next {
        match self.engine.storage.commit(commit).await {
            Ok(committed) => {
                committed.logs.iter().for_each(mirror);
                Next::Done
            }
            // Nothing of it is in the log: the same rows will be delivered again.
            Err(_stopped) if self.stop.is_cancelled() => Next::Stop,
            Err(error) => {
                let trigger = &self.trigger.definition.name;
                error!(trigger, error = %Report(&error), "cannot commit an invocation, trying again");
                Next::Again
            }
        }
    }

    async fn log(&self, id: &InvocationId, level: LogLevel, text: String) {
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

    fn rejection(&self, write: &RejectedWrite) -> PluginLog {
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
            format!("error running wal plugin: error writing back lines to {target}: {reason}");
        self.line(LogLevel::Error, text)
    }
}

/// The contract's line, then everything that helps to find the reason.
fn failure_text(error: &InvocationError) -> String {
    let details = match error {
        InvocationError::Load(failure) | InvocationError::Plugin(failure) => {
            failure.traceback.trim_end().to_owned()
        }
        InvocationError::Worker { stderr, .. } => stderr.join("\n"),
        InvocationError::Host(_) => String::new(),
    };
    let first = format!("error executing wal plugin: {error}");
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
    fn a_failure_begins_with_the_contracts_line() {
        let failure = PluginFailure {
            exception: "ValueError".to_owned(),
            message: "boom".to_owned(),
            traceback: "Traceback …\n".to_owned(),
        };
        let text = failure_text(&InvocationError::Plugin(failure));
        assert_eq!(
            text,
            "error executing wal plugin: ValueError: boom\nTraceback …"
        );
        let reason = ExitReason::Code(3);
        let text = failure_text(&InvocationError::Worker {
            reason,
            stderr: Vec::new(),
        });
        assert_eq!(
            text,
            "error executing wal plugin: the worker exited with code 3"
        );
    }
}
