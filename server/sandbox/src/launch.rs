//! The launcher: the steps between the [keeper](crate::keeper) and the program that the
//! server starts. Each has its reason and its own error; the order matters.

use std::{
    borrow::Cow,
    convert::Infallible,
    env,
    ffi::OsString,
    fs, io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getppid, setsid},
};

use crate::{
    apply::{self, Applied, Missing},
    confinement::Confinement,
    namespaces, readonly,
    report::{Layer, LayerReport},
    spawner::{self, SpawnError},
    trial, user,
    wire::{self, Request, Status, Streams},
};

/// The exit code of a launcher that could not go through.
const FAILED: u8 = 125;

/// In thousandths of the machine's memory that count as if it had them.
const OOM_SCORE_ADJ: &str = "500";

/// A step that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("take the standard streams")]
    Streams(#[source] io::Error),
    #[error("mark inherited descriptors close-on-exec")]
    Descriptors(#[source] io::Error),
    #[error("start a session")]
    Session(#[source] Errno),
    #[error("ask for the parent-death signal")]
    ParentDeath(#[source] Errno),
    #[error("the keeper has ended already")]
    Orphan,
    #[error("go to the directory {directory:?}")]
    Directory { directory: OsString, source: Errno },
    #[error("give up gaining privileges")]
    NoNewPrivileges(#[source] Errno),
    #[error("become user {user}")]
    User { user: u32, source: Errno },
    #[error("confine the program")]
    Confine(#[from] Missing),
    #[error("confine the program: {0}")]
    Unavailable(String),
    #[error("unblock signals")]
    Signals(#[source] Errno),
    #[error("say which layers there are")]
    Say(#[source] io::Error),
    #[error("execute {program:?}")]
    Execute {
        program: OsString,
        source: io::Error,
    },
}

/// Runs as the spawner, or as what tries layers out, if that is what this process was
/// started for; returns nothing if it was not. Call it first in `main`.
pub fn program() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let role = arguments.next()?;
    if role == trial::ARGUMENT {
        return Some(trial::run());
    }
    if role != spawner::ARGUMENT {
        return None;
    }
    match spawner::run() {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            complain(&error);
            Some(ExitCode::from(FAILED))
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "these programs have no other way to speak"
)]
fn complain(error: &SpawnError) {
    eprintln!("outrigger launcher: {}", apply::outline(error));
}

/// Becomes the program. All signals are blocked.
pub(crate) fn run(
    keeper: Pid,
    request: Request,
    streams: Streams,
) -> Result<Infallible, StepError> {
    // From here on, what goes wrong is said where the program would say it.
    take_streams(&streams).map_err(StepError::Streams)?;

    // What the server has open (the log, the listener, other workers' pipes) must
    // not reach the program. Everything Rust opens is close-on-exec; this is for
    // the rest: descriptors that a library opened.
    mark_close_on_exec().map_err(StepError::Descriptors)?;

    // Its own session and process group, which can be signalled as a whole.
    setsid().map_err(StepError::Session)?;

    // Where memory runs out, this and what it starts go before the server, which may be larger.
    // A kernel without the file does as it likes.
    drop(fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ));

    // The kernel ends the program when the keeper ends, also after SIGKILL. The
    // keeper may have died before the request: look again.
    end_with(keeper)?;

    // Before its files are restricted.
    let directory = request.directory;
    if let Err(source) = chdir(directory.as_os_str()) {
        return Err(StepError::Directory { directory, source });
    }

    // The keeper's are blocked, and a program inherits that.
    SigSet::empty()
        .thread_set_mask()
        .map_err(StepError::Signals)?;

    let mut reports = [Layer::Descriptors, Layer::Session, Layer::ParentDeath]
        .map(LayerReport::enforced)
        .to_vec();
    reports.extend(confine(keeper, request.confinement.as_ref())?);
    reports.push(LayerReport::enforced(Layer::Environment));
    reports.sort_by_key(|report| report.layer);
    wire::say(&streams.status, &Status::Layers(reports), None).map_err(StepError::Say)?;

    let mut command = command(&request.program);
    command.args(request.arguments);
    // None of the spawner's, which has none.
    command.env_clear().envs(request.environment);
    let source = command.exec();
    Err(StepError::Execute {
        program: request.program,
        source,
    })
}

/// The layers of docs/security.md, from the namespaces to the filter.
fn confine(keeper: Pid, confinement: Option<&Confinement>) -> Result<Vec<LayerReport>, StepError> {
    let Some(confinement) = confinement else {
        // No setuid program gives back what was taken away.
        prctl::set_no_new_privs().map_err(StepError::NoNewPrivileges)?;
        return Ok(vec![LayerReport::enforced(Layer::NoNewPrivileges)]);
    };
    let layers = &confinement.layers;
    if let Some(missing) = apply::required_and_missing(layers) {
        return Err(StepError::Unavailable(format!("{missing} is required")));
    }
    let mut reports = Vec::new();
    if confinement.namespaces {
        reports.extend(namespaces::enter(confinement.root));
    }
    let mut layers = Cow::Borrowed(layers);
    if !may_change_modes(confinement, &reports) {
        layers.to_mut().seccomp.clone_from(&confinement.cautious);
    }
    let layers = layers.as_ref();
    reports.push(become_user(keeper, &confinement.user)?);
    let mut applied = Applied::default();
    applied.first(layers)?;
    applied.last(layers)?;
    reports.extend(applied.reports);
    for (layer, why) in NOT_YET {
        reports.push(LayerReport::degraded(layer, why));
    }
    Ok(reports)
}

fn end_with(keeper: Pid) -> Result<(), StepError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(StepError::ParentDeath)?;
    if getppid() != keeper {
        return Err(StepError::Orphan);
    }
    Ok(())
}

/// After what only root can do.
fn become_user(keeper: Pid, user: &Result<u32, String>) -> Result<LayerReport, StepError> {
    match user {
        Err(why) => Ok(LayerReport::degraded(Layer::User, why)),
        Ok(user) => {
            // Files have been given to that user: as another, the program would not do.
            let user = *user;
            user::take(user).map_err(|source| StepError::User { user, source })?;
            // The kernel has forgotten it, as always when somebody becomes somebody else.
            end_with(keeper)?;
            Ok(LayerReport::enforced(Layer::User))
        }
    }
}

/// Whether its changes of modes stay among its own files, as far as that is needed.
fn may_change_modes(confinement: &Confinement, reports: &[LayerReport]) -> bool {
    let Some(writable) = &confinement.writable else {
        return true;
    };
    // Else the machine's own mounts would change.
    let apart = reports.contains(&LayerReport::enforced(Layer::MountNamespace));
    apart && readonly::all_but(writable).is_ok()
}

/// Layers that no program gets in this version, and why.
const NOT_YET: [(Layer, &str); 1] = [(Layer::Cgroup, "this version does not make control groups")];

fn take_streams(streams: &Streams) -> io::Result<()> {
    dup2_stderr(streams.stderr.as_fd())?;
    dup2_stdout(streams.stdout.as_fd())?;
    if let Some(stdin) = &streams.stdin {
        dup2_stdin(stdin.as_fd())?;
    }
    // Else it stays the spawner's, which is /dev/null.
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the launcher is how children are started"
)]
fn command(program: &OsString) -> Command {
    Command::new(program)
}

#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn mark_close_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: this changes flags of descriptors only; none is closed while in use.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
