//! Which databases, tables, columns and triggers exist: a view of the log.
//!
//! The [`Catalog`] is a plain value: the write path clones it, tries a [`CatalogChange`]
//! on the clone, and logs the change; everyone else reads the last published one.
//! Deliberately knows neither files nor rows.

pub mod change;
pub mod deletion;
mod error;
pub mod grants;
pub mod image;
pub mod progress;
pub mod state;
pub mod trigger;

pub use change::CatalogChange;
pub use error::CatalogError;
pub use state::{Catalog, Database, Table};
