//! The words every other crate shares: names, ids, schemas, line protocol to
//! columns, byte sizes, clock, error kinds, shutdown phases, traces.
//!
//! Deliberately knows nothing about files, processes, networks or SQL.

pub mod bytes;
pub mod clock;
pub mod columns;
pub mod error;
pub mod ids;
pub mod line_protocol;
pub mod names;
pub mod schema;
pub mod shutdown;
pub mod trace;
