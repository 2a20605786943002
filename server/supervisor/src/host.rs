//! A host: the trusted Python process that forks workers, and who watches it.

mod frame;
mod memory;
mod pipes;
mod printed;
mod process;
mod worker;

use std::{collections::HashMap, os::fd::OwnedFd};

use futures::future::{join_all, select_all};
use outrigger_model::error::Report;
use outrigger_proto::v1::{SignalWorker, StartWorker, from_host, to_host};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

pub(crate) use self::printed::OutputLine;
pub(crate) use self::worker::{Place, SIGKILL, WorkerExit, WorkerProcess, exited};
use self::worker::{WorkerRecord, exit_of, usage_of};
use self::{pipes::Output, process::HostProcess};
use crate::{config::Config, confinement::of_hosts, error::HostError};
use outrigger_sandbox::Launcher;

/// A worker's number; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct WorkerId(pub(crate) u64);

/// What a host is asked.
#[derive(Debug)]
pub(crate) enum HostCommand {
    Start {
        /// The worker's end of its channel.
        channel: OwnedFd,
        reply: oneshot::Sender<Result<WorkerProcess, HostError>>,
    },
    Signal(SignalWorker),
    /// End the host of this worker, or the one that starts workers.
    Abandon(Option<WorkerId>),
}

/// Talks to the host's task. Commands are as few as there are workers, so the
/// channel needs no bound; a worker's drop must be able to send without waiting.
#[derive(Clone, Debug)]
pub(crate) struct HostHandle(mpsc::UnboundedSender<HostCommand>);

impl HostHandle {
    /// Forks a worker with this end of its channel, starting the host first if there is none.
    pub(crate) async fn start_worker(&self, channel: OwnedFd) -> Result<WorkerProcess, HostError> {
        let (reply, started) = oneshot::channel();
        self.0
            .send(HostCommand::Start { channel, reply })
            .or(Err(HostError::Stopping))?;
        started.await.unwrap_or(Err(HostError::Stopping))
    }

    /// Signals a worker, if it still lives.
    pub(crate) fn signal(&self, signal: SignalWorker) {
        // Without a host there is no worker either.
        drop(self.0.send(HostCommand::Signal(signal)));
    }

    /// Ends a host that does not start workers; those that it has end with it.
    pub(crate) fn abandon(&self) {
        drop(self.0.send(HostCommand::Abandon(None)));
    }

    /// Ends the host of a worker that it does not kill, and all its workers.
    pub(crate) fn abandon_host_of(&self, worker: WorkerId) {
        drop(self.0.send(HostCommand::Abandon(Some(worker))));
    }
}

/// Everything that can happen to a host.
enum Wake {
    Command(HostCommand),
    Message(HostPid, from_host::Message),
    Lost(HostPid, String),
    Shutdown,
}

/// A host's process id.
type HostPid = u32;

/// Owns the host processes and what is known about their workers. One of them starts
/// workers; others, which know only what was installed earlier, stay for those they have.
#[derive(Debug)]
pub(crate) struct HostTask {
    config: Config,
    /// Whose processes hosts are; or why they are the server's user's.
    user: Result<u32, String>,
    launcher: Launcher,
    tasks: TaskTracker,
    handle: HostHandle,
    inbox: mpsc::UnboundedReceiver<HostCommand>,
    /// The newest is the last; it starts workers unless packages were installed since.
    hosts: Vec<HostProcess>,
    /// How much had been installed when it was started.
    installations: u64,
    workers: HashMap<WorkerId, (HostPid, WorkerRecord)>,
    last_worker: u64,
}

