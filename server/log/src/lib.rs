//! The write-ahead log: the one ordered, durable record of what happened.
//!
//! Knows bytes and sequences, not tables: a record is a kind and a payload that
//! other crates give a meaning. Every state of the server is a [`View`] of the log,
//! made by the same code from entries just written and from entries replayed.

pub mod commit;
mod durable;
pub mod entry;
mod error;
mod metrics;
pub mod objects;
pub mod replay;
pub mod store;

use std::sync::Arc;

pub use error::LogError;
pub use metrics::Metrics;

use crate::entry::Entry;

/// Something that is derived from the log.
pub trait View: Send + Sync + 'static {
    /// Takes in the next entry. Called once per entry, in order, by one caller.
    ///
    /// # Errors
    /// The text says what in the entry could not be understood. In replay this
    /// stops the start; live it cannot happen, because the server wrote the entry itself.
    fn apply(&self, entry: Arc<Entry>) -> Result<(), String>;
}
