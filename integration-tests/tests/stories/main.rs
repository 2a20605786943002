//! What a user sees of the whole server: each story starts the real binary, uses it like any
//! client, and checks what came of it.
//!
//! Deliberately absent: what a unit test can show, and time as evidence.

mod asynchronous;
mod backups;
mod bad_input;
mod bounds;
mod caches;
mod clients;
mod command_line;
mod compaction;
mod crashes;
mod deletion;
mod dry_runs;
mod durability;
mod environment;
mod environment_faults;
mod escapes;
mod examples;
mod failures;
mod forgeries;
mod fuzz;
mod groups;
mod hostile;
mod installs;
mod line_builder;
mod liveness;
mod network;
mod object_stores;
mod observability;
mod packages;
mod parallel;
mod persisted;
mod plugin_api;
mod poisoned;
mod published;
mod repository;
mod requests;
mod retention;
mod sandbox;
mod schedules;
mod science;
mod spine;
mod startup;
mod supervisor_alone;
mod surface;
mod torture;
mod tracing;
mod triggers;
mod uploads;
mod workers;

use outrigger_integration_tests::{Builder, Server};

/// The binary that Cargo has built for these stories.
const BINARY: &str = env!("CARGO_BIN_EXE_server-under-test");

/// The plugin that the demo uses too.
const WRITE_REPORTS: &str = include_str!("../../../examples/write_reports.py");

/// A server as most stories want it.
fn server() -> Builder {
    Server::builder(BINARY)
}
