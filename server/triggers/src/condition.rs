//! How the triggers are doing: what the catalog, the triggers' tasks, the pool of workers
//! and the log say about each, put together.

use std::sync::Arc;

use outrigger_catalog::{
    Catalog, Database,
    trigger::{Trigger, TriggerEvent},
};
use outrigger_storage::{Lag, Storage};
use outrigger_supervisor::{PauseStatus, PoolStatus};

use crate::{backend::binding_key, board::Board, status::TriggerStatus};

/// All that a trigger can be, by what is most worth knowing.
pub(crate) const STATES: [&str; 6] = ["off", "disabled", "paused", "retrying", "running", "idle"];

/// How a trigger is doing.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) database: Arc<Database>,
    pub(crate) trigger: Arc<Trigger>,
    /// One of [`STATES`].
    pub(crate) state: &'static str,
    /// How many invocations run now.
    pub(crate) running: usize,
    /// How many wait for a worker, or for their turn.
    pub(crate) waiting: usize,
    /// `None` for what does not follow the log, or does not follow it now.
    pub(crate) lag: Option<Lag>,
    pub(crate) status: TriggerStatus,
    pub(crate) pause: Option<PauseStatus>,
}

/// Who knows how triggers are doing.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    pub(crate) storage: Storage,
    pub(crate) board: Board,
}

impl Observer {
    /// How the triggers of the databases are doing for which `shows` is true. May take time.
    pub(crate) fn conditions(
        &self,
        catalog: &Catalog,
        pool: Option<&PoolStatus>,
        shows: impl Fn(&Database) -> bool,
    ) -> Vec<Condition> {
        let triggers = catalog.triggers();
        let shown = triggers.filter(|(database, _)| shows(database));
        shown
            .map(|(database, trigger)| self.condition(database, trigger, pool))
            .collect()
    }

    fn condition(
        &self,
        database: &Arc<Database>,
        trigger: &Arc<Trigger>,
        pool: Option<&PoolStatus>,
    ) -> Condition {
        let status = self.board.statuses().get(trigger.id);
        let binding = pool.and_then(|pool| pool.bindings.get(&binding_key(trigger.id)));
        let queued = binding.map_or(0, |binding| binding.waiting);
        let pause = binding.and_then(|binding| binding.pause.clone());
        let running = status.running.saturating_sub(queued);
        let is_paused = pause.is_some();
        let state = match () {
            () if trigger.definition.disabled => "disabled",
            () if pool.is_none() => "off",
            () if is_paused => "paused",
            () if status.next_retry.is_some() => "retrying",
            () if running > 0 => "running",
            () => "idle",
        };
        Condition {
            database: database.clone(),
            trigger: trigger.clone(),
            state,
            running,
            waiting: queued + self.requests(trigger),
            lag: self.lag(trigger),
            status,
            pause,
        }
    }

    fn requests(&self, trigger: &Trigger) -> usize {
        match &trigger.definition.event {
            TriggerEvent::RequestPath { path } => self.board.routes.waiting(path),
            _ => 0,
        }
    }

    /// What comes while a trigger is disabled is never delivered, so it lags behind nothing.
    fn lag(&self, trigger: &Trigger) -> Option<Lag> {
        let definition = &trigger.definition;
        if definition.disabled || !definition.follows_the_log() {
            return None;
        }
        let (feed, event) = (self.storage.feed(), &definition.event);
        Some(if event.is_of_files() {
            feed.files_lag(trigger.id)
        } else {
            feed.lag(trigger.id, event.table())
        })
    }
}
