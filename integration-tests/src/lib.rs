//! How a story starts the real binary, talks to it like any client, and knows that it left
//! nothing behind.
//!
//! A [`Server`] listens on a port of its own and keeps its files in a temporary directory.
//! When it is dropped, it must end in order, its log must hold no warning or error that the
//! story did not allow, and no process that it started may be left.
//!
//! Deliberately absent: mocks, and anything that looks inside the server. What cannot be seen
//! from outside is tested beside the code.

mod client;
mod command_line;
mod database;
mod environments;
mod eventually;
mod leftovers;
mod log;
mod memory_group;
mod native;
mod object_stores;
mod process;
mod python;
mod readme;
mod receiver;
mod repository;
mod server;
mod small_disk;
mod wall_clock;
mod webhook;

pub use client::{Client, Reply};
pub use command_line::{CommandLine, Output};
pub use database::{Database, LogRow, TriggerBuilder};
pub use eventually::{PATIENCE, eventually};
pub use memory_group::MemoryGroup;
pub use native::compile;
pub use object_stores::{Cloud, CloudStore};
pub use python::{ClientScript, build_poisoned, build_wheel};
pub use readme::Readme;
pub use receiver::{Receiver, Span};
pub use repository::{Answer, Asked, PluginRepository};
pub use server::{Builder, Server, StartFailure};
pub use small_disk::SmallDisk;
pub use wall_clock::WallClock;
pub use webhook::{Post, Webhook};
