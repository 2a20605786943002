//! Starts processes so that they can neither outlive the server nor take more
//! than they were given.
//!
//! The server's process asks a [`Launcher`], which runs this same binary again as
//! the [launcher program](launch::program); that takes away what the new program
//! must not have, step by step, and then becomes it. Knows nothing of databases or Python.

mod child;
pub mod launch;
mod launcher;

pub use child::{ChildExit, Running};
pub use launcher::{Launch, LaunchError, Launched, Launcher};
