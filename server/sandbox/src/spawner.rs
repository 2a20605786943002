//! The spawner: one small process that starts all others, for as long as the server lives.
//!
//! It is this binary again, executed, so that it has one thread, an empty environment and
//! none of the server's memory. It can therefore fork without care, and so can its
//! forks, the [keepers](crate::keeper); and a parent-death signal means what it says, since it
//! has no other thread that could end. When the server's end of the socket closes, however
//! that happens, it ends all that it has started and then itself.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, getpid, setsid},
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::{
    fork::fork,
    keeper::{self, KeepError},
    launch,
    wire::{self, Status, Streams},
};

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__outrigger-spawn";

/// How long keepers have to end what is below them. Then they are killed, and the spawner does
/// it.
const KEEPERS_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether they have, at the least.
const LOOK: u16 = 100;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("start a session")]
    Session(#[source] Errno),
    #[error("adopt orphans")]
    Subreaper(#[source] Errno),
    #[error("be closed to others of this user")]
    Dumpable(#[source] Errno),
    #[error("block signals")]
    Signals(#[source] Errno),
    #[error("take the socket")]
    Socket(#[source] io::Error),
    #[error("mark inherited descriptors close-on-exec")]
    Descriptors(#[source] io::Error),
    #[error("wait for requests")]
    Wait(#[source] Errno),
    #[error("receive a request")]
    Receive(#[source] io::Error),
    #[error("say what became of a request")]
    Say(#[source] io::Error),
    #[error("list children")]
    Children(#[source] io::Error),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// Starts what the server asks for, until that is gone. In its forks, it is the keeper.
pub(crate) fn run() -> Result<(), SpawnError> {
    // A terminal's Ctrl-C is for the server alone.
    setsid().map_err(SpawnError::Session)?;
    prctl::set_child_subreaper(true).map_err(SpawnError::Subreaper)?;
    // It and its keepers hold what programs are told.
    prctl::set_dumpable(false).map_err(SpawnError::Dumpable)?;
    SigSet::all().thread_block().map_err(SpawnError::Signals)?;
    launch::mark_close_on_exec().map_err(SpawnError::Descriptors)?;
    let requests = take_socket().map_err(SpawnError::Socket)?;
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(SpawnError::Signals)?;
    let mut keepers = BTreeSet::new();
    loop {
        let (asked, ended) = wait(&requests, &signals).map_err(SpawnError::Wait)?;
        if ended {
            while let Ok(Some(_)) = signals.read_signal() {}
            reap(&mut keepers)?;
        }
        if !asked {
            continue;
        }
        let received = wire::receive_request(&requests);
        match received.map_err(SpawnError::Receive)? {
            None => return end_all(&keepers),
            Some((request, streams)) => {
                let spawner = getpid();
                match fork() {
                    Ok(ForkResult::Parent { child }) => {
                        keepers.insert(child);
                        started(child, &streams)?;
                    }
                    Ok(ForkResult::Child) => {
                        drop((requests, signals));
                        return Ok(keeper::run(spawner, request, streams)?);
                    }
                    Err(error) => refused(error, &streams)?,
                }
            }
        }
    }
}

/// The server's socket, which is the standard input; it and the output become /dev/null.
fn take_socket() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(socket)
}

/// Waits until there is a request (or no server), or a child has ended.
fn wait(requests: &OwnedFd, signals: &SignalFd) -> Result<(bool, bool), Errno> {
    let mut wanted = [
        PollFd::new(requests.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut wanted, PollTimeout::NONE) {
        Ok(_) => {
            let [asked, ended] = wanted.map(|wanted| wanted.any().unwrap_or(false));
            Ok((asked, ended))
        }
        Err(Errno::EINTR) => Ok((false, true)),
        Err(error) => Err(error),
    }
}

fn started(keeper: Pid, streams: &Streams) -> Result<(), SpawnError> {
    // Nobody but this process reaps it, so that the number is still its own.
    let pidfd = rustix::process::Pid::from_raw(keeper.as_raw())
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let said = match &pidfd {
        Ok(pidfd) => {
            let pid = keeper.as_raw();
            wire::say(
                &streams.status,
                &Status::Started { pid },
                Some(pidfd.as_fd()),
            )
        }
        Err(error) => {
            let _: nix::Result<()> = kill(keeper, Signal::SIGTERM);
            let error = format!("name the keeper: {error}");
            wire::say(&streams.status, &Status::Failed(error), None)
        }
    };
    heard(said, keeper)
}

fn refused(error: Errno, streams: &Streams) -> Result<(), SpawnError> {
    let text = format!("fork: {error}");
    match wire::say(&streams.status, &Status::Failed(text), None) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(SpawnError::Say(error)),
        _ => Ok(()),
    }
}

/// Who asks and does not wait for the answer does not want it any more.
fn heard(said: io::Result<()>, keeper: Pid) -> Result<(), SpawnError> {
    match said {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            let _: nix::Result<()> = kill(keeper, Signal::SIGTERM);
            Ok(())
        }
        Err(error) => Err(SpawnError::Say(error)),
    }
}

/// Reaps children that have ended, and kills those that are not keepers: a keeper that was
/// killed has left them.
fn reap(keepers: &mut BTreeSet<Pid>) -> Result<(), SpawnError> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
            Ok(status) => {
                if let Some(pid) = status.pid() {
                    keepers.remove(&pid);
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(SpawnError::Wait(error)),
        }
    }
    for child in keeper::children().map_err(SpawnError::Children)? {
        if !keepers.contains(&child) {
            let _: nix::Result<()> = kill(child, Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Ends all keepers, which end all below them; what does not end so is killed.
fn end_all(keepers: &BTreeSet<Pid>) -> Result<(), SpawnError> {
    for keeper in keepers {
        let _: nix::Result<()> = kill(*keeper, Signal::SIGTERM);
        // In case that somebody has stopped it.
        let _: nix::Result<()> = kill(*keeper, Signal::SIGCONT);
    }
    let deadline = Instant::now() + KEEPERS_MAX;
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(SpawnError::Signals)?;
    loop {
        let late = Instant::now() >= deadline;
        for child in keeper::children().map_err(SpawnError::Children)? {
            if late || !keepers.contains(&child) {
                let _: nix::Result<()> = kill(child, Signal::SIGKILL);
            }
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(SpawnError::Wait(error)),
            }
        }
        let mut wanted = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::from(LOOK)) {
            Ok(_) | Err(Errno::EINTR) => while let Ok(Some(_)) = signals.read_signal() {},
            Err(error) => return Err(SpawnError::Wait(error)),
        }
    }
}
