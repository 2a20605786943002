//! What the host's task knows about one worker, and what its owner gets.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use outrigger_proto::v1::{SignalWorker, WorkerExited, worker_exited};
use outrigger_sandbox::{Group, LayerReport};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    HostHandle, OutputLine, WorkerId,
    memory::{MemoryCounts, own_evidence},
    pipes::Output,
};
use crate::{
    error::{ExitReason, HostError},
    usage::ProcessUsage,
};

/// How a worker ended.
#[derive(Clone, Debug)]
pub(crate) struct WorkerExit {
    pub(crate) reason: ExitReason,
    pub(crate) stderr: Vec<String>,
    /// Of its whole life.
    pub(crate) usage: ProcessUsage,
}

/// Where a worker is among the processes of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    /// The keeper of its host, below which it must be.
    pub(crate) keeper: u32,
    /// Its control group, once it has one.
    pub(crate) group: Arc<OnceLock<Group>>,
}

/// A worker's process; killed when dropped.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    pub(crate) id: WorkerId,
    pub(crate) pid: u32,
    pub(crate) exit: watch::Receiver<Option<WorkerExit>>,
    pub(crate) output: mpsc::Receiver<OutputLine>,
    /// For what the server says in its place.
    pub(crate) says: mpsc::WeakSender<OutputLine>,
    /// Where its output comes from.
    printed: Arc<Output>,
    /// What Python reads there.
    pub(crate) python: Arc<[PathBuf]>,
    /// What became of the layers of its host, which are its own too.
    pub(crate) layers: Arc<[LayerReport]>,
    /// The keeper of its host.
    keeper: u32,
    group: Arc<OnceLock<Group>>,
    host: HostHandle,
}

impl WorkerProcess {
    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        Place {
            pid: self.pid,
            keeper: self.keeper,
            group: self.group.clone(),
        }
    }

    /// Sends a signal to its process group.
    pub(crate) fn signal(&self, signal: i32) {
        self.send_signal(signal, false);
    }

    /// Sends a signal to the thread that runs the plugin, which takes it before it goes on; where it
    /// blocks that, to its process.
    pub(crate) fn signal_main_thread(&self, signal: i32) {
        self.send_signal(signal, true);
    }

    fn send_signal(&self, signal: i32, main_thread: bool) {
        self.host.signal(SignalWorker {
            worker: self.id.0,
            signal,
            main_thread,
        });
    }

    /// Ends the lines that it has begun to print: they come as they are.
    pub(crate) fn end_lines(&self) {
        self.printed.end_lines();
    }

    /// Gives up a host that does not reap a killed worker.
    pub(crate) fn abandon_host(&self) {
        self.host.abandon_host_of(self.id);
    }

    /// Waits until it was reaped.
    pub(crate) async fn wait(&mut self) -> WorkerExit {
        exited(&mut self.exit).await
    }
}

#[cfg(test)]
impl WorkerProcess {
    /// A process that a test ends through `exit`, and that no signal reaches.
    pub(crate) fn without_process(
        exit: watch::Receiver<Option<WorkerExit>>,
        output: mpsc::Receiver<OutputLine>,
    ) -> Self {
        Self {
            id: WorkerId(1),
            pid: u32::MAX,
            exit,
            says: mpsc::channel(1).0.downgrade(),
            printed: Arc::new(Output::new(None).expect("pipes can be made").0),
            output,
            python: Arc::default(),
            layers: Arc::default(),
            keeper: 0,
            group: Arc::default(),
            host: HostHandle(mpsc::unbounded_channel().0),
        }
    }
}

/// Waits until the worker that `exit` tells of was reaped.
pub(crate) async fn exited(exit: &mut watch::Receiver<Option<WorkerExit>>) -> WorkerExit {
    let lost = || WorkerExit {
        reason: ExitReason::HostLost,
        stderr: Vec::new(),
        usage: ProcessUsage::default(),
    };
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or_else(lost),
        Err(_closed) => lost(),
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.signal(SIGKILL);
        }
    }
}

/// The number of SIGKILL on every Linux.
pub(crate) const SIGKILL: i32 = 9;

/// What workers have from their host.
#[derive(Clone, Debug, Default)]
pub(super) struct Born {
    pub(super) python: Arc<[PathBuf]>,
    pub(super) layers: Arc<[LayerReport]>,
    /// The process id of its host's keeper.
    pub(super) keeper: u32,
}

