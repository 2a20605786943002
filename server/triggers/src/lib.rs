//! When plugins run, on what, and what becomes of the result.
//!
//! Every enabled trigger has a task: one that follows the log (rows, or files), one that follows a
//! timetable, or one that answers requests. The task has the supervisor run the plugin,
//! and commits the plugin's lines, for the log's followers together with the moved
//! cursor. Nothing here is ever awaited by a writer.

mod account;
mod alarm;
mod backend;
mod board;
mod condition;
mod dry_run;
mod expression;
mod follower;
mod interest;
mod last_good;
mod listing;
mod logs;
mod manager;
mod metrics;
mod origin;
mod pinned;
mod plugin_files;
mod plugins;
mod repository;
mod requests;
mod retry;
mod runner;
mod schedule;
mod service;
pub mod source;
pub mod spec;
mod status;
mod tables;
mod timetable;
mod upload;
mod voice;
mod wording;

pub use backend::PluginBackend;
pub use board::Board;
pub use dry_run::{Captures, DryEvent, DryRun, DryRunConfig, DryRunError, DryRunReport, DryRuns};
pub use logs::{PluginLogger, PluginLoggerTask};
pub use manager::{Config, ManagerTask};
pub use metrics::Gauges;
pub use pinned::{PinnedError, PinnedSources};
pub use plugins::Plugins;
pub use repository::{FetchError, Repository, RepositoryUrl, RepositoryUrlError};
pub use requests::AnswerError;
pub use service::{CreateTrigger, Start, TriggerError, TriggerService};
pub use status::{Statuses, TriggerStatus};
pub use tables::live_tables;
pub use upload::UploadedFile;
