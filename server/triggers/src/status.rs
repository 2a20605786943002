//! How the triggers are doing now: what `system.plugin_triggers` shows beside the catalog.

use std::{collections::HashMap, sync::Arc};

use outrigger_model::{clock::Timestamp, ids::TriggerId};
use parking_lot::RwLock;

/// How one trigger is doing, since its task started.
#[derive(Clone, Debug, Default)]
pub struct TriggerStatus {
    /// How many invocations run now.
    pub running: usize,
    /// How many have ended.
    pub invocations: u64,
    /// How many of them failed.
    pub failures: u64,
    /// How many have failed since the last one that did not.
    pub failures_in_a_row: u64,
    /// What the last failure said first.
    pub last_error: Option<String>,
    /// When the event is tried again that has failed.
    pub next_retry: Option<Timestamp>,
}

/// The status of every trigger that is enabled. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<RwLock<HashMap<TriggerId, TriggerStatus>>>);

impl Statuses {
    /// How a trigger is doing.
    pub fn get(&self, id: TriggerId) -> TriggerStatus {
        self.0.read().get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn began(&self, id: TriggerId) {
        let mut statuses = self.0.write();
        let status = statuses.entry(id).or_default();
        status.running += 1;
        status.next_retry = None;
    }

    pub(crate) fn ended(&self, id: TriggerId, error: Option<String>) {
        let mut statuses = self.0.write();
        let status = statuses.entry(id).or_default();
        status.running = status.running.saturating_sub(1);
        status.invocations += 1;
        match error {
            None => status.failures_in_a_row = 0,
            Some(error) => {
                status.failures += 1;
                status.failures_in_a_row += 1;
                status.last_error = Some(error);
            }
        }
    }

    /// What began did not run after all: that says nothing about the plugin.
    pub(crate) fn put_off(&self, id: TriggerId) {
        let mut statuses = self.0.write();
        let status = statuses.entry(id).or_default();
        status.running = status.running.saturating_sub(1);
    }

    pub(crate) fn retries_at(&self, id: TriggerId, time: Timestamp) {
        let mut statuses = self.0.write();
        statuses.entry(id).or_default().next_retry = Some(time);
    }

    pub(crate) fn forget(&self, id: TriggerId) {
        self.0.write().remove(&id);
    }
}
