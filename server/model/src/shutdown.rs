//! When the server ends, in which order its parts do.
//!
//! Shutdown runs phase by phase. A component spawns its tasks on the [`Gate`] of the
//! phase it belongs to, and stops when the gate's token is cancelled. The next phase
//! begins once all tasks of the last have ended or its deadline has passed; then the
//! log says which phase is late, how many of its tasks still run, and what work is still
//! under way by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// The steps of a shutdown, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Stop taking requests; finish those that run.
    Intake,
    /// Finish running invocations, start no new ones.
    Invocations,
    /// End workers and hosts.
    Workers,
    /// Make durable what was accepted.
    Log,
}

const PHASES: [Phase; 4] = [
    Phase::Intake,
    Phase::Invocations,
    Phase::Workers,
    Phase::Log,
];

/// Work that a shutdown may have to wait for, by name. Clones are the same.
#[derive(Clone, Debug, Default)]
struct Works(Arc<Mutex<Numbered>>);

#[derive(Debug, Default)]
struct Numbered {
    last: u64,
    names: BTreeMap<u64, String>,
}

impl Works {
    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> Vec<String> {
        self.lock().names.values().cloned().collect()
    }
}

/// Work that goes on until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    works: Works,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.works.lock().names.remove(&self.number);
    }
}

/// What one phase's components share: the signal to stop, and the tasks to wait for.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    token: CancellationToken,
    tasks: TaskTracker,
    works: Works,
}

impl Gate {
    /// Cancelled when the phase begins.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Where the phase's tasks are spawned; the phase ends when they have.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Names work, so that the log can say who is late.
    pub fn under_way(&self, name: String) -> UnderWay {
        let works = self.works.clone();
        let number = {
            let mut numbered = works.lock();
            numbered.last += 1;
            let number = numbered.last;
            numbered.names.insert(number, name);
            number
        };
        UnderWay { works, number }
    }

    /// Begins the phase and waits for its tasks; `false` if `deadline` passed first.
    pub async fn close(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        timeout(deadline, self.tasks.wait()).await.is_ok()
    }
}

/// The gates of all phases.
#[derive(Clone, Debug)]
pub struct Shutdown {
    gates: [Gate; PHASES.len()],
    /// One list for all phases: a request, say, holds up another phase than its invocation.
    works: Works,
}

impl Default for Shutdown {
    fn default() -> Self {
        let works = Works::default();
        let gates = PHASES.map(|_| Gate {
            works: works.clone(),
            ..Gate::default()
        });
        Self { gates, works }
    }
}

impl Shutdown {
    /// The names of the work that is under way.
    pub fn under_way(&self) -> Vec<String> {
        self.works.names()
    }

    /// The gate of `phase`.
    pub fn gate(&self, phase: Phase) -> &Gate {
        &self.gates[phase as usize]
    }

    /// Runs all phases in order, `deadline` for each.
    pub async fn run(&self, deadline: Duration) {
        for phase in PHASES {
            let gate = self.gate(phase);
            if gate.close(deadline).await {
                info!(?phase, "shutdown phase is done");
            } else {
                let names = self.under_way().join(", ");
                warn!(
                    ?phase,
                    late = gate.tasks.len(),
                    names,
                    "shutdown phase is late, going on without it"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn phases_end_in_order() {
        let shutdown = Shutdown::default();
        let ended = Arc::new(Mutex::new(Vec::new()));
        for phase in [Phase::Log, Phase::Intake, Phase::Workers] {
            let (gate, ended) = (shutdown.gate(phase).clone(), ended.clone());
            let token = gate.token().clone();
            gate.tasks().spawn(async move {
                token.cancelled().await;
                ended.lock().unwrap().push(phase);
            });
        }
        shutdown.run(Duration::from_mins(1)).await;
        assert_eq!(
            *ended.lock().unwrap(),
            [Phase::Intake, Phase::Workers, Phase::Log]
        );
    }

    #[test]
    fn work_is_named_while_it_is_under_way() {
        let shutdown = Shutdown::default();
        let gate = shutdown.gate(Phase::Invocations);
        let first = gate.under_way("first".to_owned());
        let _second = gate.clone().under_way("second".to_owned());
        assert_eq!(shutdown.under_way(), ["first", "second"]);
        drop(first);
        assert_eq!(shutdown.under_way(), ["second"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_task_does_not_hold_the_shutdown() {
        let shutdown = Shutdown::default();
        shutdown
            .gate(Phase::Intake)
            .tasks()
            .spawn(std::future::pending::<()>());
        shutdown.run(Duration::from_secs(1)).await;
    }
}
