//! What is in a directory that an untrusted process may change at any moment: counted and
//! removed without following anything.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use nix::sys::stat::{FchmodatFlags, fchmodat};
use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, Uid, chownat, openat, renameat, statat, unlinkat},
    io::Errno,
};

use super::{DIRECTORY, PrivateMax};

/// How deep directories may be nested: each level costs a descriptor.
const DEPTH_MAX: usize = 64;
/// Bytes of a block in `stat`.
const BLOCK_BYTES: u64 = 512;

/// How much is in a directory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Size {
    pub(super) fn exceeds(self, max: PrivateMax) -> bool {
        self.bytes > max.bytes || self.files > max.files
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

/// Why nobody can say how much is in a directory.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unmeasurable {
    #[error("directories are nested more than {DEPTH_MAX} deep in it")]
    TooDeep,
    #[error("it cannot be read: {0}")]
    Unreadable(Errno),
}

/// Counts; stops once it is more than `max`.
pub(super) fn measure(directory: impl AsFd, max: PrivateMax) -> Result<Size, Unmeasurable> {
    let mut size = Size::default();
    add(directory.as_fd(), 0, max, &mut size)?;
    Ok(size)
}

fn add(
    directory: BorrowedFd<'_>,
    depth: usize,
    max: PrivateMax,
    size: &mut Size,
) -> Result<(), Unmeasurable> {
    for name in names(directory).map_err(Unmeasurable::Unreadable)? {
        if size.exceeds(max) {
            return Ok(());
        }
        // It may be gone meanwhile.
        let Ok(found) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let blocks = u64::try_from(found.st_blocks).unwrap_or(0);
        *size = size.plus(Size {
            bytes: blocks.saturating_mul(BLOCK_BYTES),
            files: 1,
        });
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            continue;
        }
        if depth == DEPTH_MAX {
            return Err(Unmeasurable::TooDeep);
        }
        match openat(directory, &name, DIRECTORY, Mode::empty()) {
            Ok(inner) => add(inner.as_fd(), depth + 1, max, size)?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(Unmeasurable::Unreadable(error)),
        }
    }
    Ok(())
}

/// Makes all that is in a directory this user's, but for files that have other names as well: who
/// has put them there may not have been confined, and they may be anybody's.
pub(super) fn give(directory: impl AsFd, owner: u32) -> rustix::io::Result<()> {
    give_below(directory.as_fd(), 0, owner)
}

fn give_below(directory: BorrowedFd<'_>, depth: usize, owner: u32) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
    for name in names(directory)? {
        let Ok(found) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if !is_directory && found.st_nlink > 1 {
            continue;
        }
        if is_directory && depth < DEPTH_MAX {
            let inner = openat(directory, &name, DIRECTORY, Mode::empty())?;
            give_below(inner.as_fd(), depth + 1, owner)?;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(directory, &name, Some(user), Some(group), flags)?;
    }
    Ok(())
}

/// Removes a directory and all that is in it, if it is there.
pub(super) fn remove(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    let top = match open_for_removal(parent, name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut moved = 0;
    loop {
        clear(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // What was too deep has been moved up, and has its turn now.
            Err(Errno::NOTEMPTY) if moved > 0 => moved = 0,
            Err(error) => return Err(error),
        }
    }
}

fn clear(
    directory: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    for name in names(directory)? {
        match unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            // What each says of a directory.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth == DEPTH_MAX {
            *moved += 1;
            move_up(directory, &name, top)?;
            continue;
        }
        let inner = open_for_removal(directory, &name)?;
        clear(inner.as_fd(), top, depth + 1, moved)?;
        match unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves a directory to the top under a name that is free.
fn move_up(from: BorrowedFd<'_>, name: &OsStr, top: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let to = format!(".outrigger-moved-{:032x}", rand::random::<u128>());
    renameat(from, name, top, to)
}

fn open_for_removal(
    parent: BorrowedFd<'_>,
    name: &OsStr,
) -> rustix::io::Result<rustix::fd::OwnedFd> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let mode = nix::sys::stat::Mode::S_IRWXU;
            // If it does not help, opening fails again.
            let _changed: nix::Result<()> =
                fchmodat(parent, name, mode, FchmodatFlags::NoFollowSymlink);
            openat(parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// What is in a directory, but for itself and its parent.
fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}
