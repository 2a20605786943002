//! A worker before it belongs to a plugin: a process with one thread that waits on its channel.

use std::{os::fd::OwnedFd, sync::Arc};

use outrigger_proto::v1::{Assign, Confined as Told};
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Duration, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Confined, LAST_WORDS_MAX, Worker, attendance::Attendance, check_hello};
use crate::{
    channel::{Channel, ChannelError},
    config::Config,
    confinement::{ConfineError, Confiner, Prepared},
    error::{ExitReason, HostError},
    host::{HostHandle, OutputLine, WorkerExit, WorkerProcess, exited},
    invocation::Plugin,
    registry::{Link, Registry, Token},
};

/// What an assignment needs.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) confiner: &'a Arc<Confiner>,
    pub(crate) config: &'a Config,
    /// Where runs what cleans up after the worker.
    pub(crate) tasks: &'a TaskTracker,
}

/// A worker that waits. Dropping it kills its process.
#[derive(Debug)]
pub(crate) struct Spare {
    process: WorkerProcess,
    channel: Channel,
    /// What it has loaded.
    foundations: u64,
    attendance: Attendance,
}

impl Spare {
    /// Forks a worker and waits until it is set up. What attends to it runs on `tasks`.
    pub(crate) async fn start(
        host: &HostHandle,
        config: &Config,
        confiner: &Arc<Confiner>,
        tasks: &TaskTracker,
    ) -> Result<Self, HostError> {
        let foundations = config.virtual_environment.foundations();
        let (mut channel, theirs) = Channel::pair()?;
        // The first worker waits for its host too.
        let start_max = config.host_start_max + config.worker_start_max;
        let Ok(started) = timeout(start_max, host.start_worker(theirs)).await else {
            host.abandon();
            return Err(HostError::WorkerNotReady(start_max));
        };
        let mut process = started?;
        let attendance = Attendance::begin(confiner, &process, tasks);
        let waiting = channel.waiting(process.pid);
        match timeout(config.worker_start_max, waiting).await {
            Ok(Ok(())) => Ok(Self {
                process,
                channel,
                foundations,
                attendance,
            }),
            Ok(Err(error)) => Err(unusable(&mut process, error).await),
            Err(_elapsed) => Err(HostError::WorkerNotReady(config.worker_start_max)),
        }
    }

    /// What it has loaded; see `VirtualEnvironment::foundations`.
    pub(crate) fn foundations(&self) -> u64 {
        self.foundations
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Waits for anything that ends it, and says what. What it prints is returned.
    ///
    /// # Cancel safety
    /// May be dropped at any time; nothing is lost.
    pub(crate) async fn idle(&mut self) -> Result<OutputLine, ExitReason> {
        tokio::select! {
            error = self.channel.broken() => Err(match error {
                ChannelError::Violation(what) => ExitReason::ProtocolViolation(what),
                ChannelError::Closed => match timeout(LAST_WORDS_MAX, self.process.wait()).await {
                    Ok(exit) => exit.reason,
                    Err(_elapsed) => ExitReason::ProtocolViolation(error.to_string()),
                },
                other => ExitReason::ProtocolViolation(other.to_string()),
            }),
            Some(line) = self.process.output.recv() => Ok(line),
            exit = exited(&mut self.process.exit) => Err(exit.reason),
        }
    }

    /// Makes it the worker of a plugin, and waits until it has connected.
    pub(crate) async fn assign(
        self,
        plugin: &Arc<Plugin>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Worker, HostError> {
        let Self {
            mut process,
            channel,
            attendance,
            ..
        } = self;
        let Surroundings {
            registry,
            confiner,
            config,
            tasks,
        } = surroundings;
        let token: Token = rand::random();
        let (_admission, link) = registry.expect(token);
        let mut prepared = prepare(confiner, plugin, &process, token).await?;
        let entered = attendance.go_on(prepared.leftovers);
        let brokerage = confiner.brokerage(plugin, &process);
        let pid = process.pid;
        let broker = |listener| drop(tasks.spawn(brokerage.run(pid, listener)));
        let attach = attach(&mut process, (channel, prepared.assign), link, broker);
        let (confined, link) = timeout(config.worker_start_max, attach)
            .await
            .unwrap_or(Err(HostError::WorkerNotReady(config.worker_start_max)))?;
        check_hello(&link, process.pid)?;
        // It runs nothing of the plugin's before.
        prepared.known.push(entered.await);
        let enforcement = confiner
            .conclude(&process.layers, prepared.known, confined.layers)
            .map_err(HostError::WorkerUnusable)?;
        Ok(Worker::new(
            process,
            link,
            Confined {
                enforcement,
                directories: prepared.directories,
                over: prepared.over,
            },
        ))
    }

    /// Lets it end.
    pub(crate) async fn retire(self, grace: Duration) {
        let Self {
            mut process,
            channel,
            ..
        } = self;
        drop(channel);
        // Dropping a process that still lives kills it.
        drop(timeout(grace, process.wait()).await);
    }
}

async fn prepare(
    confiner: &Arc<Confiner>,
    plugin: &Arc<Plugin>,
    process: &WorkerProcess,
    token: Token,
) -> Result<Prepared, HostError> {
    let (confiner, plugin) = (confiner.clone(), plugin.clone());
    let (pid, python) = (process.pid, process.python.clone());
    let prepared =
        spawn_blocking(move || confiner.prepare(&plugin, pid, token.to_vec(), &python)).await;
    match prepared {
        Ok(Ok(prepared)) => Ok(prepared),
        Ok(Err(ConfineError::Full(what))) => Err(HostError::PrivateFull(what)),
        Ok(Err(error)) => Err(HostError::NotConfined(error.to_string())),
        Err(panicked) => Err(HostError::NotConfined(panicked.to_string())),
    }
}

/// Assigns the worker and waits for its hello.
async fn attach(
    process: &mut WorkerProcess,
    (channel, assign): (Channel, Assign),
    link: oneshot::Receiver<Link>,
    broker: impl FnOnce(OwnedFd),
) -> Result<(Told, Link), HostError> {
    let confined = match channel.assign(assign).await {
        Ok((confined, listener)) => {
            // Its first connection is the one to this server.
            listener.map(broker);
            confined
        }
        Err(error) => return Err(unusable(process, error).await),
    };
    let refused = || HostError::WorkerEnded("its hello was refused".to_owned());
    let link = tokio::select! {
        link = link => link.map_err(|_refused| refused())?,
        exit = process.wait() => return Err(ended(exit)),
    };
    Ok((confined, link))
}

/// What is wrong with a worker whose channel has failed.
async fn unusable(process: &mut WorkerProcess, error: ChannelError) -> HostError {
    if matches!(error, ChannelError::Closed)
        && let Ok(exit) = timeout(LAST_WORDS_MAX, process.wait()).await
    {
        return ended(exit);
    }
    HostError::WorkerUnusable(error.to_string())
}

fn ended(exit: WorkerExit) -> HostError {
    let lines = [vec![exit.reason.to_string()], exit.stderr].concat();
    HostError::WorkerEnded(lines.join("\n"))
}
