//! The server's side of starting a process.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

use crate::{child::Running, keeper};

/// What to start.
#[derive(Debug)]
pub struct Launch {
    /// An absolute path, or a name that is looked up in PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Its standard input; /dev/null if `None`.
    pub stdin: Option<OwnedFd>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Launched {
    /// Ends it when dropped.
    pub running: Running,
    /// The reading end of its standard output.
    pub stdout: OwnedFd,
    /// The reading end of its standard error.
    pub stderr: OwnedFd,
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The operating system refused.
    #[error("start {program}")]
    Start {
        /// What was to be started.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The launching thread is gone.
    #[error("the launching thread has ended")]
    Gone,
}

type Request = (Launch, oneshot::Sender<Result<Launched, LaunchError>>);

/// Starts processes. Clones share one thread.
///
/// A single thread that lives as long as the server does all the starting, because
/// the parent-death signal comes when the *thread* ends that started a process.
#[derive(Clone, Debug)]
pub struct Launcher {
    requests: mpsc::Sender<Request>,
}

impl Launcher {
    /// Starts the launching thread.
    pub fn new() -> io::Result<Self> {
        let executable = std::env::current_exe()?;
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || {
                for (request, reply) in inbox {
                    let program = request.program.clone();
                    let launched = start(&executable, request)
                        .map_err(|source| LaunchError::Start { program, source });
                    // Dropping a process that nobody waits for any more ends it.
                    drop(reply.send(launched));
                }
                // The server has dropped its last handle: it ends, and so may its children.
            })?;
        Ok(Self { requests })
    }

    /// Starts a process.
    pub async fn launch(&self, request: Launch) -> Result<Launched, LaunchError> {
        let (reply, launched) = oneshot::channel();
        self.requests
            .send((request, reply))
            .or(Err(LaunchError::Gone))?;
        launched.await.unwrap_or(Err(LaunchError::Gone))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where children are started"
)]
fn start(executable: &Path, request: Launch) -> io::Result<Launched> {
    let mut child = Command::new(executable)
        .arg(keeper::ARGUMENT)
        .arg(process::id().to_string())
        .arg(&request.program)
        .args(&request.arguments)
        .env_clear()
        .envs(&request.environment)
        .current_dir(&request.directory)
        .stdin(request.stdin.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let closed = || io::Error::other("a pipe of the new process is missing");
    let stdout = child.stdout.take().ok_or_else(closed)?.into();
    let stderr = child.stderr.take().ok_or_else(closed)?.into();
    Ok(Launched {
        running: Running::watch(child)?,
        stdout,
        stderr,
    })
}
