//! The keeper: a small process between the server and a program it starts, so that nothing
//! the program leaves behind outlives it.
//!
//! The parent-death signal reaches children only. What a plugin detaches (`setsid`, a double
//! fork) has another parent, and would go to the system's init when that dies. The keeper is
//! the subreaper of everything below it: it gets such processes as its own children, and
//! nobody else's. When the program ends, when the server asks, and when the spawner dies, it
//! kills and reaps all of them, and then says how the program ended.
//!
//! It is a fork of the [spawner](crate::spawner), and forks the [launcher](crate::launch),
//! which becomes the program.

use std::{
    fs::{self, File},
    io,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2_stderr, getpid, getppid, setsid},
};

use crate::{
    fork::fork,
    launch,
    wire::{self, Request, Status, Streams},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("start a session")]
    Session(#[source] Errno),
    #[error("adopt orphans")]
    Subreaper(#[source] Errno),
    #[error("ask for the parent-death signal")]
    ParentDeath(#[source] Errno),
    #[error("the spawner has ended already")]
    Orphan,
    #[error("start the launcher")]
    Launcher(#[source] Errno),
    #[error(transparent)]
    Launch(#[from] launch::StepError),
    #[error("let go of the server's standard error")]
    Descriptors(#[source] io::Error),
    #[error("look after the program")]
    Wait(#[source] Errno),
    #[error("list the processes that were left behind")]
    Children(#[source] io::Error),
    #[error("say how the program ended")]
    Say(#[source] io::Error),
}

/// Starts the program, waits for its end or the server's, and leaves nothing behind. All
/// signals are blocked.
pub(crate) fn run(spawner: Pid, request: Request, streams: Streams) -> Result<(), KeepError> {
    setsid().map_err(KeepError::Session)?;
    prctl::set_child_subreaper(true).map_err(KeepError::Subreaper)?;
    // Signals wait until they are asked for: none ends the keeper before it has cleaned up.
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(KeepError::ParentDeath)?;
    if getppid() != spawner {
        return Err(KeepError::Orphan);
    }
    // For those who look at a list of processes. A name that is not set is no harm.
    let _: nix::Result<()> = prctl::set_name(c"outrigger-keep");
    let keeper = getpid();
    let program = match fork().map_err(KeepError::Launcher)? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let never = launch::run(keeper, request, streams)?;
            match never {}
        }
    };
    // The ends of the program's pipes must close when the program does.
    let status = streams.status;
    drop((streams.stdout, streams.stderr, streams.stdin));
    let_go().map_err(KeepError::Descriptors)?;
    let end = watch(program).map_err(KeepError::Wait)?;
    let end = clear(program, end)?;
    let said = match end {
        Some(WaitStatus::Exited(_, code)) => Status::Exited(code),
        Some(WaitStatus::Signaled(_, signal, _)) => Status::Signalled(signal as i32),
        _ => Status::Signalled(libc::SIGKILL),
    };
    match wire::say(&status, &said, None) {
        // The server does not listen any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said.map_err(KeepError::Say),
    }
}

fn let_go() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Waits until the program has ended, and how; or until it is to end.
fn watch(program: Pid) -> nix::Result<Option<WaitStatus>> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGTERM);
    wanted.add(Signal::SIGCHLD);
    loop {
        if wanted.wait()? == Signal::SIGTERM {
            return Ok(None);
        }
        // One signal may stand for several children.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(status) if status.pid() == Some(program) => return Ok(Some(status)),
                Ok(_orphan) => {}
                Err(Errno::EINTR) => {}
                // Unless the program has ended, it is a child.
                Err(error) => return Err(error),
            }
        }
    }
}

/// Kills and reaps all children until there is none; those of a process that dies become
/// the keeper's before it is reaped, so that none is missed.
fn clear(program: Pid, mut end: Option<WaitStatus>) -> Result<Option<WaitStatus>, KeepError> {
    loop {
        for child in children().map_err(KeepError::Children)? {
            // Children stay, as processes or as zombies, until they are reaped below: the
            // number cannot be another's.
            let _: nix::Result<()> = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(program) => end = Some(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(end),
            Err(error) => return Err(KeepError::Wait(error)),
        }
    }
}

/// The children of this process, which has one thread.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    let list = fs::read_to_string("/proc/thread-self/children")?;
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.map(Pid::from_raw).collect())
}
