//! What the triggers' tasks share with those who ask them: routes, statuses, and the
//! wish that a paused trigger goes on.

use std::{
    mem,
    sync::{Arc, OnceLock},
};

use outrigger_model::ids::TriggerId;
use outrigger_supervisor::{PoolStatus, Supervisor};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{metrics::InvocationMetrics, requests::Routes, status::Statuses};

/// Where triggers and those who ask them meet. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Board {
    pub(crate) routes: Routes,
    statuses: Statuses,
    resumptions: Arc<Resumptions>,
    /// Who runs the plugins, if somebody does.
    supervisor: Arc<OnceLock<Supervisor>>,
    pub(crate) metrics: InvocationMetrics,
}

#[derive(Debug, Default)]
struct Resumptions {
    wished: Mutex<Vec<TriggerId>>,
    /// Somebody has wished something.
    wishes: Notify,
    /// Something was granted: whoever pauses tries again.
    granted: Notify,
}

impl Board {
    /// How the triggers are doing.
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }

    /// Says who runs the plugins.
    pub(crate) fn attach(&self, supervisor: &Supervisor) {
        // There is one for the server's whole life.
        drop(self.supervisor.set(supervisor.clone()));
    }

    /// What the workers do now; `None` where the server runs no plugins.
    pub(crate) async fn pool(&self) -> Option<PoolStatus> {
        Some(self.supervisor.get()?.status().await)
    }

    /// Wishes that a trigger's pause ends, if it has one.
    pub(crate) fn wish_resumption(&self, trigger: TriggerId) {
        self.resumptions.wished.lock().push(trigger);
        self.resumptions.wishes.notify_one();
    }

    /// Waits until there are wishes, and takes them.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn wishes(&self) -> Vec<TriggerId> {
        loop {
            let wished = mem::take(&mut *self.resumptions.wished.lock());
            if !wished.is_empty() {
                return wished;
            }
            self.resumptions.wishes.notified().await;
        }
    }

    /// Wakes up those who pause.
    pub(crate) fn grant_resumption(&self) {
        self.resumptions.granted.notify_waiters();
    }

    /// Waits until somebody's pause was ended.
    pub(crate) async fn resumed(&self) {
        self.resumptions.granted.notified().await;
    }
}
