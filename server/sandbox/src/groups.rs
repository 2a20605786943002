//! Control groups: how are a worker and all that it starts bounded together, counted, and ended?
//!
//! A server has a *room*, a group below its own, in which each worker gets a group. Version 2 of
//! control groups has one hierarchy for everything; version 1 one for each controller, and then
//! there is a room in each. What this server may not have is said, and not taken from others:
//! see [`hierarchy`].
//!
//! A room is locked while its server lives. The kernel gives the lock back however that ends, and
//! the next server removes rooms that nobody holds.

mod directory;
mod hierarchy;
mod room;

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Pid, getpid};

use self::{directory::Directory, room::Room};
use crate::{
    machine::Machine,
    report::{Layer, LayerReport},
};

/// What a group bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Controller {
    Memory,
    Processes,
}

impl Controller {
    const ALL: [Self; 2] = [Self::Memory, Self::Processes];

    /// The kernel's name for it.
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
        }
    }
}

/// Which of the two interfaces a hierarchy has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    One,
    Two,
}

/// How much a worker and all that it starts may take together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GroupLimits {
    /// Bytes of memory, without swap.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What a group has used of memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupMemory {
    /// How many of its processes were killed because there was none left.
    pub kills: u64,
    /// The most that it may have.
    pub max: Option<u64>,
    /// The most that it has had.
    pub peak: Option<u64>,
}

/// Why a worker has no group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Whoever reported this process made it up.
    #[error("process {pid} is none of process {parent}'s")]
    Foreign {
        /// The process.
        pid: u32,
        /// Below which it was to be.
        parent: u32,
    },
    /// The kernel does not let it.
    #[error("{what}: {source}")]
    Refused {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// The groups that this server may make. All are removed when it is dropped.
#[derive(Debug, Default)]
pub struct Groups {
    rooms: Vec<Room>,
    /// What it cannot bound, and why.
    missing: Vec<(Controller, String)>,
    count: AtomicU64,
}

/// The group of one worker.
#[derive(Debug)]
pub struct Group {
    directories: Vec<Directory>,
}

impl Groups {
    /// Looks for what can be had on this machine, makes a room for this server, and removes those
    /// of servers that have ended without doing so. Call it before anything is started: where
    /// version 2 asks for it, this process moves into a group below its own. Blocks.
    pub fn make(machine: &Machine) -> Self {
        if let Some(why) = &machine.groups_missing {
            return Self::none(why);
        }
        Self::make_at(Path::new("/"), getpid())
    }

    /// No groups at all.
    pub fn none(why: &str) -> Self {
        let missing = Controller::ALL.map(|controller| (controller, why.to_owned()));
        Self {
            missing: missing.to_vec(),
            ..Self::default()
        }
    }

    fn make_at(root: &Path, own: Pid) -> Self {
        let mut groups = Self::default();
        for hierarchy in hierarchy::find(root, &mut groups.missing) {
            match Room::make(&hierarchy, own) {
                Ok(room) => groups.rooms.push(room),
                Err(why) => {
                    let lost = hierarchy.controllers.iter();
                    let lost = lost.map(|controller| (*controller, why.clone()));
                    groups.missing.extend(lost);
                }
            }
        }
        groups
    }

    /// What each worker's group is good for.
    pub fn report(&self) -> LayerReport {
        let Some((_, first)) = self.missing.first() else {
            return LayerReport::enforced(Layer::Cgroup);
        };
        let same = self.missing.iter().all(|(_, why)| why == first);
        if self.rooms.is_empty() && same {
            return LayerReport::degraded(Layer::Cgroup, first);
        }
        let missing = self.missing.iter();
        let missing = missing.map(|(controller, why)| format!("no {}: {why}", controller.name()));
        LayerReport::degraded(Layer::Cgroup, missing.collect::<Vec<_>>().join("; "))
    }

    /// Whether groups have a number of processes that they may have.
    pub fn bounds_processes(&self) -> bool {
        let mut rooms = self.rooms.iter();
        rooms.any(|room| room.controllers.contains(&Controller::Processes))
    }

    /// Puts a process into a group of its own; nothing where no group can be had. It must be below
    /// `parent`: what a host says of its workers is not believed. Blocks.
    ///
    /// # Errors
    /// If the process stays where it is.
    pub fn enter(
        &self,
        pid: u32,
        parent: u32,
        limits: GroupLimits,
    ) -> Result<Option<Group>, GroupError> {
        if self.rooms.is_empty() {
            return Ok(None);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("worker-{number}");
        let mut group = Group {
            directories: Vec::new(),
        };
        let foreign = GroupError::Foreign { pid, parent };
        if !is_below(pid, parent) {
            return Err(foreign);
        }
        let entered = self.rooms.iter().try_for_each(|room| {
            let directory = room.add(&name)?;
            let limited = directory.limit(&room.controllers, limits);
            let entered = limited.and_then(|()| directory.enter(pid));
            group.directories.push(directory);
            entered
        });
        // The number may have become another's meanwhile.
        let entered = entered.and_then(|()| is_below(pid, parent).then_some(()).ok_or(foreign));
        match entered {
            Ok(()) => Ok(Some(group)),
            Err(error) => {
                self.give_back(&group, pid);
                Err(error)
            }
        }
    }

    /// As if nothing had been.
    fn give_back(&self, group: &Group, pid: u32) {
        for (room, directory) in self.rooms.iter().zip(&group.directories) {
            // It may not have been there at all.
            if directory.has(pid) {
                drop(room.return_to_server(pid));
            }
            drop(directory.remove());
        }
    }
}

impl Group {
    /// What it has used of memory, where that is counted.
    pub fn memory(&self) -> Option<GroupMemory> {
        self.directories.iter().find_map(Directory::memory)
    }

    /// Kills what is left in it, and removes it. Blocks.
    ///
    /// # Errors
    /// If it stays.
    pub fn remove(&self) -> io::Result<()> {
        let removed = self.directories.iter().map(Directory::end);
        removed.fold(Ok(()), Result::and)
    }
}

/// Whether one process descends from another.
fn is_below(pid: u32, parent: u32) -> bool {
    /// A host's worker is two below its keeper; namespaces may add some.
    const DEPTH_MAX: usize = 8;
    let above = std::iter::successors(Some(pid), |pid| parent_of(*pid));
    // Whose parent is none of this system's says 0.
    let mut above = above.skip(1).take(DEPTH_MAX).filter(|pid| *pid != 0);
    above.any(|ancestor| ancestor == parent)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may have parentheses and spaces in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests;
