//! A started program that is always ended and reaped, with all it has started.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::unistd::Pid;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::{
    report::LayerReport,
    wire::{self, Status},
};

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChildExit {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// A program and everything it has started, all killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    pid: Pid,
    // Names the keeper, and nobody else when that has ended.
    keeper: OwnedFd,
    status: StatusSocket,
    layers: Option<Vec<LayerReport>>,
    exit: Option<ChildExit>,
}

impl Running {
    pub(crate) fn new(pid: i32, keeper: OwnedFd, status: StatusSocket) -> Self {
        Self {
            pid: Pid::from_raw(pid),
            keeper,
            status,
            layers: None,
            exit: None,
        }
    }

    /// The process id of its keeper.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Kills the program and everything it has started.
    pub fn kill(&self) {
        // The keeper kills and reaps the program and all it has left. A failure means
        // that it is gone already.
        let _: rustix::io::Result<()> = pidfd_send_signal(&self.keeper, Signal::TERM);
        // In case that somebody has stopped it.
        let _: rustix::io::Result<()> = pidfd_send_signal(&self.keeper, Signal::CONT);
    }

    /// What became of the layers that it was to have, when all was done but its execution.
    /// Nothing if it came to no execution.
    pub(crate) async fn layers(&mut self) -> io::Result<Vec<LayerReport>> {
        loop {
            if let Some(layers) = self.layers.take() {
                return Ok(layers);
            }
            if self.exit.is_some() {
                return Ok(Vec::new());
            }
            match self.status.next().await? {
                Some((status, _)) => self.note(status),
                None => return Ok(Vec::new()),
            }
        }
    }

    /// Waits until the program and everything it has started have ended and were reaped.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn wait(&mut self) -> ChildExit {
        loop {
            if let Some(exit) = self.exit {
                return exit;
            }
            match self.status.next().await {
                Ok(Some((status, _))) => self.note(status),
                // The keeper was killed before it could say how the program ended.
                Ok(None) | Err(_) => self.exit = Some(ChildExit::Signal(libc::SIGKILL)),
            }
        }
    }

    /// Takes up what was said.
    pub(crate) fn note(&mut self, status: Status) {
        match status {
            Status::Exited(code) => self.exit = Some(ChildExit::Code(code)),
            Status::Signalled(signal) => self.exit = Some(ChildExit::Signal(signal)),
            Status::Layers(layers) => self.layers = Some(layers),
            Status::Started { .. } | Status::Failed(_) => {}
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the spawner, the keeper and the launcher say what became of a request.
#[derive(Debug)]
pub(crate) struct StatusSocket(AsyncFd<OwnedFd>);

impl StatusSocket {
    /// The socket must not block.
    #[expect(unsafe_code, reason = "the descriptor must not be another's later")]
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: it is owned by what is made here, and closed when that is dropped.
        let socket = unsafe { AsyncFd::register(socket) };
        Ok(Self(socket?))
    }

    /// The next thing that was said; `None` when nobody can say more.
    pub(crate) async fn next(&self) -> io::Result<Option<(Status, Option<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(heard) = ready.try_io(|socket| wire::hear(&socket.as_fd())) {
                return heard;
            }
        }
    }
}
