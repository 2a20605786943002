//! SQL over tables and system tables.
//!
//! Every query sees one consistent cut of one database. Read-only: nothing here can
//! change what is stored. Deliberately knows neither HTTP nor Flight.

mod catalog;
mod engine;
mod error;
mod file;
pub mod format;
mod live;
mod metrics;
mod param;
mod plan;
mod rows;
mod system;
mod table;

pub use engine::{Config, QueryEngine, TableInfo};
pub use error::{EngineError, QueryError};
pub use live::{LiveTable, LiveView};
pub use param::{Param, ParamError};
pub use plan::{BatchStream, Plan};
