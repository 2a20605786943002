//! When plugins run, on what, and what becomes of the result.
//!
//! A trigger is a cursor over the log. Its task reads what lies behind the cursor,
//! has the supervisor run the plugin on it, and commits the plugin's lines together
//! with the moved cursor. Nothing here is ever awaited by a writer.

mod backend;
mod last_good;
mod logs;
mod manager;
mod retry;
mod service;
pub mod source;
pub mod spec;
mod wal;

pub use backend::PluginBackend;
pub use logs::{PluginLogger, PluginLoggerTask};
pub use manager::{Config, ManagerTask};
pub use service::{CreateTrigger, TriggerError, TriggerService};
