//! How a program is run to its end: within its time, its output bounded, logged line by line.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outrigger_sandbox::{ChildExit, HostConfinement, Launch, LaunchError, Launcher};
use parking_lot::Mutex;
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};
use tracing::{debug, info};

use crate::output::{LineSplitter, Tail};

/// Why a program did not do what it was to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// There is no place for what it writes.
    #[error("make the directory {path} for a program that installs")]
    Room {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could not be started.
    #[error("run {program}")]
    Launch {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: LaunchError,
    },
    /// Its output could not be read.
    #[error("read the output of {program}")]
    Output {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It failed.
    #[error("{what} failed ({exit}); it said:\n{output}")]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// How it ended.
        exit: String,
        /// Its last lines.
        output: String,
    },
    /// It took too long and was ended.
    #[error("{what} took longer than {limit:?} and was ended; it said:\n{output}")]
    TooLong {
        /// What was to be done.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
        /// Its last lines.
        output: String,
    },
}

/// A program that runs to its end.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) what: &'static str,
    pub(super) limit: Duration,
    /// Whether what it says is progress that an operator wants to see.
    pub(super) shown: bool,
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: &'a BTreeMap<OsString, OsString>,
    pub(super) directory: &'a Path,
    /// What it may touch; nothing but its own is in its way if `None`: for what nobody can have
    /// changed who installs packages.
    pub(super) confinement: Option<HostConfinement>,
}

impl Step<'_> {
    /// Runs it; returns the last lines of what it printed.
    pub(super) async fn run(self, launcher: &Launcher) -> Result<Vec<String>, StepError> {
        let launched = launcher
            .launch(Launch {
                program: self.program.to_owned(),
                arguments: self.arguments,
                environment: self.environment.clone(),
                directory: self.directory.to_owned(),
                stdin: None,
                confinement: self.confinement,
            })
            .await
            .map_err(|source| StepError::Launch {
                program: self.program.to_owned(),
                source,
            })?;
        let unreadable = |source| StepError::Output {
            program: self.program.to_owned(),
            source,
        };
        let stdout = pipe::Receiver::from_owned_fd(launched.stdout).map_err(unreadable)?;
        let stderr = pipe::Receiver::from_owned_fd(launched.stderr).map_err(unreadable)?;
        let mut running = launched.running;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (what, shown) = (self.what, self.shown);
        let said = |line: String| {
            if shown {
                info!(line, "{what}");
            } else {
                debug!(line, "{what}");
            }
            tail.lock().push(line);
        };
        let end = async {
            tokio::join!(
                read_lines(stdout, said),
                read_lines(stderr, said),
                running.wait()
            )
            .2
        };
        let exit = timeout(self.limit, end).await;
        let lines = tail.lock().lines();
        let exit = match exit {
            Ok(ChildExit::Code(0)) => return Ok(lines),
            Ok(ChildExit::Code(code)) => format!("exit code {code}"),
            Ok(ChildExit::Signal(signal)) => format!("signal {signal}"),
            // Dropping it ends it.
            Err(_elapsed) => {
                return Err(StepError::TooLong {
                    what,
                    limit: self.limit,
                    output: lines.join("\n"),
                });
            }
        };
        Err(StepError::Failed {
            what,
            exit,
            output: lines.join("\n"),
        })
    }
}

/// Passes every line on until the pipe is closed.
pub(crate) async fn read_lines(mut pipe: pipe::Receiver, mut said: impl FnMut(String)) {
    let mut splitter = LineSplitter::default();
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        splitter
            .push(&buffer[..count])
            .into_iter()
            .for_each(&mut said);
    }
    splitter.finish().into_iter().for_each(&mut said);
}