impl HostTask {
    /// A host that will be started when the first worker is asked for. `tasks` is
    /// where the tasks run that read its output and that of its workers.
    pub(crate) fn new(
        config: Config,
        launcher: Launcher,
        tasks: TaskTracker,
        user: Result<u32, String>,
    ) -> (HostHandle, Self) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let handle = HostHandle(sender);
        let task = Self {
            config,
            user,
            launcher,
            tasks,
            handle: handle.clone(),
            inbox,
            hosts: Vec::new(),
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
                Wake::Message(host, message) => self.on_message(host, message),
                Wake::Lost(host, reason) => self.on_lost(host, &reason),
                Wake::Shutdown => break,
            }
        }
        // The workers' tasks end their own workers; this only waits for the news.
        let drained = timeout(self.config.grace * 2, async {
            while !self.workers.is_empty() && !self.hosts.is_empty() {
                let never = CancellationToken::new();
                match self.next_wake(&never).await {
                    Wake::Command(command) => self.on_command(command).await,
                    Wake::Message(host, message) => self.on_message(host, message),
                    Wake::Lost(host, reason) => self.on_lost(host, &reason),
                    Wake::Shutdown => break,
                }
            }
        });
        if drained.await.is_err() {
            warn!(
                workers = self.workers.len(),
                "workers did not end in time, killing them"
            );
        }
        let stops = self
            .hosts
            .drain(..)
            .map(|host| host.stop(self.config.grace));
        join_all(stops).await;
        self.workers
            .drain()
            .for_each(|(_, (_, record))| record.on_lost());
    }

    async fn next_wake(&mut self, shutdown: &CancellationToken) -> Wake {
        let said = self.hosts.iter_mut().map(|host| {
            let pid = host.pid();
            // Dropping this loses nothing of what the host says.
            Box::pin(async move { (pid, host.next().await) })
        });
        let said: Vec<_> = said.collect();
        let message = async {
            if said.is_empty() {
                return std::future::pending().await;
            }
            select_all(said).await.0
        };
        tokio::select! {
            command = self.inbox.recv() => command.map_or(Wake::Shutdown, Wake::Command),
            message = message => match message {
                (pid, Ok(message)) => Wake::Message(pid, message),
                (pid, Err(error)) => Wake::Lost(pid, Report(&error).to_string()),
            },
            () = shutdown.cancelled() => Wake::Shutdown,
        }
    }

    async fn on_command(&mut self, command: HostCommand) {
        match command {
            HostCommand::Start { channel, reply } => {
                if let Err((error, reply)) = self.start_worker(channel, reply).await {
                    drop(reply.send(Err(error)));
                }
            }
            HostCommand::Abandon(worker) => {
                let host = match worker {
                    Some(worker) => self.workers.get(&worker).map(|(host, _)| *host),
                    None => self.hosts.last().map(HostProcess::pid),
                };
                if let Some(host) = host {
                    self.on_lost(host, "it does not answer and was killed");
                }
            }
            HostCommand::Signal(signal) => self.signal(signal).await,
        }
    }

    async fn signal(&mut self, signal: SignalWorker) {
        let Some((pid, record)) = self.workers.get_mut(&WorkerId(signal.worker)) else {
            return;
        };
        record.on_signal(signal.signal);
        let Some(host) = self.hosts.iter_mut().find(|host| host.pid() == *pid) else {
            return;
        };
        let sent = host.send(to_host::Message::SignalWorker(signal), Vec::new());
        let sent = sent.await;
        if let Err(error) = sent {
            let pid = host.pid();
            self.on_lost(pid, &Report(&error).to_string());
        }
    }

    async fn start_worker(
        &mut self,
        channel: OwnedFd,
        reply: oneshot::Sender<Result<WorkerProcess, HostError>>,
    ) -> Result<(), (HostError, oneshot::Sender<Result<WorkerProcess, HostError>>)> {
        if let Err(gone) = self.config.virtual_environment.check() {
            return Err((gone.into(), reply));
        }
        let installations = self.config.virtual_environment.installations();
        if self.hosts.is_empty() || self.installations != installations {
            let confinement = of_hosts(&self.config, self.user.clone());
            let started =
                HostProcess::start(&self.config, confinement, &self.launcher, &self.tasks);
            match started.await {
                Ok(process) => self.hosts.push(process),
                Err(error) => return Err((error, reply)),
            }
            self.installations = installations;
            self.end_unneeded();
        }
        let Some(host) = self.hosts.last_mut() else {
            return Err((HostError::Stopping, reply));
        };
        let owner = self.user.as_ref().ok().copied();
        let (output, lines, [stdout, stderr]) = match Output::new(owner) {
            Ok(made) => made,
            Err(error) => return Err((error.into(), reply)),
        };
        let pid = host.pid();
        self.last_worker += 1;
        let worker = WorkerId(self.last_worker);
        let message = to_host::Message::StartWorker(StartWorker { worker: worker.0 });
        let sent = host.send(message, vec![channel, stdout, stderr]);
        if let Err(error) = sent.await {
            self.on_lost(pid, &Report(&error).to_string());
            return Err((HostError::Socket(error), reply));
        }
        let record = WorkerRecord::starting(reply, output, lines);
        self.tasks.spawn(record.follow());
        self.workers.insert(worker, (pid, record));
        Ok(())
    }

    /// Ends hosts that neither start workers nor have any.
    fn end_unneeded(&mut self) {
        let newest = self.hosts.last().map(HostProcess::pid);
        let workers = &self.workers;
        let needed = |host: &mut HostProcess| {
            let pid = host.pid();
            Some(pid) == newest || workers.values().any(|(of, _)| *of == pid)
        };
        for host in self.hosts.extract_if(.., |host| !needed(host)) {
            info!(
                pid = host.pid(),
                "packages were installed, an older plugin host ends"
            );
            self.tasks.spawn(host.stop(self.config.grace));
        }
    }

    fn on_message(&mut self, host: HostPid, message: from_host::Message) {
        match message {
            from_host::Message::Ready(_) => debug!("the host said twice that it is ready"),
            from_host::Message::Started(started) => {
                let worker = WorkerId(started.worker);
                let handle = self.handle.clone();
                let found = self.hosts.iter().find(|process| process.pid() == host);
                let born = found.map(HostProcess::born).unwrap_or_default();
                if let Some(record) = self.record(host, worker) {
                    debug!(worker = worker.0, pid = started.pid, "worker started");
                    record.on_started(worker, started.pid, born, &handle);
                }
            }
            from_host::Message::Exited(exited) => {
                let worker = WorkerId(exited.worker);
                if self.record(host, worker).is_none() {
                    return;
                }
                if let Some((_, record)) = self.workers.remove(&worker) {
                    debug!(worker = exited.worker, status = ?exited.status, "worker ended");
                    record.on_exited(exit_of(&exited), usage_of(&exited));
                }
                self.end_unneeded();
            }
        }
    }

    /// A worker of this host: a host can say nothing about those of another.
    fn record(&mut self, host: HostPid, worker: WorkerId) -> Option<&mut WorkerRecord> {
        let (of, record) = self.workers.get_mut(&worker)?;
        (*of == host).then_some(record)
    }

    /// A host is gone, and its workers with it: their parent-death signal sees to that.
    fn on_lost(&mut self, pid: HostPid, reason: &str) {
        // Dropping it kills what may be left of it.
        self.hosts.retain(|host| host.pid() != pid);
        warn!(
            reason,
            pid, "the plugin host ended, the next worker gets a new one"
        );
        let lost = self.workers.extract_if(|_, (of, _)| *of == pid);
        for (_, (_, record)) in lost {
            record.on_lost();
        }
    }
}
