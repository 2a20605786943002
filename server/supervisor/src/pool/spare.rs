//! A worker of the pool that belongs to no plugin yet: it waits, until it is granted its first
//! invocation.

use outrigger_model::error::Report;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    Job,
    member::{MemberTask, Order, Post, Wake, not_run},
};
use crate::{
    error::{ExitReason, HostError, InvocationError},
    worker::{Spare, Worker},
};

/// Owns a spare.
#[derive(Debug)]
pub(super) struct SpareTask {
    pub(super) post: Post,
    pub(super) spare: Spare,
}

impl SpareTask {
    /// Runs until the worker has ended, also after it was assigned.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            match self.next_wake(&shutdown).await {
                Wake::Order(Order::Run(job)) => return self.assign(*job, shutdown).await,
                Wake::Printed(line) => {
                    debug!(pid = self.spare.pid(), line = line.text, "a spare printed");
                }
                Wake::Ended(reason) => {
                    info!(pid = self.spare.pid(), %reason, "idle worker ended");
                    return self.post.leave(Some(reason));
                }
                Wake::Order(Order::Retire) | Wake::Shutdown => break,
            }
        }
        self.post.give_back();
        self.spare.retire(self.post.config.grace).await;
        self.post.leave(None);
    }

    async fn next_wake(&mut self, shutdown: &CancellationToken) -> Wake {
        tokio::select! {
            order = self.post.inbox.recv() => order.map_or(Wake::Shutdown, Wake::Order),
            idle = self.spare.idle() => match idle {
                Ok(line) => Wake::Printed(line),
                Err(reason) => Wake::Ended(reason),
            },
            () = shutdown.cancelled() => Wake::Shutdown,
        }
    }

    /// Makes the spare the worker of the job's plugin, and goes on as that.
    async fn assign(self, job: Job, shutdown: CancellationToken) {
        let Self { post, spare } = self;
        let (granted, pid) = (Instant::now(), spare.pid());
        let assigned = spare.assign(&post.registry, &post.config);
        let assigned = shutdown.run_until_cancelled(assigned).await;
        match assigned.unwrap_or(Err(HostError::Stopping)) {
            Ok(worker) => go_on(post, worker, (job, granted), shutdown).await,
            Err(error) => {
                let why = Report(&error).to_string();
                let mut concluded = not_run(InvocationError::Host(why.clone()), pid);
                concluded.usage.queued = granted.duration_since(job.submitted);
                // Whoever no longer waits has given the result up.
                drop(job.reply.send(concluded));
                post.leave(Some(ExitReason::NotAssigned(why)));
            }
        }
    }
}

async fn go_on(post: Post, worker: Worker, first: (Job, Instant), shutdown: CancellationToken) {
    let task = MemberTask {
        post,
        worker,
        last: None,
    };
    task.run(first, shutdown).await;
}
