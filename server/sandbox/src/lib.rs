//! Starts processes so that they can neither outlive the server nor take more
//! than they were given.
//!
//! The server's process asks a [`Launcher`], which runs this same binary again as the
//! [spawner](launch::program). That forks a keeper, which ends whatever the new program
//! leaves behind, and the keeper forks the launcher, which takes away what the new program
//! must not have, step by step, and then becomes it. Knows nothing of databases or Python.
//!
//! What a program may touch is a [`Policy`]; what this [`Machine`] can enforce of it becomes
//! plain data, [`WorkerLayers`]; what the kernel really enforces is a list of
//! [`LayerReport`]s.

mod apply;
mod broker;
mod confinement;
mod fork;
mod groups;
mod keeper;
mod landlock;
pub mod launch;
mod launcher;
mod limits;
mod machine;
mod namespaces;
mod policy;
mod readonly;
mod report;
mod running;
mod seccomp;
mod spawner;
mod trial;
mod user;
mod view;
mod wire;
mod worker;

pub use broker::{Broker, BrokerEvent, ConnectRules, Refusal, RefusalReason};
pub use confinement::{HostConfinement, Role};
pub use groups::{Group, GroupError, GroupLimits, GroupMemory, Groups};
pub use launcher::{Launch, LaunchError, Launched, Launcher};
pub use machine::Machine;
pub use policy::{HostPort, HostPortError, Limits, Mode, Network, NetworkError, Policy};
pub use report::{Layer, LayerReport, State};
pub use running::{ChildExit, Running};
pub use seccomp::{Allowed, SystemCall, system_calls};
pub use trial::{Attempt, NotStrict, Tier, Trial};
pub use view::View;
pub use worker::{LandlockRules, SeccompProgram, WorkerLayers};
