//! The server's side of starting a process.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use tokio::time::timeout;

use crate::{
    confinement::HostConfinement,
    report::LayerReport,
    running::{Running, StatusSocket},
    spawner,
    wire::{self, Request, Status, Streams},
};

/// How long the spawner may take for a fork, and the launcher for its steps. They take
/// milliseconds, unless somebody has stopped them.
const LAUNCH_MAX: Duration = Duration::from_secs(30);

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
    /// The layers it gets before it starts; only those that cost nothing if `None`.
    pub confinement: Option<HostConfinement>,
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
    /// What became of its layers. Empty if a step failed, which is said on its standard
    /// error; it ends with code 125.
    pub layers: Vec<LayerReport>,
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
    /// The spawner or the launcher does not answer.
    #[error("start {program}: the spawner has not done it within {LAUNCH_MAX:?}")]
    Late {
        /// What was to be started.
        program: PathBuf,
    },
}

/// Starts processes, by asking the [spawner](crate::spawner). Clones share it; it ends, with
/// all it has started, when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Launcher {
    spawner: Arc<Mutex<Spawner>>,
}

/// The server's end of the spawner.
#[derive(Debug)]
struct Spawner {
    child: Child,
    socket: OwnedFd,
}

impl Launcher {
    /// Starts the spawner.
    pub fn new() -> io::Result<Self> {
        let spawner = Arc::new(Mutex::new(Spawner::start()?));
        Ok(Self { spawner })
    }

    /// Starts a process.
    pub async fn launch(&self, request: Launch) -> Result<Launched, LaunchError> {
        let program = request.program.clone();
        let refused = |source| LaunchError::Start {
            program: program.clone(),
            source,
        };
        let starting = async {
            let asked = self.ask(request).map_err(refused)?;
            asked.launched().await.map_err(refused)
        };
        let launched = timeout(LAUNCH_MAX, starting).await;
        launched.unwrap_or(Err(LaunchError::Late { program }))
    }

    fn ask(&self, request: Launch) -> io::Result<Asked> {
        let (ours, theirs) = message_socket()?;
        set_nonblocking(&ours)?;
        let (stdout, theirs_out): (PipeReader, PipeWriter) = io::pipe()?;
        let (stderr, theirs_err): (PipeReader, PipeWriter) = io::pipe()?;
        let streams = Streams {
            status: theirs,
            stdout: theirs_out.into(),
            stderr: theirs_err.into(),
            stdin: request.stdin,
        };
        let confinement = request.confinement.as_ref();
        let request = Request {
            program: request.program.into(),
            arguments: request.arguments,
            environment: wire::environment(request.environment),
            directory: request.directory.into(),
            confinement: confinement.and_then(HostConfinement::plain),
        };
        let mut spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner);
        match wire::send_request(&spawner.socket, &request, &streams) {
            // It was killed, perhaps by a plugin that is not confined.
            Err(error) if has_ended(&error) => {
                *spawner = Spawner::start()?;
                wire::send_request(&spawner.socket, &request, &streams)?;
            }
            sent => sent?,
        }
        drop(spawner);
        Ok(Asked {
            status: StatusSocket::new(ours)?,
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }
}

impl Spawner {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where children are started"
    )]
    fn start() -> io::Result<Self> {
        let (ours, theirs) = message_socket()?;
        set_nonblocking(&ours)?;
        // Not the path of the binary: it may have been replaced since.
        let child = Command::new("/proc/self/exe")
            .arg(spawner::ARGUMENT)
            // For those who look at a list of processes.
            .arg(process::id().to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self {
            child,
            socket: ours,
        })
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // It ends by itself when its socket closes, and is reaped if it has already.
        drop(self.child.try_wait());
    }
}

fn has_ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// A request that is under way.
struct Asked {
    status: StatusSocket,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Asked {
    async fn launched(self) -> io::Result<Launched> {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        // The launcher may be faster than the spawner's answer.
        let mut early = Vec::new();
        let mut running = loop {
            match status.next().await? {
                Some((Status::Started { pid }, Some(keeper))) => {
                    break Running::new(pid, keeper, status);
                }
                Some((Status::Failed(why), _)) => return Err(io::Error::other(why)),
                Some((said, _)) => early.push(said),
                None => return Err(io::Error::other("the spawner has ended")),
            }
        };
        for said in early {
            running.note(said);
        }
        let layers = running.layers().await?;
        Ok(Launched {
            running,
            stdout,
            stderr,
            layers,
        })
    }
}

/// A pair of sockets whose messages arrive whole.
fn message_socket() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

fn set_nonblocking(socket: &impl AsFd) -> io::Result<()> {
    fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
