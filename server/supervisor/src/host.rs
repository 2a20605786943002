//! A host: the trusted Python process that forks workers, and who watches it.

mod frame;
mod process;
mod worker;

use std::collections::HashMap;

use outrigger_model::error::Report;
use outrigger_proto::v1::{SignalWorker, StartWorker, from_host, to_host};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use self::process::HostProcess;
pub(crate) use self::worker::{OutputLine, SIGKILL, WorkerProcess, exited};
use self::worker::{WorkerRecord, exit_of};
use crate::{config::Config, error::HostError, registry::Token};
use outrigger_sandbox::Launcher;

/// A worker's number; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct WorkerId(pub(crate) u64);

/// What a host is asked.
#[derive(Debug)]
pub(crate) enum HostCommand {
    Start {
        token: Token,
        reply: oneshot::Sender<Result<WorkerProcess, HostError>>,
    },
    Signal {
        worker: WorkerId,
        signal: i32,
    },
    Abandon,
}

/// Talks to the host's task. Commands are as few as there are workers, so the
/// channel needs no bound; a worker's drop must be able to send without waiting.
#[derive(Clone, Debug)]
pub(crate) struct HostHandle(mpsc::UnboundedSender<HostCommand>);

impl HostHandle {
    /// Forks a worker, starting the host first if there is none.
    pub(crate) async fn start_worker(&self, token: Token) -> Result<WorkerProcess, HostError> {
        let (reply, started) = oneshot::channel();
        self.0
            .send(HostCommand::Start { token, reply })
            .or(Err(HostError::Stopping))?;
        started.await.unwrap_or(Err(HostError::Stopping))
    }

    /// Signals a worker's process group, if it still lives.
    pub(crate) fn signal(&self, worker: WorkerId, signal: i32) {
        // Without a host there is no worker either.
        drop(self.0.send(HostCommand::Signal { worker, signal }));
    }

    /// Ends a host that does not do its work; its workers end with it.
    pub(crate) fn abandon(&self) {
        drop(self.0.send(HostCommand::Abandon));
    }
}

/// Everything that can happen to a host.
enum Wake {
    Command(HostCommand),
    Message(from_host::Message),
    Lost(String),
    Shutdown,
}

/// Owns the host process and what is known about its workers.
#[derive(Debug)]
pub(crate) struct HostTask {
    config: Config,
    socket: String,
    launcher: Launcher,
    tasks: TaskTracker,
    handle: HostHandle,
    inbox: mpsc::UnboundedReceiver<HostCommand>,
    process: Option<HostProcess>,
    /// How much had been installed when it was started.
    installations: u64,
    workers: HashMap<WorkerId, WorkerRecord>,
    last_worker: u64,
}

