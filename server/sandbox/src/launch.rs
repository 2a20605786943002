//! The launcher program: the steps between the server and the program it starts.
//!
//! It is this binary again, called with a hidden first argument, so it runs with one
//! thread and nothing loaded. Each step has its reason and its own error; the
//! order matters. Further layers (cgroup, uid, namespaces, rlimits, capabilities,
//! Landlock, seccomp) have their place between the parent-death signal and the
//! execution, in the order of docs/security.md.

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::{Pid, getppid, setsid},
};

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
    #[error("the server has ended already")]
    Orphan,
    #[error("give up gaining privileges")]
    NoNewPrivileges(#[source] Errno),
    #[error("execute {program:?}")]
    Execute {
        program: OsString,
        source: io::Error,
    },
    #[error("the arguments are not parent, program, arguments…")]
    Arguments,
}

/// Runs as the launcher if that is what this process was started for; returns
/// only if it was not, or if a step failed. Call it first in `main`.
pub fn program() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let error = match run(arguments) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    #[expect(
        clippy::print_stderr,
        reason = "this program has no other way to speak"
    )]
    {
        let cause = std::error::Error::source(&error);
        eprintln!(
            "outrigger launcher: {error}{}",
            cause.map(|c| format!(": {c}")).unwrap_or_default()
        );
    }
    Some(ExitCode::from(FAILED))
}

fn run(
    mut arguments: impl Iterator<Item = OsString>,
) -> Result<std::convert::Infallible, StepError> {
    let parent = arguments
        .next()
        .and_then(|parent| parent.to_str()?.parse().ok())
        .map(Pid::from_raw)
        .ok_or(StepError::Arguments)?;
    let program = arguments.next().ok_or(StepError::Arguments)?;

    // What the server has open (the log, the listener, other workers' pipes) must
    // not reach the program. Everything Rust opens is close-on-exec; this is for
    // the rest: descriptors that the server itself inherited or a library opened.
    mark_close_on_exec().map_err(StepError::Descriptors)?;

    // Its own session and process group: a terminal's Ctrl-C is for the server
    // alone, and the group can be signalled as a whole.
    setsid().map_err(StepError::Session)?;

    // The kernel ends the program when the server's launching thread ends, also
    // after SIGKILL. The parent may have died before the request: look again.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(StepError::ParentDeath)?;
    if getppid() != parent {
        return Err(StepError::Orphan);
    }

    // No setuid program gives back what was taken away.
    prctl::set_no_new_privs().map_err(StepError::NoNewPrivileges)?;

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
