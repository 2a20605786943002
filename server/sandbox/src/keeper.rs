//! The keeper: a small process between the server and a program it starts, so that nothing
//! the program leaves behind outlives it.
//!
//! The parent-death signal reaches children only. What a plugin detaches (`setsid`, a double
//! fork) has another parent, and would go to the system's init when that dies. The keeper is
//! the subreaper of everything below it: it gets such processes as its own children. When
//! the program ends, when the server asks, and when the server dies, it kills and reaps all
//! of them, and then ends as the program did.
//!
//! It is this binary again, with one thread. It starts the [launcher](crate::launch), which
//! becomes the program.

use std::{
    convert::Infallible,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    process::{self, Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getppid, setsid},
};

use crate::launch;

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__outrigger-keep";

/// What is added to a signal's number where no signal can be had as an end.
const SIGNALLED: i32 = 128;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("start a session")]
    Session(#[source] Errno),
    #[error("adopt orphans")]
    Subreaper(#[source] Errno),
    #[error("block signals")]
    Signals(#[source] Errno),
    #[error("ask for the parent-death signal")]
    ParentDeath(#[source] Errno),
    #[error("the server has ended already")]
    Orphan,
    #[error("start the launcher")]
    Launcher(#[source] io::Error),
    #[error("let go of the program's descriptors")]
    Descriptors(#[source] io::Error),
    #[error("look after the program")]
    Wait(#[source] Errno),
    #[error("list the processes that were left behind")]
    Children(#[source] io::Error),
}

/// Starts the program, waits for its end or the server's, and leaves nothing behind.
pub(crate) fn run(
    parent: Pid,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Infallible, KeepError> {
    // A terminal's Ctrl-C is for the server alone.
    setsid().map_err(KeepError::Session)?;
    prctl::set_child_subreaper(true).map_err(KeepError::Subreaper)?;
    // From here on signals wait until they are asked for: none ends the keeper before it
    // has cleaned up.
    SigSet::all().thread_block().map_err(KeepError::Signals)?;
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(KeepError::ParentDeath)?;
    if getppid() != parent {
        return Err(KeepError::Orphan);
    }
    let program = start(arguments).map_err(KeepError::Launcher)?;
    // The ends of the program's socket and pipes must close when the program does.
    let_go().map_err(KeepError::Descriptors)?;
    let end = watch(program).map_err(KeepError::Wait)?;
    let end = clear(program, end)?;
    end_like(end)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the keeper is how children are started"
)]
fn start(arguments: impl Iterator<Item = OsString>) -> io::Result<Pid> {
    // Not the path of the binary: it may have been replaced since.
    let child = Command::new("/proc/self/exe")
        .arg0("influxdb3")
        .arg(launch::ARGUMENT)
        .arg(process::id().to_string())
        .args(arguments)
        .stdin(Stdio::inherit())
        .spawn()?;
    Ok(Pid::from_raw(child.id().cast_signed()))
}

fn let_go() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
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

fn children() -> io::Result<Vec<Pid>> {
    let list = fs::read_to_string("/proc/thread-self/children")?;
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.map(Pid::from_raw).collect())
}

/// Ends as the program did, so that the server sees what it would have seen.
#[expect(clippy::exit, reason = "this is the end of the keeper's `main`")]
fn end_like(end: Option<WaitStatus>) -> ! {
    match end {
        Some(WaitStatus::Exited(_, code)) => process::exit(code),
        Some(WaitStatus::Signaled(_, signal, _)) => {
            die_by(signal);
            process::exit(SIGNALLED + signal as i32)
        }
        _ => process::exit(SIGNALLED + Signal::SIGKILL as i32),
    }
}

#[expect(unsafe_code, reason = "sigaction has no safe wrapper")]
fn die_by(signal: Signal) {
    // One core, the program's, is enough.
    let _: nix::Result<()> = prctl::set_dumpable(false);
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: it installs the default action, no handler.
    let _: nix::Result<SigAction> = unsafe { signal::sigaction(signal, &default) };
    let _: nix::Result<()> = signal::raise(signal);
    let mut only = SigSet::empty();
    only.add(signal);
    let _: nix::Result<()> = only.thread_unblock();
}
