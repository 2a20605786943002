//! Why there is no usable environment, or why nothing was installed into it; each with what
//! mends it.

use std::{io, path::PathBuf};

use outrigger_model::error::ErrorKind;

use super::{
    interpreter::{NEWEST, OLDEST},
    step::StepError,
};

/// Why there is no usable environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// It cannot be looked at.
    #[error("look at the virtual environment {location}")]
    Unreadable {
        /// The environment.
        location: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is in its place.
    #[error(
        "{location} is not a directory, so it cannot be the virtual environment: remove it, or \
         name another place with --virtual-env-location"
    )]
    NotDirectory {
        /// Its place.
        location: PathBuf,
    },
    /// Something else is in its directory.
    #[error(
        "{location} is not a virtual environment (it has no pyvenv.cfg) and is not empty: empty \
         it, or name another place with --virtual-env-location"
    )]
    NotEnvironment {
        /// Its place.
        location: PathBuf,
    },
    /// Its interpreter is not there, or is a link to one that is not.
    #[error(
        "the virtual environment {location} has lost its interpreter {python}: make it again with \
         `python3 -m venv --clear {location}`, which removes what is installed in it, and start \
         the server"
    )]
    NoInterpreter {
        /// The environment.
        location: PathBuf,
        /// The interpreter.
        python: PathBuf,
    },
    /// The interpreter that should make it does not run.
    #[error(
        "{python} does not run, so there can be no virtual environment: install Python \
         3.{OLDEST} to 3.{NEWEST} with its venv module (Debian: `apt install python3-venv`)"
    )]
    NoPython {
        /// The interpreter.
        python: PathBuf,
        /// What it says.
        source: StepError,
    },
    /// Its interpreter does not run.
    #[error(
        "the interpreter {python} of the virtual environment {location} does not run: make the \
         environment again with `python3 -m venv --clear {location}`, which removes what is \
         installed in it, and start the server"
    )]
    BrokenPython {
        /// The environment.
        location: PathBuf,
        /// The interpreter.
        python: PathBuf,
        /// What it says.
        source: StepError,
    },
    /// Plugins cannot run on this version.
    #[error(
        "{python} is Python {version}, but plugins need 3.{OLDEST} to 3.{NEWEST}: make the \
         virtual environment with such a one, for example with \
         `python3.{NEWEST} -m venv --clear {location}`, and start the server"
    )]
    Unsupported {
        /// The interpreter.
        python: PathBuf,
        /// Its version.
        version: String,
        /// The environment.
        location: PathBuf,
    },
    /// Nothing can be installed.
    #[error(
        "the virtual environment {location} has no pip: add it with `{python} -m ensurepip`, or \
         start the server with --disable-package-management"
    )]
    NoPip {
        /// The environment.
        location: PathBuf,
        /// The interpreter.
        python: PathBuf,
    },
    /// Packages are not managed by the server, and some that it needs are not there.
    #[error(
        "{python} lacks what plugins need, and package management is disabled: install it with \
         `{python} -m pip install {missing}`"
    )]
    Missing {
        /// The interpreter.
        python: PathBuf,
        /// Requirements, in quotes.
        missing: String,
    },
    /// It cannot be written to.
    #[error(
        "write {path}: the server's user must be able to write to the virtual environment; \
         --virtual-env-location names another place"
    )]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for the programs that make it.
    #[error("make a directory for programs that install")]
    Rooms(#[source] io::Error),
    /// A program failed.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// The environment was there when the server started, and is not any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the virtual environment {location} is gone: {python} does not exist any more; {remedy}")]
pub struct GoneError {
    pub(super) location: PathBuf,
    pub(super) python: PathBuf,
    pub(super) remedy: String,
}

/// Why packages were not installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The server runs no plugins.
    #[error("Plugin environment management is disabled")]
    NoPlugins,
    /// The operator does not want it.
    #[error(
        "Package installation has been disabled. Contact your administrator for more information."
    )]
    Disabled,
    /// Nothing was asked for.
    #[error("no package was named")]
    Nothing,
    /// A package cannot be called that.
    #[error("{package:?} is not a package: {problem}")]
    Package {
        /// What was asked for.
        package: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no such file of requirements.
    #[error("requirements file {location:?}: {problem}")]
    Requirements {
        /// The path as it was given.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The environment has gone.
    #[error(transparent)]
    Gone(#[from] GoneError),
    /// The environment cannot be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// pip failed.
    #[error("{0}")]
    Pip(StepError),
    /// Workers could not be started any more.
    #[error(
        "with these packages no plugin can run, because the plugin host does not load beside them \
         any more; {remedy}. {failure}"
    )]
    Breaks {
        /// What was done about it, or has to be.
        remedy: String,
        /// What the plugin host says.
        failure: StepError,
    },
    /// The server is ending.
    #[error("the installation was broken off")]
    BrokenOff,
}

impl InstallError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // pip mostly fails because of what was asked for; it does not say which it was.
            Self::NoPlugins
            | Self::Disabled
            | Self::Nothing
            | Self::Package { .. }
            | Self::Requirements { .. }
            | Self::Pip(StepError::Failed { .. })
            | Self::Breaks { .. } => ErrorKind::Invalid,
            Self::Pip(StepError::TooLong { .. }) => ErrorKind::Deadline,
            Self::Gone(_) | Self::BrokenOff => ErrorKind::Unavailable,
            Self::Environment(_) | Self::Pip(_) => ErrorKind::Internal,
        }
    }
}
