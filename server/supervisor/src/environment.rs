//! The virtual environment: makes it, installs the Python package that hosts and workers run,
//! and later what plugins need. The package is carried inside this binary as a wheel.

mod errand;
mod error;
mod foundation;
mod install;
mod interpreter;
mod step;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outrigger_sandbox::Launcher;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tracing::info;

pub(crate) use self::step::read_lines;
use self::{
    errand::{Rooms, Work, looking, read_by_all},
    interpreter::{Interpreter, PACKAGE, python_of},
};
pub use self::{
    error::{EnvironmentError, GoneError, InstallError},
    install::{Packages, Wanted},
    step::StepError,
};
use crate::{confinement::Confinement, private::remove_tree};

const WHEEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plugin_host.whl"));
const WHEEL_NAME: &str = env!("PLUGIN_HOST_WHEEL");
const VERSION: &str = env!("PLUGIN_HOST_VERSION");

/// Settings of pip that would have it install somewhere else.
const MISLEADING: [&str; 4] = ["PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER"];

/// How an environment is made and kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is, or is made.
    pub location: PathBuf,
    /// Whether the server makes it and installs into it.
    pub management: Management,
    /// The interpreter that makes it: a name in PATH, or a path.
    pub base_python: PathBuf,
    /// What pip gets as its environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Where plugins are: relative paths of requirements begin there.
    pub plugins: PathBuf,
    /// An existing directory of the server's own, for what does not outlive it.
    pub run_directory: PathBuf,
    /// The command by which operators install packages, for advice.
    pub install_command: &'static str,
    /// How long making it may take.
    pub create_max: Duration,
    /// How long an installation may take.
    pub install_max: Duration,
    /// How what runs in it is confined.
    pub confinement: Confinement,
}

/// Who looks after an environment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Management {
    /// The server does, with pip.
    Server,
    /// The operator does. The server takes what it finds.
    Operator,
}

/// An environment that plugins can run in. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct VirtualEnvironment {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    launcher: Launcher,
    rooms: Rooms,
    python: PathBuf,
    /// What Python reads there.
    readable: Vec<PathBuf>,
    /// Where the plugin host is, if it is not in the environment itself.
    host_path: Option<PathBuf>,
    /// Held by the installation that runs.
    turn: Arc<Mutex<()>>,
    /// Where installations run, whether or not somebody still waits for them.
    tasks: TaskTracker,
    installations: AtomicU64,
    /// How often an installation has changed what hosts have loaded.
    foundations: AtomicU64,
}

impl VirtualEnvironment {
    /// Makes sure that the environment exists and that the plugin host runs in it. Logs
    /// progress line by line. Installations will run on `tasks`.
    pub async fn prepare(
        mut config: Config,
        launcher: Launcher,
        tasks: TaskTracker,
    ) -> Result<Self, EnvironmentError> {
        for name in MISLEADING {
            config.environment.remove(&OsString::from(name));
        }
        let rooms = Rooms::open(&config.run_directory).map_err(EnvironmentError::Rooms)?;
        let preparation = Preparation {
            config: &config,
            launcher: &launcher,
            rooms: &rooms,
        };
        let Found {
            python,
            mut readable,
            host_path,
        } = match config.management {
            Management::Server => preparation.make().await?,
            Management::Operator => preparation.find().await?,
        };
        readable.extend(host_path.clone());
        info!(python = %python.display(), "virtual environment is ready");
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                launcher,
                rooms,
                python,
                readable,
                host_path,
                turn: Arc::default(),
                tasks,
                installations: AtomicU64::new(0),
                foundations: AtomicU64::new(0),
            }),
        })
    }

    /// Its interpreter.
    pub(crate) fn python(&self) -> &Path {
        &self.shared.python
    }

    /// What Python reads there.
    pub(crate) fn readable(&self) -> Vec<PathBuf> {
        self.shared.readable.clone()
    }

    /// Adds to a host's environment what it needs to find the plugin host.
    pub(crate) fn complete(&self, environment: &mut BTreeMap<OsString, OsString>) {
        let Some(host_path) = &self.shared.host_path else {
            return;
        };
        let mut path = host_path.clone().into_os_string();
        if let Some(inherited) = environment.get(&OsString::from("PYTHONPATH")) {
            path.push(":");
            path.push(inherited);
        }
        environment.insert("PYTHONPATH".into(), path);
    }

    /// How often something was installed: what could not be imported before, may be now.
    pub(crate) fn installations(&self) -> u64 {
        self.shared.installations.load(Ordering::Acquire)
    }

    /// Changes when an installation has changed what hosts have loaded: workers of before
    /// would mix two versions of it.
    pub(crate) fn foundations(&self) -> u64 {
        self.shared.foundations.load(Ordering::Acquire)
    }

    /// Whether it is still there.
    pub(crate) fn check(&self) -> Result<(), GoneError> {
        let Shared { config, python, .. } = &*self.shared;
        // A name in PATH is looked up by whoever starts it.
        if python.is_relative() || python.exists() {
            return Ok(());
        }
        let location = config.location.clone();
        let remedy = match config.management {
            Management::Server => format!(
                "remove what is left of {}, restart the server, which makes it again, and install \
                 what plugins need with `{}`",
                location.display(),
                config.install_command
            ),
            Management::Operator => format!(
                "make it again with `python3 -m venv --clear {}`, install what plugins need, and \
                 restart the server",
                location.display()
            ),
        };
        Err(GoneError {
            location,
            python: python.clone(),
            remedy,
        })
    }
}

