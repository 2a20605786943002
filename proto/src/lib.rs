//! The worker protocol as Rust types.
