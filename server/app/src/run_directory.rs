//! The server's directory below the temporary one: its workers' socket and temporary files.
//!
//! It is removed when the server ends in order. A server that is killed leaves it behind, and the
//! next one to start removes it: while a server lives it holds a lock in its directory, which the
//! kernel releases when the process ends, however it does.

use std::{
    fs::{self, File, Metadata, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use outrigger_model::error::Report;
use tempfile::TempDir;
use tracing::{debug, info, warn};

/// How the directories' names begin.
const PREFIX: &str = "outrigger-";
/// What is locked. Directories without it were not made by a server.
const LOCK: &str = "server.lock";
/// What plugins get as `TMPDIR`.
const TEMPORARY: &str = "tmp";
const PRIVATE: u32 = 0o700;
/// Where workers have a user of their own, who goes through to its own directories.
const PASSABLE: u32 = 0o711;
/// How often another server may take a new directory for one that was left behind.
const ATTEMPTS: usize = 10;

/// A directory that no other server uses; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    // Removed while the lock is still held.
    directory: TempDir,
    _lock: File,
}

impl RunDirectory {
    /// Makes one in `parent`, and removes those of servers that have ended without doing so.
    pub(crate) fn make(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        for _ in 0..ATTEMPTS {
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(Permissions::from_mode(PRIVATE))
                .tempdir_in(parent)?;
            let path = directory.path().join(LOCK);
            let lock = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            // A server that starts at this moment may have found it before it was locked.
            if lock.try_lock().is_err() || !is_still_at(&lock, &path) {
                continue;
            }
            let temporary = directory.path().join(TEMPORARY);
            fs::create_dir(&temporary)?;
            fs::set_permissions(temporary, Permissions::from_mode(PRIVATE))?;
            return Ok(Self {
                directory,
                _lock: lock,
            });
        }
        Err(io::Error::other("other servers keep removing it"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What plugins leave in their temporary directory goes with the server.
    pub(crate) fn temporary(&self) -> std::path::PathBuf {
        self.directory.path().join(TEMPORARY)
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

/// Removes what servers have left that were killed. That it cannot is no reason not to start.
fn remove_abandoned(parent: &Path) {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) => {
            debug!(path = %parent.display(), error = %Report(&error), "cannot look for leftovers");
            return;
        }
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let Some(_lock) = take_over(&path) else {
            continue;
        };
        match remove(&path) {
            Ok(()) => info!(path = %path.display(), "removed what a killed server had left"),
            Err(error) => warn!(
                path = %path.display(),
                error = %Report(&error),
                "cannot remove what a killed server has left"
            ),
        }
    }
}

/// Plugins have made what is in it as they liked. What says that it is a server's goes last, so
/// that a later start finds what could not be removed.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            outrigger_supervisor::remove_tree(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    // It does not follow links.
    fs::remove_dir_all(directory)
}

/// The lock of a directory that a server of this user made which lives no more.
fn take_over(directory: &Path) -> Option<File> {
    let found = fs::symlink_metadata(directory).ok()?;
    let mode = found.mode() & 0o7777;
    if !found.is_dir() || !is_ours(&found) || ![PRIVATE, PASSABLE].contains(&mode) {
        return None;
    }
    let path = directory.join(LOCK);
    // Nobody but this user can put anything into it. A pipe must not block, nor a link lead out.
    let lock = File::options()
        .read(true)
        .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
        .open(&path)
        .ok()?;
    let opened = lock.metadata().ok()?;
    if !opened.is_file() || !is_ours(&opened) {
        return None;
    }
    match lock.try_lock() {
        Ok(()) => Some(lock),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => {
            debug!(path = %path.display(), error = %Report(&error), "cannot try a lock");
            None
        }
    }
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// As it looks once its server was killed.
    fn abandoned(parent: &Path, name: &str) -> std::path::PathBuf {
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(PRIVATE)).unwrap();
        fs::write(path.join(LOCK), "").unwrap();
        fs::write(path.join("supervisor.sock"), "").unwrap();
        path
    }

    #[test]
    fn what_a_killed_server_left_is_removed_and_what_a_living_one_has_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let dead = abandoned(parent.path(), "outrigger-dead");
        let living = RunDirectory::make(parent.path()).unwrap();
        assert!(!dead.exists());
        let other = RunDirectory::make(parent.path()).unwrap();
        assert!(living.temporary().is_dir() && other.temporary().is_dir());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
    }

    #[test]
    fn what_no_server_has_made_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let named = abandoned(parent.path(), "somebody-dead");
        let open = abandoned(parent.path(), "outrigger-open");
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let unlocked = abandoned(parent.path(), "outrigger-unlocked");
        fs::remove_file(unlocked.join(LOCK)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = abandoned(elsewhere.path(), "outrigger-target");
        symlink(&target, parent.path().join("outrigger-link")).unwrap();
        let linked = abandoned(parent.path(), "outrigger-linked");
        fs::remove_file(linked.join(LOCK)).unwrap();
        symlink(target.join(LOCK), linked.join(LOCK)).unwrap();
        fs::write(parent.path().join("outrigger-file"), "").unwrap();

        remove_abandoned(parent.path());
        for kept in [&named, &open, &unlocked, &target, &linked] {
            assert!(kept.join("supervisor.sock").exists(), "{}", kept.display());
        }
        assert!(parent.path().join("outrigger-file").exists());
    }

    #[test]
    fn what_plugins_have_made_unreadable_or_deep_goes_too() {
        let parent = tempfile::tempdir().unwrap();
        let dead = abandoned(parent.path(), "outrigger-dead");
        let mut deep = dead.join("workers");
        for _ in 0..300 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        let closed = dead.join("workers/closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("file"), "").unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        remove_abandoned(parent.path());
        assert!(!dead.exists());
    }

    #[test]
    fn links_in_what_is_removed_are_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "").unwrap();
        let dead = abandoned(parent.path(), "outrigger-dead");
        symlink(elsewhere.path(), dead.join("link")).unwrap();
        remove_abandoned(parent.path());
        assert!(!dead.exists());
        assert!(elsewhere.path().join("precious").exists());
    }
}