/// The host task's side of a worker.
#[derive(Debug)]
pub(super) struct WorkerRecord {
    starting: Option<oneshot::Sender<Result<WorkerProcess, HostError>>>,
    exit: watch::Sender<Option<WorkerExit>>,
    printed: Arc<Output>,
    /// What comes of it, until its owner has it.
    lines: Option<mpsc::Receiver<OutputLine>>,
    /// Whether the server has killed it.
    killed: bool,
    /// When it began.
    memory: MemoryCounts,
    /// Its control group, once it has one.
    group: Arc<OnceLock<Group>>,
}

impl WorkerRecord {
    pub(super) fn starting(
        reply: oneshot::Sender<Result<WorkerProcess, HostError>>,
        output: Output,
        lines: mpsc::Receiver<OutputLine>,
    ) -> Self {
        Self {
            starting: Some(reply),
            exit: watch::Sender::new(None),
            printed: Arc::new(output),
            lines: Some(lines),
            killed: false,
            memory: MemoryCounts::now(),
            group: Arc::default(),
        }
    }

    pub(super) fn on_started(&mut self, id: WorkerId, pid: u32, born: Born, host: &HostHandle) {
        let (Some(reply), Some(output)) = (self.starting.take(), self.lines.take()) else {
            return;
        };
        let says = self.printed.says();
        let (exit, host) = (self.exit.subscribe(), host.clone());
        // Whoever no longer wants it drops it, which kills it.
        drop(reply.send(Ok(WorkerProcess {
            id,
            pid,
            exit,
            output,
            says,
            printed: self.printed.clone(),
            python: born.python,
            layers: born.layers,
            keeper: born.keeper,
            group: self.group.clone(),
            host,
        })));
    }

    /// Takes in what it prints until it has ended, also where something that it has started can
    /// still print.
    pub(super) fn follow(&self) -> impl Future<Output = ()> + use<> {
        let (printed, mut exit) = (self.printed.clone(), self.exit.subscribe());
        async move {
            tokio::select! {
                () = printed.follow() => {}
                _exit = exited(&mut exit) => {}
            }
        }
    }

    /// The server sends it this signal.
    pub(super) fn on_signal(&mut self, signal: i32) {
        self.killed |= signal == SIGKILL;
    }

    /// Who or what has killed it, as far as that can be known.
    fn explain(&self, reason: ExitReason, usage: ProcessUsage) -> ExitReason {
        if reason != ExitReason::Signal(SIGKILL) {
            return reason;
        }
        if self.killed {
            return ExitReason::Retired;
        }
        // Counts what has happened to this worker and what it has started, and nothing else.
        if let Some(memory) = self.group.get().and_then(Group::memory) {
            let evidence = own_evidence(memory);
            return evidence.map_or(reason, |evidence| ExitReason::OutOfMemory { evidence });
        }
        let now = MemoryCounts::now();
        match self.memory.evidence(&now, usage.peak_memory_bytes) {
            Some(evidence) => ExitReason::OutOfMemory { evidence },
            None => reason,
        }
    }

    /// Its host is gone.
    pub(super) fn on_lost(self) {
        self.on_exited(ExitReason::HostLost, ProcessUsage::default());
    }

    pub(super) fn on_exited(mut self, reason: ExitReason, usage: ProcessUsage) {
        let exit = WorkerExit {
            reason: self.explain(reason, usage),
            stderr: self.printed.end(),
            usage,
        };
        if let Some(reply) = self.starting.take() {
            drop(reply.send(Err(HostError::WorkerEnded(exit.reason.to_string()))));
        }
        self.exit.send_replace(Some(exit));
    }
}

/// What the host's message says the worker has used.
pub(super) fn usage_of(message: &WorkerExited) -> ProcessUsage {
    ProcessUsage {
        user_cpu: Duration::from_micros(message.user_cpu_us),
        system_cpu: Duration::from_micros(message.system_cpu_us),
        peak_memory_bytes: message.peak_memory_bytes,
    }
}

/// What the host's message says about the end of a worker.
pub(super) fn exit_of(message: &WorkerExited) -> ExitReason {
    match message.status {
        Some(worker_exited::Status::Code(code)) => ExitReason::Code(code),
        Some(worker_exited::Status::Signal(signal)) => ExitReason::Signal(signal),
        None => ExitReason::HostLost,
    }
}
