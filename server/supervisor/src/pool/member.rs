//! One worker of the pool: runs what it is granted and watches it in between.

use std::{fs, sync::Arc, time::SystemTime};

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info, info_span};

use super::{Job, Message, PoolHandle, state::Seat};
use crate::{
    backend::Scope,
    config::Config,
    confinement::Confiner,
    error::{ExitReason, InvocationError, PluginFailure},
    host::OutputLine,
    invocation::{Concluded, Invocation, Plugin, Usage},
    registry::Registry,
    worker::Worker,
};

/// What the pool tells a worker's task.
#[derive(Debug)]
pub(super) enum Order {
    Run(Box<Job>),
    Retire,
}

/// Everything that can happen to a worker between invocations.
pub(super) enum Wake {
    Order(Order),
    Printed(OutputLine),
    Ended(ExitReason),
    Shutdown,
}

/// How it comes that a worker runs nothing any more.
enum End {
    Asked,
    /// An invocation was its end.
    Busy(ExitReason),
    /// It ended between two.
    Idle(ExitReason),
}

/// A worker's place in the pool, whatever the worker is.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) seat: Seat,
    pub(super) inbox: mpsc::Receiver<Order>,
    pub(super) pool: PoolHandle,
    pub(super) registry: Arc<Registry>,
    pub(super) confiner: Arc<Confiner>,
    pub(super) config: Config,
    pub(super) tasks: TaskTracker,
}

impl Post {
    /// What was granted to a worker that is ending goes to another one.
    pub(super) fn give_back(&mut self) {
        self.inbox.close();
        while let Ok(order) = self.inbox.try_recv() {
            if let Order::Run(job) = order {
                self.pool.tell(Message::Bounced(self.seat, *job));
            }
        }
    }

    /// Its worker has ended; `reason` if it was not asked to.
    pub(super) fn leave(mut self, reason: Option<ExitReason>) {
        self.give_back();
        let seat = self.seat;
        self.pool.tell(Message::Ended { seat, reason });
    }
}

/// Owns a worker.
#[derive(Debug)]
pub(super) struct MemberTask {
    pub(super) post: Post,
    pub(super) worker: Worker,
    /// The last invocation: what is printed after it, it has printed.
    pub(super) last: Option<Scope>,
    /// When the plugin directory had last changed whose entries were shown to the worker.
    pub(super) linked: Option<SystemTime>,
}

impl MemberTask {
    /// Runs the first invocation, which was granted then, and others until the worker has ended.
    pub(super) async fn run(
        mut self,
        (first, granted): (Job, Instant),
        shutdown: CancellationToken,
    ) {
        let mut end = self.on_job(first, granted, &shutdown).await.map(End::Busy);
        let end = loop {
            if let Some(end) = end {
                break end;
            }
            match self.next_wake(&shutdown).await {
                Wake::Order(Order::Run(job)) => {
                    let ended = self.on_job(*job, Instant::now(), &shutdown).await;
                    end = ended.map(End::Busy);
                }
                Wake::Printed(line) => self.on_printed(line).await,
                Wake::Ended(reason) => {
                    info!(pid = self.worker.pid(), %reason, "idle worker ended");
                    end = Some(End::Idle(reason));
                }
                Wake::Order(Order::Retire) | Wake::Shutdown => break End::Asked,
            }
        };
        self.on_ended(end).await;
    }

    /// Nothing is run any more: lets the worker end, or says how it has ended.
    async fn on_ended(self, end: End) {
        let Self {
            mut post,
            mut worker,
            last,
            ..
        } = self;
        post.give_back();
        let reason = match end {
            End::Asked => {
                worker.retire(post.config.grace).await;
                return post.leave(None);
            }
            End::Idle(reason) => {
                if let Some(scope) = &last {
                    worker.bury(&post.registry, scope, &reason).await;
                }
                reason
            }
            End::Busy(reason) => reason,
        };
        // What a worker was ended for may concern the next one.
        if let (ExitReason::PrivateFull(_), Some(scope)) = (&reason, &last) {
            post.confiner.on_full(&scope.binding);
        }
        drop(worker);
        post.leave(Some(reason));
    }

    async fn next_wake(&mut self, shutdown: &CancellationToken) -> Wake {
        tokio::select! {
            order = self.post.inbox.recv() => order.map_or(Wake::Shutdown, Wake::Order),
            idle = self.worker.idle() => match idle {
                Ok(line) => Wake::Printed(line),
                Err(reason) => Wake::Ended(reason),
            },
            () = shutdown.cancelled() => Wake::Shutdown,
        }
    }

