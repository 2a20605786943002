//! Starts processes so that they can neither outlive the server nor take more
//! than they were given.
//!
//! The server's process asks a [`Launcher`], which runs this same binary again as a
//! keeper, which ends whatever the new program leaves behind. That runs it once more, as
//! the [launcher program](launch::program), which takes away what the new program must not
//! have, step by step, and then becomes it. Knows nothing of databases or Python.

mod child;
mod keeper;
pub mod launch;
mod launcher;

pub use child::{ChildExit, Running};
pub use launcher::{Launch, LaunchError, Launched, Launcher};
