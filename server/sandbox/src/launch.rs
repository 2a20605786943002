//! The launcher program: the steps between the [keeper](crate::keeper) and the program that
//! the server starts.
//!
//! It is this binary again, called with a hidden first argument, so it runs with one
//! thread and nothing loaded. Each step has its reason and its own error; the
//! order matters. Further layers (cgroup, uid, namespaces, rlimits, capabilities,
//! Landlock, seccomp) have their place between the parent-death signal and the
//! execution, in the order of docs/security.md.

use std::{
    convert::Infallible,
    env,
    error::Error,
    ffi::OsString,
    io,
    iter::successors,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Pid, getppid, setsid},
};

use crate::keeper::{self, KeepError};

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__outrigger-launch";

/// The exit code of a launcher that could not go through.
const FAILED: u8 = 125;

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("mark inherited descriptors close-on-exec")]
    Descriptors(#[source] io::Error),
    #[error("start a session")]
    Session(#[source] Errno),
    #[error("ask for the parent-death signal")]
    ParentDeath(#[source] Errno),
    #[error("the keeper has ended already")]
    Orphan,
    #[error("unblock signals")]
    Signals(#[source] Errno),
    #[error("give up gaining privileges")]
    NoNewPrivileges(#[source] Errno),
    #[error("execute {program:?}")]
    Execute {
        program: OsString,
        source: io::Error,
    },
    #[error("the arguments are not parent, program, arguments…")]
    Arguments,
    #[error("keep the program")]
    Keep(#[from] KeepError),
}

/// Runs as the keeper or the launcher if that is what this process was started for;
/// returns only if it was not, or if a step failed. Call it first in `main`.
pub fn program() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let role = arguments.next()?;
    let result = if role == keeper::ARGUMENT {
        keep(arguments)
    } else if role == ARGUMENT {
        run(arguments)
    } else {
        return None;
    };
    let error = match result {
        Ok(never) => match never {},
        Err(error) => error,
    };
    #[expect(
        clippy::print_stderr,
        reason = "this program has no other way to speak"
    )]
    {
        let first: &dyn Error = &error;
        let causes = successors(Some(first), |error| Error::source(*error));
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        eprintln!("outrigger launcher: {}", causes.join(": "));
    }
    Some(ExitCode::from(FAILED))
}

fn keep(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible, StepError> {
    let parent = parent(&mut arguments)?;
    // What the server has open (the log, the listener, other workers' pipes) must
    // not reach the program. Everything Rust opens is close-on-exec; this is for
    // the rest: descriptors that the server itself inherited or a library opened.
    mark_close_on_exec().map_err(StepError::Descriptors)?;
    Ok(keeper::run(parent, arguments)?)
}

fn parent(arguments: &mut impl Iterator<Item = OsString>) -> Result<Pid, StepError> {
    arguments
        .next()
        .and_then(|parent| parent.to_str()?.parse().ok())
        .map(Pid::from_raw)
        .ok_or(StepError::Arguments)
}

fn run(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible, StepError> {
    let parent = parent(&mut arguments)?;
    let program = arguments.next().ok_or(StepError::Arguments)?;

    // Its own session and process group, which can be signalled as a whole.
    setsid().map_err(StepError::Session)?;

    // The kernel ends the program when the keeper ends, also after SIGKILL. The
    // keeper may have died before the request: look again.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(StepError::ParentDeath)?;
    if getppid() != parent {
        return Err(StepError::Orphan);
    }

    // No setuid program gives back what was taken away.
    prctl::set_no_new_privs().map_err(StepError::NoNewPrivileges)?;

    // The keeper's are blocked, and a program inherits that.
    SigSet::empty()
        .thread_set_mask()
        .map_err(StepError::Signals)?;

    #[expect(
        clippy::disallowed_methods,
        reason = "the launcher is how children are started"
    )]
    let source = Command::new(&program).args(arguments).exec();
    Err(StepError::Execute { program, source })
}

#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
fn mark_close_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: this changes flags of descriptors only; none is closed while in use.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
