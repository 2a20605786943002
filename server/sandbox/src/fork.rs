//! How does a process with one thread become two?

use nix::{
    errno::Errno,
    unistd::{self, ForkResult},
};

/// Forks. For the spawner and the keeper, which have one thread.
#[expect(unsafe_code, reason = "a fork of a process with threads is not sound")]
pub(crate) fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: this process has one thread, from its start on, so that no lock is held by
    // a thread that the child does not have.
    unsafe { unistd::fork() }
}
