//! What is done for a worker's process from its start until it has ended, and nobody waits for
//! unless he must.
//!
//! Its control group takes the kernel many milliseconds: all processors must have noticed. So that
//! begins with the process, goes on while it is set up, assigned and confined, and is waited for
//! only before the plugin's code.

use std::sync::Arc;

use outrigger_sandbox::{Layer, LayerReport};
use tokio::{sync::oneshot, task::spawn_blocking};
use tokio_util::task::TaskTracker;

use crate::{
    confinement::{Confiner, Leftovers},
    host::{Place, WorkerProcess, exited},
};

/// Of a worker that is not assigned yet.
#[derive(Debug)]
pub(super) struct Attendance {
    entered: oneshot::Receiver<LayerReport>,
    leftovers: oneshot::Sender<Leftovers>,
}

impl Attendance {
    /// Gives the process its control group; takes that back when the process has ended.
    pub(super) fn begin(
        confiner: &Arc<Confiner>,
        process: &WorkerProcess,
        tasks: &TaskTracker,
    ) -> Self {
        let (tell, entered) = oneshot::channel();
        let (leftovers, others) = oneshot::channel();
        let (confiner, place) = (confiner.clone(), process.place());
        let mut exit = process.exit.clone();
        tasks.spawn(async move {
            // Whoever no longer wants to know has let the process end.
            drop(tell.send(enter(&confiner, &place).await));
            exited(&mut exit).await;
            let others = others.await.ok();
            let end = move || confiner.end(&place, others.as_ref());
            drop(spawn_blocking(end).await);
        });
        Self { entered, leftovers }
    }

    /// From now on these go with the process, too. Returns what became of its control group, once
    /// that is known.
    pub(super) fn go_on(self, leftovers: Leftovers) -> impl Future<Output = LayerReport> {
        let Self {
            entered,
            leftovers: tell,
        } = self;
        // It attends until the server has ended, and all workers have before.
        drop(tell.send(leftovers));
        async move { entered.await.unwrap_or_else(|_lost| unknown()) }
    }
}

async fn enter(confiner: &Arc<Confiner>, place: &Place) -> LayerReport {
    let (confiner, place) = (confiner.clone(), place.clone());
    let entered = spawn_blocking(move || confiner.enter_group(&place)).await;
    entered.unwrap_or_else(|_panicked| unknown())
}

fn unknown() -> LayerReport {
    LayerReport::degraded(Layer::Cgroup, "what makes it has failed")
}
