//! Which triggers run: keeps one task per enabled trigger, whatever the catalog says now.
//!
//! It compares what should run with what runs, after every log entry, instead of
//! being told of each change: so it cannot miss one, and a start is no special case.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

use outrigger_catalog::trigger::TriggerEvent;
use outrigger_model::{
    bytes::ByteSize,
    ids::{DatabaseId, Sequence, TriggerId},
    shutdown::Gate,
    trace::Tracer,
};
use outrigger_storage::Storage;
use outrigger_supervisor::Supervisor;
use tokio::{
    sync::watch,
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    backend::binding_key,
    board::Board,
    follower::FollowerTask,
    logs::PluginLogger,
    plugins::Plugins,
    requests::RequestTask,
    runner::{Engine, Runner},
    schedule::ScheduleTask,
    timetable::Timetable,
};

/// Limits of invocations.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many invocations of an asynchronous trigger may run at the same time.
    pub concurrency: NonZeroUsize,
    /// How many rows are handed over in one invocation, unless one log entry has more.
    pub batch_rows_max: usize,
    /// Likewise in bytes.
    pub batch_bytes_max: ByteSize,
    /// How long an invocation may take.
    pub invocation_timeout: Duration,
}

/// Owns the triggers' tasks.
#[derive(Debug)]
pub struct ManagerTask {
    engine: Engine,
    running: HashMap<TriggerId, Running>,
    tasks: JoinSet<()>,
    /// Whose task it is.
    owners: HashMap<task::Id, TriggerId>,
    /// The triggers that there were when it last looked; `None` before that.
    existing: Option<BTreeSet<TriggerId>>,
}

/// A task that runs, and since when its trigger was enabled then.
#[derive(Debug)]
struct Running {
    since: Sequence,
    /// It begins nothing new.
    stop: CancellationToken,
    /// Nobody wants the results of what it still runs.
    unwanted: CancellationToken,
}

enum Wake {
    Changed,
    Ended(TriggerId),
    /// Their pauses end.
    Resume(Vec<TriggerId>),
    Shutdown,
}

impl ManagerTask {
    /// A manager of the triggers in `storage`'s catalog.
    pub fn new(
        storage: Storage,
        supervisor: Supervisor,
        plugins: Plugins,
        logger: PluginLogger,
        board: Board,
        (config, tracer): (Config, Tracer),
    ) -> Self {
        board.attach(&supervisor);
        let engine = Engine {
            storage,
            supervisor,
            plugins,
            logger,
            board,
            config,
            tracer,
            gate: Gate::default(),
        };
        Self {
            engine,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            existing: None,
        }
    }

    /// Runs until the gate closes, then until every trigger's last invocation has ended.
    pub async fn run(mut self, gate: Gate) {
        let mut news = self.engine.storage.feed().subscribe();
        news.mark_changed();
        self.engine.gate = gate.clone();
        loop {
            match self.next_wake(&mut news, gate.token()).await {
                Wake::Changed => self.reconcile(),
                Wake::Ended(trigger) => {
                    self.running.remove(&trigger);
                    self.reconcile();
                }
                Wake::Resume(triggers) => self.resume(&triggers),
                Wake::Shutdown => break,
            }
        }
        self.running
            .values()
            .for_each(|running| running.stop.cancel());
        while self.tasks.join_next().await.is_some() {}
    }

    async fn next_wake(
        &mut self,
        news: &mut watch::Receiver<Sequence>,
        shutdown: &CancellationToken,
    ) -> Wake {
        loop {
            tokio::select! {
                changed = news.changed() => {
                    return changed.map_or(Wake::Shutdown, |()| Wake::Changed);
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    let task = match ended {
                        Ok((task, ())) => task,
                        Err(panic) => {
                            error!(%panic, "a trigger's task has panicked, starting it again");
                            panic.id()
                        }
                    };
                    if let Some(trigger) = self.owners.remove(&task) {
                        return Wake::Ended(trigger);
                    }
                }
                triggers = self.engine.board.wishes() => return Wake::Resume(triggers),
                () = shutdown.cancelled() => return Wake::Shutdown,
            }
        }
    }

