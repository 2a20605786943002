//! When plugins run, on what, and what becomes of the result.
//!
//! Every enabled trigger has a task: one that follows the log, one that follows a
//! timetable, or one that answers requests. The task has the supervisor run the plugin,
//! and commits the plugin's lines, for the log's followers together with the moved
//! cursor. Nothing here is ever awaited by a writer.

mod backend;
mod dry_run;
mod last_good;
mod logs;
mod manager;
mod requests;
mod retry;
mod runner;
mod schedule;
mod service;
pub mod source;
pub mod spec;
pub mod timetable;
mod upload;
mod wal;
mod wording;

pub use backend::PluginBackend;
pub use dry_run::{Captures, DryEvent, DryRun, DryRunConfig, DryRunError, DryRunReport, DryRuns};
pub use logs::{PluginLogger, PluginLoggerTask};
pub use manager::{Config, ManagerTask};
pub use requests::{AnswerError, Routes};
pub use service::{CreateTrigger, Start, TriggerError, TriggerService};
pub use upload::UploadedFile;