/// In an environment that is being made.
const UNFINISHED: &str = ".outrigger-unfinished";

/// Removes all that is in an unfinished environment; what says that it is one goes last.
fn clear(location: &Path) -> io::Result<()> {
    for entry in fs::read_dir(location)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else if entry.file_name() != UNFINISHED {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(location.join(UNFINISHED))
}

fn not_writable(location: &Path, source: io::Error) -> EnvironmentError {
    EnvironmentError::NotWritable {
        path: location.to_owned(),
        source,
    }
}

/// What is done before there is an environment.
struct Preparation<'a> {
    config: &'a Config,
    launcher: &'a Launcher,
    rooms: &'a Rooms,
}

/// An environment that is there.
struct Found {
    python: PathBuf,
    readable: Vec<PathBuf>,
    host_path: Option<PathBuf>,
}

impl Preparation<'_> {
    /// Makes what is not there yet.
    async fn make(&self) -> Result<Found, EnvironmentError> {
        let location = &self.config.location;
        let python = python_of(location);
        if location.join(UNFINISHED).exists() {
            info!(location = %location.display(), "a start was ended while it made the virtual environment: removing what there is of it");
            clear(location).map_err(|source| not_writable(location, source))?;
        }
        if !has_interpreter(location)? {
            self.create().await?;
        }
        let readable = self.readable();
        let interpreter = self.ask_its(&python, &readable).await?;
        let found = Found {
            python: python.clone(),
            readable,
            host_path: None,
        };
        if interpreter.has("pip").is_none() {
            return Err(EnvironmentError::NoPip {
                location: location.clone(),
                python,
            });
        }
        if interpreter.has(PACKAGE) == Some(VERSION) && interpreter.missing().is_empty() {
            return Ok(found);
        }
        let version = VERSION;
        info!(version, "installing the plugin host");
        self.install_host(&found).await?;
        info!(version, "installed the plugin host");
        Ok(found)
    }

    /// What the Python of the environment reads.
    fn readable(&self) -> Vec<PathBuf> {
        let location = &self.config.location;
        let mut readable = foundation::of_environment(location);
        readable.push(location.clone());
        readable.extend(read_by_all(&self.config.environment));
        readable
    }

    /// Takes what is there; where there is no environment, Python as it is installed.
    async fn find(&self) -> Result<Found, EnvironmentError> {
        let location = &self.config.location;
        let (python, readable, interpreter) = if has_interpreter(location)? {
            let python = python_of(location);
            let readable = self.readable();
            let interpreter = self.ask_its(&python, &readable).await?;
            (python, readable, interpreter)
        } else {
            let (python, interpreter) = self.ask_base().await?;
            let readable = interpreter.reads().to_vec();
            (python, readable, interpreter)
        };
        let missing = interpreter.missing();
        if !missing.is_empty() {
            let quoted: Vec<_> = missing.iter().map(|need| format!("'{need}'")).collect();
            return Err(EnvironmentError::Missing {
                python,
                missing: quoted.join(" "),
            });
        }
        let mut found = Found {
            python,
            readable,
            host_path: None,
        };
        if interpreter.has(PACKAGE) != Some(VERSION) {
            found.host_path = Some(self.unpack_host(&found).await?);
        }
        Ok(found)
    }

    async fn create(&self) -> Result<(), EnvironmentError> {
        let Config {
            location,
            create_max,
            ..
        } = self.config;
        let (python, base) = self.ask_base().await?;
        info!(location = %location.display(), "making the virtual environment");
        let unfinished = location.join(UNFINISHED);
        let begun = fs::create_dir_all(location).and_then(|()| fs::write(&unfinished, ""));
        begun.map_err(|source| not_writable(location, source))?;
        let work = Work {
            what: "making the virtual environment",
            limit: *create_max,
            program: &python,
            arguments: vec!["-m".into(), "venv".into(), location.clone().into()],
            directory: Path::new("/"),
            read: base.reads().to_vec(),
            write: location,
            network: false,
        };
        let made = self.run(work).await;
        if made.is_err() {
            // Half of one would only be in the way; nothing else was there.
            drop(clear(location));
        } else {
            fs::remove_file(&unfinished).map_err(|source| not_writable(location, source))?;
        }
        made
    }

    /// Asks the operator's own Python, unconfined: nobody who installs packages has changed it,
    /// and it may be a script that looks for the real one anywhere. Returns that.
    async fn ask_base(&self) -> Result<(PathBuf, Interpreter), EnvironmentError> {
        let python = &self.config.base_python;
        let asked = Interpreter::ask(python, &self.config.environment, self.launcher, None).await;
        let interpreter = asked.map_err(|source| EnvironmentError::NoPython {
            python: python.clone(),
            source,
        })?;
        let interpreter = self.supported(python, interpreter)?;
        let found = interpreter.executable().unwrap_or(python).to_owned();
        Ok((found, interpreter))
    }

    async fn ask_its(
        &self,
        python: &Path,
        readable: &[PathBuf],
    ) -> Result<Interpreter, EnvironmentError> {
        let Config { environment, .. } = self.config;
        let confinement = Some(looking(self.config, readable));
        let asked = Interpreter::ask(python, environment, self.launcher, confinement).await;
        let interpreter = asked.map_err(|source| EnvironmentError::BrokenPython {
            location: self.config.location.clone(),
            python: python.to_owned(),
            source,
        })?;
        self.supported(python, interpreter)
    }

    fn supported(
        &self,
        python: &Path,
        interpreter: Interpreter,
    ) -> Result<Interpreter, EnvironmentError> {
        if interpreter.is_supported() {
            return Ok(interpreter);
        }
        Err(EnvironmentError::Unsupported {
            python: python.to_owned(),
            version: interpreter.version(),
            location: self.config.location.clone(),
        })
    }

    async fn install_host(&self, found: &Found) -> Result<(), EnvironmentError> {
        // Not in the environment, where what is installed could exchange it for a link.
        let wheel = self.config.run_directory.join(WHEEL_NAME);
        write(&wheel, WHEEL)?;
        let mut arguments = install::pip_install();
        arguments.push(wheel.clone().into());
        let mut read = found.readable.clone();
        read.push(wheel.clone());
        let work = Work {
            what: "installing the plugin host with pip",
            limit: self.config.install_max,
            program: &found.python,
            arguments,
            directory: Path::new("/"),
            read,
            write: &self.config.location,
            network: true,
        };
        let installed = self.run(work).await;
        // It is in the environment now, or will be written again.
        drop(fs::remove_file(&wheel));
        installed
    }

    /// Unpacks the plugin host into a directory that goes with the server.
    async fn unpack_host(&self, found: &Found) -> Result<PathBuf, EnvironmentError> {
        let wheel = self.config.run_directory.join(WHEEL_NAME);
        let path = self.config.run_directory.join("host");
        write(&wheel, WHEEL)?;
        fs::create_dir_all(&path).map_err(EnvironmentError::Rooms)?;
        let mut arguments: Vec<OsString> = vec!["-m".into(), "zipfile".into(), "-e".into()];
        arguments.extend([wheel.clone().into(), path.clone().into()]);
        let mut read = found.readable.clone();
        read.push(wheel);
        let work = Work {
            what: "unpacking the plugin host",
            limit: self.config.create_max,
            program: &found.python,
            arguments,
            directory: Path::new("/"),
            read,
            write: &path,
            network: false,
        };
        self.run(work).await?;
        Ok(path)
    }

    async fn run(&self, work: Work<'_>) -> Result<(), EnvironmentError> {
        self.rooms.run(work, self.config, self.launcher).await?;
        Ok(())
    }
}

/// Whether there is an environment; `false` if there is nothing at all.
fn has_interpreter(location: &Path) -> Result<bool, EnvironmentError> {
    let unreadable = |source| EnvironmentError::Unreadable {
        location: location.to_owned(),
        source,
    };
    let location = location.to_owned();
    match fs::metadata(&location) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(error)),
        Ok(found) if !found.is_dir() => return Err(EnvironmentError::NotDirectory { location }),
        Ok(_) => {}
    }
    let python = python_of(&location);
    if python.exists() {
        return Ok(true);
    }
    if fs::read_dir(&location)
        .map_err(unreadable)?
        .next()
        .is_none()
    {
        return Ok(false);
    }
    if location.join("pyvenv.cfg").exists() {
        return Err(EnvironmentError::NoInterpreter { location, python });
    }
    Err(EnvironmentError::NotEnvironment { location })
}

fn write(path: &Path, content: &[u8]) -> Result<(), EnvironmentError> {
    fs::write(path, content).map_err(|source| EnvironmentError::NotWritable {
        path: path.to_owned(),
        source,
    })
}
