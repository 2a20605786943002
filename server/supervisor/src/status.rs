//! What can be said about the pool at a moment.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    error::ExitReason,
    invocation::{BindingKey, InvocationId},
    pool::WorkerState,
};

/// All workers and all that wait for one.
#[derive(Clone, Debug, Default)]
pub struct PoolStatus {
    /// In the order in which they were made.
    pub workers: Vec<WorkerStatus>,
    /// By plugin.
    pub bindings: BTreeMap<BindingKey, BindingStatus>,
    /// Since the start.
    pub deaths: Deaths,
    /// How many workers were forked since the start.
    pub forks: u64,
    /// How many lines of plugins were not logged since the start, because they were too many.
    pub log_lines_dropped: u64,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its process; 0 while that is made.
    pub pid: u32,
    /// Whose it is, or was when it began to drain.
    pub binding: Option<BindingKey>,
    /// What it does: forking, idle, bound, busy or draining.
    pub state: &'static str,
    /// Since it was made.
    pub age: Duration,
    /// How many it has run.
    pub invocations: u64,
    /// How many objects its plugin keeps in it, as it says.
    pub cached_objects: u64,
    /// Its peak memory in the last invocation.
    pub memory_bytes: u64,
    /// What it runs.
    pub running: Option<RunningStatus>,
    /// What became of each layer of its confinement; `None` before it belongs to a plugin.
    pub enforcement: Option<Arc<str>>,
}

/// What a worker runs.
#[derive(Clone, Debug)]
pub struct RunningStatus {
    /// The invocation.
    pub invocation: InvocationId,
    /// How long it has had the worker; loading the plugin is part of it.
    pub ago: Duration,
}

/// One plugin's claim to workers.
#[derive(Clone, Debug)]
pub struct BindingStatus {
    /// How many invocations wait for a worker.
    pub waiting: usize,
    /// Why it is not run now.
    pub pause: Option<PauseStatus>,
}

/// A plugin's pause.
#[derive(Clone, Debug)]
pub struct PauseStatus {
    /// How long it has lasted.
    pub ago: Duration,
    /// How long it still lasts.
    pub left: Duration,
    /// What ended the last worker.
    pub why: String,
}

/// How workers ended that were not asked to.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    /// How many, by reason.
    pub by_reason: BTreeMap<&'static str, u64>,
    pub(crate) last_fork_error: Option<String>,
}

impl Deaths {
    pub(crate) fn count(&mut self, reason: &ExitReason) {
        *self.by_reason.entry(reason.label()).or_default() += 1;
    }
}

impl From<&WorkerState> for &'static str {
    fn from(state: &WorkerState) -> Self {
        match state {
            WorkerState::Forking => "forking",
            WorkerState::Idle => "idle",
            WorkerState::Bound { .. } => "bound",
            WorkerState::Busy { .. } => "busy",
            WorkerState::Draining => "draining",
        }
    }
}
