//! Runs plugins in worker processes.
//!
//! A *host* is a trusted Python process with the heavy modules loaded; it forks
//! *workers*. A worker is bound to one plugin for life and runs one *invocation*
//! at a time. What a plugin reads and writes, and where its log lines go, is the
//! [`Backend`]'s affair: this crate knows no databases and could serve another server.
//!
//! A worker is never trusted: everything it says is bounded, checked, and tied to
//! the invocation that it is running; whatever it does, it can be killed.

mod backend;
mod cache;
mod channel;
mod config;
mod confinement;
pub mod environment;
mod error;
mod family;
mod host;
mod invocation;
mod offers;
mod output;
mod passing;
mod peer;
mod pool;
mod private;
mod registry;
mod service;
mod status;
mod supervisor;
mod usage;
mod worker;

pub use backend::{
    Backend, BackendError, LogLevel, LogLine, QueryRequest, QueryStream, Scope, Value,
};
pub use config::{Config, PoolLimits};
pub use confinement::{Confinement, Grants};
pub use error::{ExitReason, HostError, InvocationError, PluginFailure, SupervisorError};
pub use invocation::{
    BindingKey, Concluded, Event, EventFile, EventTable, Finished, Invocation, InvocationId,
    Package, Phases, Plugin, Request, Response, Source, Usage,
};
pub use private::{PrivateMax, remove_tree};
pub use status::{BindingStatus, Deaths, PauseStatus, PoolStatus, RunningStatus, WorkerStatus};
pub use supervisor::Supervisor;
