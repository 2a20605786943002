//! What the `influxdb3` binary does, from the first instruction to the exit code.
//!
//! Deliberately absent: anything about how the server works (the app crate), and anything that
//! can be decided only by a server (names, trigger specifications, permissions).

mod args;
mod arguments;
mod client;
mod connection;
mod create;
mod delete;
mod environment;
mod format;
mod input;
mod install;
mod output;
mod plugin;
mod query;
mod quick_start;
mod report;
mod show;
mod switch;
mod test;
mod update;
mod write;

use std::{env, ffi::OsString, future::Future, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Command};

/// The C library's own keeps most of what snapshots and queries have used and given back
/// (decision 0022).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs the command that the process was started with.
///
/// The order matters: the launcher's hidden entry points come before everything else, and the
/// environment is completed before the arguments are parsed, because clap reads it. Both need a
/// process without threads, so the runtime starts last.
pub fn main() -> ExitCode {
    if let Some(code) = outrigger_app::run_internal_command() {
        return code;
    }
    if let Err(error) = environment::complete() {
        return report::failure(&error);
    }
    match parse(env::args_os().collect()) {
        Ok(command) => run(command),
        Err(error) => report::usage(&error),
    }
}

/// Reads the arguments; a bare `influxdb3` means `serve` with a derived node id.
fn parse(arguments: Vec<OsString>) -> Result<Command, clap::Error> {
    if let Some(command) = Cli::try_parse_from(&arguments)?.command {
        return Ok(command);
    }
    let program = arguments.into_iter().next().unwrap_or_default();
    let quick_start = Cli::try_parse_from(quick_start::arguments(program))?;
    Ok(quick_start
        .command
        .expect("`serve` was among the arguments"))
}

fn run(command: Command) -> ExitCode {
    let verb = command.verb();
    let result = match command {
        Command::Serve(serve) => return outrigger_app::serve(serve.args),
        Command::Query(query) => block_on(query.run()),
        Command::Write(write) => block_on(write.run()),
        Command::Create(create) => block_on(create.run()),
        Command::Show(show) => block_on(show.run()),
        Command::Delete(delete) => block_on(delete.run()),
        Command::Update(update) => block_on(update.run()),
        Command::Test(test) => block_on(test.run()),
        Command::Install(install) => block_on(install.run()),
        Command::Enable(enable) => block_on(enable.run(switch::Position::Enabled)),
        Command::Disable(disable) => block_on(disable.run(switch::Position::Disabled)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::command_failure(verb, &error),
    }
}

/// Runs a client command; one thread is plenty for one request at a time.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(command)
}
