//! A started program that is always ended and reaped, with all it has started.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::sync::watch;

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChildExit {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl From<ExitStatus> for ChildExit {
    fn from(status: ExitStatus) -> Self {
        status
            .code()
            .map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

#[derive(Debug)]
struct Shared {
    pid: Pid,
    // Whether the pid may belong to somebody else by now.
    reaped: Mutex<bool>,
}

impl Shared {
    fn reaped(&self) -> MutexGuard<'_, bool> {
        self.reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let reaped = self.reaped();
        if !*reaped {
            // The keeper kills and reaps the program and all it has left. A failure means
            // that it is gone already.
            let _: nix::Result<()> = kill(self.pid, Signal::SIGTERM);
            // In case that somebody has stopped it.
            let _: nix::Result<()> = kill(self.pid, Signal::SIGCONT);
        }
    }
}

/// A program and everything it has started, all killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    exit: watch::Receiver<Option<ChildExit>>,
}

impl Running {
    /// Takes charge of a keeper.
    pub(crate) fn watch(mut child: Child) -> io::Result<Self> {
        let pid = Pid::from_raw(child.id().cast_signed());
        let shared = Arc::new(Shared {
            pid,
            reaped: Mutex::new(false),
        });
        let (sender, exit) = watch::channel(None);
        let waiter = shared.clone();
        thread::Builder::new()
            .name(format!("wait-{pid}"))
            .spawn(move || {
                // Wait without reaping first, so that the pid stays taken until nobody
                // can signal it any more.
                let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                while waitid(Id::Pid(waiter.pid), flags) == Err(nix::errno::Errno::EINTR) {}
                let mut reaped = waiter.reaped();
                let status = child.wait();
                *reaped = true;
                drop(reaped);
                let exit = status.map_or(ChildExit::Signal(0), ChildExit::from);
                sender.send_replace(Some(exit));
            })?;
        Ok(Self { shared, exit })
    }

    /// The process id of its keeper.
    pub fn pid(&self) -> u32 {
        self.shared.pid.as_raw().cast_unsigned()
    }

    /// Kills the program and everything it has started.
    pub fn kill(&self) {
        self.shared.end();
    }

    /// Waits until the program and everything it has started have ended and were reaped.
    pub async fn wait(&mut self) -> ChildExit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(ChildExit::Signal(0)),
            // The waiting thread always sends before it ends.
            Err(_closed) => ChildExit::Signal(0),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