impl HostTask {
    /// A host that will be started when the first worker is asked for. `tasks` is
    /// where the tasks run that read its output.
    pub(crate) fn new(
        config: Config,
        socket: String,
        launcher: Launcher,
        tasks: TaskTracker,
    ) -> (HostHandle, Self) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let handle = HostHandle(sender);
        let task = Self {
            config,
            socket,
            launcher,
            tasks,
            handle: handle.clone(),
            inbox,
            process: None,
            installations: 0,
            workers: HashMap::new(),
            last_worker: 0,
        };
        (handle, task)
    }

    /// Runs until `shutdown`, then until its workers have ended or their grace is over.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            match self.next_wake(&shutdown).await {
                Wake::Command(command) => self.on_command(command).await,
                Wake::Message(message) => self.on_message(message),
                Wake::Lost(reason) => self.on_lost(&reason),
                Wake::Shutdown => break,
            }
        }
        // The bindings end their own workers; this only waits for the news.
        let drained = timeout(self.config.grace * 2, async {
            while !self.workers.is_empty() && self.process.is_some() {
                let never = CancellationToken::new();
                match self.next_wake(&never).await {
                    Wake::Command(command) => self.on_command(command).await,
                    Wake::Message(message) => self.on_message(message),
                    Wake::Lost(_) | Wake::Shutdown => break,
                }
            }
        });
        if drained.await.is_err() {
            warn!(
                workers = self.workers.len(),
                "workers did not end in time, killing them"
            );
        }
        if let Some(process) = self.process.take() {
            process.stop(self.config.grace).await;
        }
        self.lose_workers();
    }

    async fn next_wake(&mut self, shutdown: &CancellationToken) -> Wake {
        let process = &mut self.process;
        let message = async {
            match process {
                Some(process) => process.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = self.inbox.recv() => command.map_or(Wake::Shutdown, Wake::Command),
            message = message => match message {
                Ok(message) => Wake::Message(message),
                Err(error) => Wake::Lost(Report(&error).to_string()),
            },
            () = shutdown.cancelled() => Wake::Shutdown,
        }
    }

    async fn on_command(&mut self, command: HostCommand) {
        match command {
            HostCommand::Start { token, reply } => {
                if let Err((error, reply)) = self.start_worker(token, reply).await {
                    drop(reply.send(Err(error)));
                }
            }
            HostCommand::Abandon => self.on_lost("it does not answer and was killed"),
            HostCommand::Signal { worker, signal } => {
                let alive = self.workers.contains_key(&worker);
                if let Some(process) = self.process.as_mut().filter(|_| alive) {
                    let message = SignalWorker {
                        worker: worker.0,
                        signal,
                    };
                    let sent = process.send(to_host::Message::SignalWorker(message)).await;
                    if let Err(error) = sent {
                        self.on_lost(&Report(&error).to_string());
                    }
                }
            }
        }
    }

    async fn start_worker(
        &mut self,
        token: Token,
        reply: oneshot::Sender<Result<WorkerProcess, HostError>>,
    ) -> Result<(), (HostError, oneshot::Sender<Result<WorkerProcess, HostError>>)> {
        if let Err(gone) = self.config.virtual_environment.check() {
            return Err((gone.into(), reply));
        }
        self.replace_outdated().await;
        if self.process.is_none() {
            self.installations = self.config.virtual_environment.installations();
            match HostProcess::start(&self.config, &self.launcher, &self.tasks).await {
                Ok(process) => self.process = Some(process),
                Err(error) => return Err((error, reply)),
            }
        }
        let Some(process) = &mut self.process else {
            return Err((HostError::Stopping, reply));
        };
        self.last_worker += 1;
        let worker = WorkerId(self.last_worker);
        let message = StartWorker {
            worker: worker.0,
            token: token.to_vec(),
            socket: self.socket.clone(),
            environment: HashMap::new(),
            directory: self.config.directory.display().to_string(),
        };
        if let Err(error) = process.send(to_host::Message::StartWorker(message)).await {
            self.on_lost(&Report(&error).to_string());
            return Err((HostError::Socket(error), reply));
        }
        self.workers.insert(worker, WorkerRecord::starting(reply));
        Ok(())
    }

    /// Ends a host that knows only what was installed earlier. One that still has workers
    /// stays for them, and starts others without a fork, which is slower.
    async fn replace_outdated(&mut self) {
        let outdated = self.installations != self.config.virtual_environment.installations();
        if !outdated || !self.workers.is_empty() {
            return;
        }
        if let Some(process) = self.process.take() {
            info!(
                pid = process.pid(),
                "packages were installed, the plugin host is replaced"
            );
            process.stop(self.config.grace).await;
        }
    }

    fn on_message(&mut self, message: from_host::Message) {
        match message {
            from_host::Message::Ready(_) => debug!("the host said twice that it is ready"),
            from_host::Message::Started(started) => {
                let worker = WorkerId(started.worker);
                if let Some(record) = self.workers.get_mut(&worker) {
                    debug!(worker = worker.0, pid = started.pid, "worker started");
                    record.on_started(worker, started.pid, &self.handle);
                }
            }
            from_host::Message::Output(output) => {
                if let Some(record) = self.workers.get_mut(&WorkerId(output.worker)) {
                    record.on_output(output.stderr, &output.data);
                }
            }
            from_host::Message::Exited(exited) => {
                if let Some(record) = self.workers.remove(&WorkerId(exited.worker)) {
                    debug!(worker = exited.worker, status = ?exited.status, "worker ended");
                    record.on_exited(exit_of(&exited));
                }
            }
        }
    }

    /// The host is gone, and its workers with it: their parent-death signal sees to that.
    fn on_lost(&mut self, reason: &str) {
        if let Some(process) = self.process.take() {
            warn!(
                reason,
                pid = process.pid(),
                "the plugin host ended, the next worker gets a new one"
            );
        }
        self.lose_workers();
    }

    fn lose_workers(&mut self) {
        for (_, record) in self.workers.drain() {
            record.on_exited(crate::error::ExitReason::HostLost);
        }
    }
}
