//! A worker of the pool that belongs to no plugin yet: it waits, until it is granted its first
//! invocation.

use std::fs;

use outrigger_model::error::Report;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    Job, Message,
    member::{MemberTask, Order, Post, Wake, not_run},
};
use crate::{
    error::{ExitReason, HostError, InvocationError},
    worker::{Spare, Surroundings},
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
        // What changes from here on is seen before the next invocation.
        let linked = fs::metadata(&post.config.directory).and_then(|found| found.modified());
        let surroundings = Surroundings {
            registry: &post.registry,
            confiner: &post.confiner,
            config: &post.config,
            tasks: &post.tasks,
        };
        let assigned = spare.assign(&job.plugin, &surroundings);
        let assigned = shutdown.run_until_cancelled(assigned).await;
        match assigned.unwrap_or(Err(HostError::Stopping)) {
            Ok(worker) => {
                let enforcement = worker.enforcement().clone();
                post.pool.tell(Message::Confined(post.seat, enforcement));
                let task = MemberTask {
                    post,
                    worker,
                    last: None,
                    linked: linked.ok(),
                };
                task.run((job, granted), shutdown).await;
            }
            Err(error) => {
                let (error, reason) = verdict(error);
                let mut concluded = not_run(error, pid);
                concluded.usage.queued = granted.duration_since(job.submitted);
                // Whoever no longer waits has given the result up.
                drop(job.reply.send(concluded));
                post.leave(Some(reason));
            }
        }
    }
}

/// What a failed assignment means for the invocation, and for the worker.
fn verdict(error: HostError) -> (InvocationError, ExitReason) {
    if let HostError::PrivateFull(what) = error {
        let reason = ExitReason::PrivateFull(what);
        let error = InvocationError::Worker {
            reason: reason.clone(),
            stderr: Vec::new(),
        };
        return (error, reason);
    }
    let why = Report(&error).to_string();
    (
        InvocationError::Host(why.clone()),
        ExitReason::NotAssigned(why),
    )
}
