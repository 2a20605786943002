//! The group of one server, in which its workers' are.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::PathBuf,
};

use rustix::process::Pid;

use super::{
    Controller, GroupError, Version,
    directory::{Directory, refused},
    hierarchy::Hierarchy,
};

/// How the rooms' names begin.
const PREFIX: &str = "outrigger-server-";
/// Where a server is itself, in its room, where version 2 asks for it.
const SERVER: &str = "server";
/// How many rooms of the same process id may be left that cannot be removed.
const NAMES_MAX: u32 = 10;

/// A server's room in one hierarchy. Removed when dropped.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) controllers: Vec<Controller>,
    directory: Directory,
    /// The server's group as it was.
    outer: Directory,
    /// Where the server is, if not there.
    inner: Option<Directory>,
    _lock: File,
}

impl Room {
    /// Makes one, and removes those of servers that have ended.
    pub(super) fn make(hierarchy: &Hierarchy, own: Pid) -> Result<Self, String> {
        let outer = Directory {
            path: hierarchy.own.clone(),
            version: hierarchy.version,
        };
        if let Some(why) = hierarchy.forbidden(own) {
            return Err(why);
        }
        remove_abandoned(&outer);
        let (directory, lock) = make(&outer, own).map_err(|error| outline(&error))?;
        let mut room = Self {
            controllers: hierarchy.controllers.clone(),
            directory,
            outer,
            inner: None,
            _lock: lock,
        };
        if hierarchy.version == Version::Two {
            let handed = room.hand_down(own, hierarchy.is_root);
            // What was done is undone when it is dropped.
            handed.map_err(|error| outline(&error))?;
        }
        Ok(room)
    }

    /// Has the kernel bound groups in the room. Only the root may have processes and such groups.
    fn hand_down(&mut self, own: Pid, is_root: bool) -> Result<(), GroupError> {
        if !is_root {
            let inner = self.add(SERVER)?;
            self.inner = Some(inner.clone());
            inner.enter(own.as_raw_nonzero().get().cast_unsigned())?;
        }
        let names = self.controllers.iter();
        let names: Vec<_> = names.map(|it| format!("+{}", it.name())).collect();
        let names = names.join(" ");
        self.outer.set("cgroup.subtree_control", &names)?;
        self.directory.set("cgroup.subtree_control", &names)
    }

    /// Makes a group in it.
    pub(super) fn add(&self, name: &str) -> Result<Directory, GroupError> {
        let path = self.directory.path.join(name);
        fs::create_dir(&path).map_err(|error| refused("make", &path, error))?;
        Ok(Directory {
            path,
            version: self.directory.version,
        })
    }

    /// Moves a process to where the server is.
    pub(super) fn return_to_server(&self, pid: u32) -> Result<(), GroupError> {
        self.inner.as_ref().unwrap_or(&self.outer).enter(pid)
    }

    /// Moves the server out of it.
    fn leave(&self) -> Result<(), GroupError> {
        let Some(inner) = &self.inner else {
            return Ok(());
        };
        let names = self.controllers.iter();
        let names: Vec<_> = names.map(|it| format!("-{}", it.name())).collect();
        for directory in [&self.directory, &self.outer] {
            // Perhaps it came to none of it; what is in the way then says so below.
            drop(directory.set("cgroup.subtree_control", &names.join(" ")));
        }
        for pid in inner.processes().unwrap_or_default() {
            self.outer.enter(pid)?;
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Where it cannot leave, the next server finds the room and removes it.
        if self.leave().is_ok() {
            drop(self.directory.end());
        }
    }
}

fn make(outer: &Directory, own: Pid) -> Result<(Directory, File), GroupError> {
    let version = outer.version;
    let mut last = None;
    for number in 0..NAMES_MAX {
        let path = outer
            .path
            .join(format!("{PREFIX}{}-{number}", own.as_raw_nonzero()));
        match take(&path) {
            Ok(lock) => return Ok((Directory { path, version }, lock)),
            Err(error) => {
                let is_taken = error.kind() == ErrorKind::AlreadyExists;
                // Without the number, so that it is the same at each start.
                last = Some(refused("make a control group below", &outer.path, error));
                if !is_taken {
                    break;
                }
            }
        }
    }
    // There is at least one name.
    let none = || refused("use", &outer.path, ErrorKind::AlreadyExists.into());
    Err(last.unwrap_or_else(none))
}

fn take(path: &PathBuf) -> io::Result<File> {
    fs::create_dir(path)?;
    let lock = File::open(path)?;
    // Somebody who starts at this moment may have taken it for one that was left behind.
    lock.try_lock()
        .map_err(|_held| io::Error::from(ErrorKind::AlreadyExists))?;
    Ok(lock)
}

/// Ends what servers have left that were killed. What cannot be removed is no reason not to start.
fn remove_abandoned(outer: &Directory) {
    let Ok(entries) = fs::read_dir(&outer.path) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path()) else {
            continue;
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        let abandoned = Directory {
            path: entry.path(),
            version: outer.version,
        };
        drop(abandoned.end());
    }
}

fn outline(error: &GroupError) -> String {
    error.to_string()
}
