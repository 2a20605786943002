//! The virtual environment: makes it, and installs the Python package that hosts
//! and workers run. The package is carried inside this binary as a wheel.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outrigger_sandbox::{ChildExit, Launch, LaunchError, Launcher};
use parking_lot::Mutex;
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};
use tracing::info;

use crate::output::{LineSplitter, Tail};

const WHEEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plugin_host.whl"));
const WHEEL_NAME: &str = env!("PLUGIN_HOST_WHEEL");
const VERSION: &str = env!("PLUGIN_HOST_VERSION");

/// In a virtual environment: the version of the package that was installed.
const STAMP: &str = ".outrigger-plugin-host";

/// How an environment is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is, or is made.
    pub location: PathBuf,
    /// The interpreter that makes it: a name in PATH, or a path.
    pub base_python: PathBuf,
    /// What pip gets as its environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// How long making it may take.
    pub create_max: Duration,
    /// How long the installation may take.
    pub install_max: Duration,
}

/// Why there is no usable environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A file could not be read or written.
    #[error("write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started.
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
    /// A program failed.
    #[error("{what} failed ({exit}); it said:\n{output}")]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// How it ended.
        exit: String,
        /// Its last lines.
        output: String,
    },
    /// A program took too long and was ended.
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

/// Makes sure that the environment exists and has this server's package; returns
/// its interpreter. Logs progress line by line.
pub async fn prepare(config: &Config, launcher: &Launcher) -> Result<PathBuf, EnvironmentError> {
    let python = config.location.join("bin/python");
    if !python.exists() {
        info!(location = %config.location.display(), "making the virtual environment");
        let arguments = [
            OsString::from("-m"),
            "venv".into(),
            config.location.clone().into(),
        ];
        let step = Step {
            what: "making the virtual environment",
            limit: config.create_max,
        };
        step.run(config, launcher, &config.base_python, &arguments)
            .await?;
    }
    let stamp = config.location.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == VERSION) {
        return Ok(python);
    }
    info!(
        version = VERSION,
        "installing the plugin host into the virtual environment"
    );
    install(config, launcher, &python).await?;
    write(&stamp, VERSION.as_bytes())?;
    info!(version = VERSION, "installed the plugin host");
    Ok(python)
}

async fn install(
    config: &Config,
    launcher: &Launcher,
    python: &Path,
) -> Result<(), EnvironmentError> {
    let wheel = config.location.join(WHEEL_NAME);
    write(&wheel, WHEEL)?;
    let options = "-m pip install --no-input --disable-pip-version-check --progress-bar off \
                   --timeout 30 --retries 2";
    let mut arguments: Vec<OsString> = options.split_whitespace().map(Into::into).collect();
    arguments.push(wheel.clone().into());
    let step = Step {
        what: "installing the plugin host with pip",
        limit: config.install_max,
    };
    let installed = step.run(config, launcher, python, &arguments).await;
    // It is in the environment now, or will be written again.
    drop(fs::remove_file(&wheel));
    installed
}

fn write(path: &Path, content: &[u8]) -> Result<(), EnvironmentError> {
    fs::write(path, content).map_err(|source| EnvironmentError::File {
        path: path.to_owned(),
        source,
    })
}

/// A program that runs to its end.
struct Step {
    what: &'static str,
    limit: Duration,
}

impl Step {
    async fn run(
        &self,
        config: &Config,
        launcher: &Launcher,
        program: &Path,
        arguments: &[OsString],
    ) -> Result<(), EnvironmentError> {
        let launched = launcher
            .launch(Launch {
                program: program.to_owned(),
                arguments: arguments.to_vec(),
                environment: config.environment.clone(),
                directory: PathBuf::from("/"),
                stdin: None,
            })
            .await
            .map_err(|source| EnvironmentError::Launch {
                program: program.to_owned(),
                source,
            })?;
        let unreadable = |source| EnvironmentError::Output {
            program: program.to_owned(),
            source,
        };
        let stdout = pipe::Receiver::from_owned_fd(launched.stdout).map_err(unreadable)?;
        let stderr = pipe::Receiver::from_owned_fd(launched.stderr).map_err(unreadable)?;
        let mut running = launched.running;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let said = |line: String| {
            info!(line, "{}", self.what);
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
        let output = tail.lock().lines().join("\n");
        match exit {
            Ok(ChildExit::Code(0)) => Ok(()),
            Ok(exit) => {
                let exit = match exit {
                    ChildExit::Code(code) => format!("exit code {code}"),
                    ChildExit::Signal(signal) => format!("signal {signal}"),
                };
                Err(EnvironmentError::Failed {
                    what: self.what,
                    exit,
                    output,
                })
            }
            // Dropping it ends it.
            Err(_elapsed) => Err(EnvironmentError::TooLong {
                what: self.what,
                limit: self.limit,
                output,
            }),
        }
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
