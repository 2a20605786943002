//! Starts processes so that they can neither outlive the server nor take more
//! than they were given.
//!
//! The server's process asks a [`Launcher`], which runs this same binary again as a
//! keeper, which ends whatever the new program leaves behind. That runs it once more, as
//! the [launcher program](launch::program), which takes away what the new program must not
//! have, step by step, and then becomes it. Knows nothing of databases or Python.
//!
//! What a program may touch is a [`Policy`]; what this [`Machine`] can enforce of it becomes
//! plain data, [`WorkerLayers`]; what the kernel really enforces is a list of
//! [`LayerReport`]s.

mod broker;
mod child;
mod keeper;
mod landlock;
pub mod launch;
mod launcher;
mod limits;
mod machine;
mod policy;
mod report;
mod worker;

pub use broker::{Broker, BrokerEvent, ConnectRules, Refusal, RefusalReason};
pub use child::{ChildExit, Running};
pub use launcher::{Launch, LaunchError, Launched, Launcher};
pub use machine::Machine;
pub use policy::{HostPort, HostPortError, Limits, Mode, Network, NetworkError, Policy};
pub use report::{Layer, LayerReport, State};
pub use worker::{LandlockRules, SeccompProgram, WorkerLayers};