    fn resume(&self, triggers: &[TriggerId]) {
        for trigger in triggers {
            self.engine.supervisor.resume(&binding_key(*trigger));
        }
        self.engine.board.grant_resumption();
    }

    fn reconcile(&mut self) {
        let catalog = self.engine.storage.catalog();
        let existing = catalog.triggers().map(|(_, trigger)| trigger.id).collect();
        self.forget_deleted(existing);
        let mut wanted = HashSet::new();
        for (database, trigger) in catalog.triggers() {
            if trigger.definition.disabled {
                continue;
            }
            // One that was disabled and enabled meanwhile starts anew.
            wanted.insert((trigger.id, trigger.since));
            // A task that is stopping must end before its successor starts.
            if self.running.contains_key(&trigger.id) {
                continue;
            }
            let name = &trigger.definition.name;
            let (pin, cursor) = (trigger.definition.pin.as_ref(), trigger.progress.cursor());
            let sha256 = pin.map(|pin| pin.sha256.as_str());
            info!(trigger = name, db = %database.name, %cursor, sha256, "trigger starts");
            let (stop, unwanted) = (CancellationToken::new(), CancellationToken::new());
            let running = Running {
                since: trigger.since,
                stop: stop.clone(),
                unwanted: unwanted.clone(),
            };
            self.running.insert(trigger.id, running);
            let runner = Runner::new(
                self.engine.clone(),
                database.id,
                trigger.clone(),
                stop,
                unwanted,
            );
            self.spawn(runner, database.id);
        }
        for (trigger, running) in &self.running {
            let goes_on = wanted.contains(&(*trigger, running.since));
            if !goes_on && !running.stop.is_cancelled() {
                info!(%trigger, "trigger stops");
                running.stop.cancel();
                running.unwanted.cancel();
            }
        }
    }

    /// Has the files removed of triggers that are gone, also since the server last ran.
    fn forget_deleted(&mut self, existing: BTreeSet<TriggerId>) {
        let supervisor = &self.engine.supervisor;
        match &self.existing {
            None => {
                let keep = existing.iter().copied().map(binding_key);
                supervisor.forget_others(keep.collect());
            }
            Some(before) => {
                let gone = before.difference(&existing);
                gone.for_each(|trigger| supervisor.forget(binding_key(*trigger)));
            }
        }
        self.existing = Some(existing);
    }

    fn spawn(&mut self, runner: Runner, database: DatabaseId) {
        let trigger = runner.trigger.clone();
        let timetable = match &trigger.definition.event {
            TriggerEvent::Every { duration } => Timetable::Every(*duration),
            TriggerEvent::Schedule { schedule } => match Timetable::cron(schedule) {
                Ok(timetable) => timetable,
                Err(error) => {
                    let trigger = &trigger.definition.name;
                    return error!(trigger, %error, "a stored schedule cannot be read any more");
                }
            },
            TriggerEvent::RequestPath { path } => {
                let task = self
                    .tasks
                    .spawn(RequestTask::new(runner, path.clone()).run());
                self.owners.insert(task.id(), trigger.id);
                return;
            }
            TriggerEvent::AllTablesWalWrite
            | TriggerEvent::SingleTableWalWrite { .. }
            | TriggerEvent::AllTablesParquetPersist
            | TriggerEvent::SingleTableParquetPersist { .. } => {
                let task = self.tasks.spawn(FollowerTask::new(runner, database).run());
                self.owners.insert(task.id(), trigger.id);
                return;
            }
        };
        let task = self.tasks.spawn(ScheduleTask::new(runner, timetable).run());
        self.owners.insert(task.id(), trigger.id);
    }
}