    /// Has what the operator has put into the plugin directory appear to the worker.
    async fn refresh_directory(&mut self) {
        let changed = fs::metadata(&self.post.config.directory).and_then(|found| found.modified());
        let changed = changed.ok();
        if self.linked == changed {
            return;
        }
        self.linked = changed;
        let (confiner, directories) = (self.post.confiner.clone(), self.worker.directories());
        let directories = directories.clone();
        drop(spawn_blocking(move || confiner.refresh(&directories)).await);
    }

    async fn on_printed(&mut self, line: OutputLine) {
        if let Some(scope) = &self.last {
            let registry = &self.post.registry;
            self.worker.log_printed(registry, scope, line).await;
        }
    }

    /// Runs an invocation; returns why the worker must not run another one. One that
    /// still runs when the workers are to end has had its time: it is broken off.
    async fn on_job(
        &mut self,
        job: Job,
        granted: Instant,
        shutdown: &CancellationToken,
    ) -> Option<ExitReason> {
        let Job {
            plugin,
            invocation,
            submitted,
            mut waiting,
            reply,
        } = job;
        waiting.set("process.pid", u64::from(self.worker.pid()));
        drop(waiting);
        let lines = log_span(&invocation);
        let invoke = self.invoke(&plugin, invocation, granted).instrument(lines);
        let concluded = shutdown.run_until_cancelled(invoke).await;
        let mut concluded = concluded.unwrap_or_else(|| {
            let mut stopped = not_run(InvocationError::Stopped, self.worker.pid());
            stopped.usage.wall = granted.elapsed();
            stopped
        });
        concluded.usage.queued = granted.duration_since(submitted);
        let death = death(&concluded);
        if death.is_none() {
            // The pool knows before the caller does, whose next invocation then finds it.
            self.post.pool.tell(Message::Returned {
                seat: self.post.seat,
                cached_objects: self.worker.cached_objects(),
                memory_bytes: concluded.usage.peak_memory_bytes,
                loaded: !matches!(concluded.result, Err(InvocationError::Load(_))),
            });
        }
        // Whoever no longer waits has given the result up.
        drop(reply.send(concluded));
        death
    }

    async fn invoke(
        &mut self,
        plugin: &Plugin,
        invocation: Invocation,
        granted: Instant,
    ) -> Concluded {
        let scope = Scope {
            binding: plugin.binding.clone(),
            invocation: invocation.id.clone(),
            trace: invocation.trace.clone(),
        };
        if let Some(last) = &self.last {
            let registry = &self.post.registry;
            self.worker.end_output(registry, last).await;
        } else {
            let pid = self.worker.pid();
            let ready_ms = granted.elapsed().as_secs_f64() * 1e3;
            info!(binding = %plugin.binding, pid, ready_ms, "worker is bound");
        }
        self.last = Some(scope);
        self.refresh_directory().await;
        let server = (&*self.post.registry, &self.post.config);
        let serve = self.worker.serve(server, plugin, invocation, granted);
        // It is large, and what holds it is spawned for every spare.
        let mut concluded = Box::pin(serve).await;
        concluded.result = concluded.result.map_err(|error| self.explain(error));
        concluded
    }

    /// An import that fails in a worker may fail because everything has gone.
    fn explain(&self, error: InvocationError) -> InvocationError {
        let explained = |mut failure: PluginFailure| {
            let import = ["ImportError", "ModuleNotFoundError"];
            if import.contains(&failure.exception.as_str())
                && let Err(gone) = self.post.config.virtual_environment.check()
            {
                failure.message = format!("{} ({gone})", failure.message);
            }
            failure
        };
        match error {
            InvocationError::Load(failure) => InvocationError::Load(explained(failure)),
            InvocationError::Plugin(failure) => InvocationError::Plugin(explained(failure)),
            other => other,
        }
    }
}

/// What the server's own log lines say about where they come from.
fn log_span(invocation: &Invocation) -> tracing::Span {
    let trace_id = invocation.trace.context().trace_id;
    info_span!("invocation", invocation = %invocation.id, %trace_id)
}

/// An invocation that gave nothing, because its plugin did not run.
pub(super) fn not_run(error: InvocationError, pid: u32) -> Concluded {
    let usage = Usage {
        pid,
        wall: Duration::ZERO,
        ..Usage::default()
    };
    let result = Err(error);
    Concluded { result, usage }
}

/// Why a worker that gave this result cannot be used again.
fn death(concluded: &Concluded) -> Option<ExitReason> {
    match &concluded.result {
        Ok(_) | Err(InvocationError::Load(_) | InvocationError::Plugin(_)) => None,
        Err(InvocationError::Worker { reason, .. }) => Some(reason.clone()),
        Err(
            InvocationError::HostLost
            | InvocationError::Stopped
            | InvocationError::Host(_)
            | InvocationError::Paused { .. }
            | InvocationError::Released,
        ) => Some(ExitReason::HostLost),
    }
}
