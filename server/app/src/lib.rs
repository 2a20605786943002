//! The server put together: arguments, configuration, composition, ordered shutdown.

mod args;
mod compose;
mod config;
mod grants;
mod node;
mod plugin_environment;
mod remote_store;
mod run_directory;
mod sandbox;
mod serve;
mod telemetry;
mod traces;

use std::process::ExitCode;

pub use args::Args;
pub use serve::serve;

/// Runs the internal program that this process was started as, if it was: the
/// launcher. Call it first in `main`, before anything starts a thread.
pub fn run_internal_command() -> Option<ExitCode> {
    outrigger_sandbox::launch::program()
}
