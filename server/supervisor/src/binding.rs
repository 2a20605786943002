//! One plugin and its sticky worker: runs invocations one after the other.

use std::sync::Arc;

use outrigger_model::error::Report;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    backend::Scope,
    config::Config,
    error::{InvocationError, PluginFailure},
    host::{HostHandle, OutputLine},
    invocation::{BindingKey, Finished, Invocation, Plugin},
    registry::Registry,
    worker::{Allowance, Worker, log_output},
};

/// An invocation that waits for its turn.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) invocation: Invocation,
    pub(crate) reply: oneshot::Sender<Result<Finished, InvocationError>>,
}

/// Everything that can happen to a binding between invocations.
enum Wake {
    Job(Box<Job>),
    Printed(OutputLine),
    WorkerEnded(crate::error::ExitReason),
    Released,
}

/// Owns the binding's worker.
#[derive(Debug)]
pub(crate) struct BindingTask {
    pub(crate) key: BindingKey,
    pub(crate) host: HostHandle,
    pub(crate) registry: Arc<Registry>,
    pub(crate) config: Config,
    pub(crate) inbox: mpsc::Receiver<Job>,
    pub(crate) worker: Option<Worker>,
    /// The last invocation: what is printed after it, it has printed.
    pub(crate) last: Option<Scope>,
    pub(crate) allowance: Allowance,
}

impl BindingTask {
    /// Runs until the binding is released or the server shuts down.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            match self.next_wake(&shutdown).await {
                Wake::Job(job) => self.on_job(*job).await,
                Wake::Printed(line) => self.on_printed(line).await,
                Wake::WorkerEnded(reason) => {
                    info!(binding = %self.key, %reason, "idle worker ended");
                    self.worker = None;
                }
                Wake::Released => break,
            }
        }
        if let Some(worker) = self.worker.take() {
            worker.retire(self.config.grace).await;
        }
    }

    async fn on_printed(&mut self, line: OutputLine) {
        if let Some(scope) = &self.last {
            log_output(&self.registry, scope, line, &mut self.allowance).await;
        }
    }

    async fn next_wake(&mut self, shutdown: &CancellationToken) -> Wake {
        let worker = &mut self.worker;
        let idle = async {
            match worker {
                Some(worker) => worker.idle().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            job = self.inbox.recv() => job.map_or(Wake::Released, |job| Wake::Job(Box::new(job))),
            idle = idle => match idle {
                Ok(line) => Wake::Printed(line),
                Err(reason) => Wake::WorkerEnded(reason),
            },
            () = shutdown.cancelled() => Wake::Released,
        }
    }

    async fn on_job(&mut self, job: Job) {
        let result = self.invoke(&job.plugin, job.invocation).await;
        if !Worker::is_usable_after(&result) {
            // Dropping it kills what may be left of it.
            self.worker = None;
        }
        // Whoever no longer waits has given the result up.
        drop(job.reply.send(result));
    }

    async fn invoke(
        &mut self,
        plugin: &Plugin,
        invocation: Invocation,
    ) -> Result<Finished, InvocationError> {
        let (binding, id) = (self.key.clone(), invocation.id.clone());
        self.last = Some(Scope {
            binding,
            invocation: id,
        });
        self.allowance = Allowance::new();
        let foundations = self.config.virtual_environment.foundations();
        let renew =
            |worker: &mut Worker| !worker.accepts(plugin) || worker.foundations() != foundations;
        if let Some(old) = self.worker.take_if(renew) {
            old.retire(self.config.grace).await;
        }
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start_worker().await?,
        };
        let result = match worker.bind(plugin, self.config.load_max).await {
            Ok(()) => {
                worker
                    .run(&self.registry, &self.config, &self.key, invocation)
                    .await
            }
            Err(error) => Err(error),
        };
        self.worker = Some(worker);
        result.map_err(|error| self.explain(error))
    }

    /// An import that fails in a worker may fail because everything has gone.
    fn explain(&self, error: InvocationError) -> InvocationError {
        let explained = |mut failure: PluginFailure| {
            let import = ["ImportError", "ModuleNotFoundError"];
            if import.contains(&failure.exception.as_str())
                && let Err(gone) = self.config.virtual_environment.check()
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

    async fn start_worker(&self) -> Result<Worker, InvocationError> {
        match Worker::start(&self.host, &self.registry, &self.config).await {
            Ok(worker) => {
                info!(binding = %self.key, pid = worker.pid(), "worker is bound");
                Ok(worker)
            }
            Err(error) => {
                let report = Report(&error).to_string();
                warn!(binding = %self.key, error = report, "cannot start a worker");
                Err(InvocationError::Host(report))
            }
        }
    }
}
