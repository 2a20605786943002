//! HTTP and Flight SQL on one port.
//!
//! Turns requests into calls of storage, queries and triggers, and their answers and
//! errors into what existing clients expect. Deliberately decides nothing itself: what a
//! write, a query or a trigger means is known below.

mod error;
#[cfg(test)]
mod fixture;
mod flight;
mod http;
mod server;

pub use http::Metrics;
pub use server::{Api, Config, Deps, Instance};
