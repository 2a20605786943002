//! Private directories: where workers may write, and nobody else.
//!
//! A worker can put anything into them, also links to what it must not reach, and can exchange
//! it at any moment. So this code holds descriptors of directories and never opens or changes
//! by path, nor follows a link, below the directories that it has made itself.

mod open;
mod tree;
mod watch;

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, fchown, fstat, mkdirat, open, openat,
        readlinkat, symlinkat, unlinkat,
    },
    io::Errno,
};

use nix::unistd::geteuid;

pub(crate) use self::watch::{Over, Watch, Watchee};

/// How a directory is opened that may have been exchanged for something else.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How much may be in a worker's private directories.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrivateMax {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files, directories and links.
    pub files: u64,
}

/// A directory that only the server can write to, with private directories in it.
#[derive(Debug)]
pub(crate) struct PrivateRoot {
    descriptor: OwnedFd,
    path: PathBuf,
    /// Whose the directories in it are, where there is a choice.
    owner: Option<u32>,
}

impl PrivateRoot {
    /// Opens it; makes it if it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_for(path, None)
    }

    /// The same for another user, who can go through it and no further than to directories of
    /// its own.
    pub(crate) fn open_for(path: &Path, user: Option<u32>) -> io::Result<Self> {
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        let ours = geteuid();
        Ok(Self {
            descriptor: open(path, DIRECTORY, Mode::empty())?,
            path: path.to_owned(),
            // Root takes back what it had given away when things were otherwise.
            owner: user.or(ours.is_root().then(|| ours.as_raw())),
        })
    }

    /// The private directory of this name; makes it if it is not there.
    pub(crate) fn make(&self, name: &str) -> io::Result<PrivateDirectory> {
        check_name(name)?;
        match mkdirat(&self.descriptor, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let descriptor = openat(&self.descriptor, name, DIRECTORY, Mode::empty())?;
        if let Some(owner) = self.owner
            && fstat(&descriptor)?.st_uid != owner
        {
            // What is in it first: if that fails, it is tried again.
            tree::give(&descriptor, owner)?;
            let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
            fchown(&descriptor, Some(user), Some(group))?;
        }
        Ok(PrivateDirectory {
            descriptor,
            path: self.path.join(name),
        })
    }

    /// Removes the private directory of this name and all that is in it, if it is there. No
    /// process may use it any more.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        Ok(tree::remove(&self.descriptor, OsStr::new(name))?)
    }

    /// The names of the private directories in it.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            let name = entry.file_name().to_str().map(str::to_owned);
            names.extend(name.ok().filter(|name| check_name(name).is_ok()));
        }
        Ok(names)
    }
}

/// Names are ours, but what is made of one must not depend on that.
fn check_name(name: &str) -> io::Result<()> {
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(plain) {
        return Ok(());
    }
    let text = format!("{name:?} cannot be the name of a private directory");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// A directory that the workers of one plugin can write to.
#[derive(Debug)]
pub(crate) struct PrivateDirectory {
    descriptor: OwnedFd,
    pub(crate) path: PathBuf,
}

impl PrivateDirectory {
    /// Has the entries of `real` appear in it, as links. What the plugin has made under the same
    /// name stays, and links of ours whose entry is gone go.
    pub(crate) fn link_entries(&self, real: &Path) -> io::Result<()> {
        for entry in fs::read_dir(real)? {
            let name = entry?.file_name();
            match symlinkat(real.join(&name), &self.descriptor, &name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for entry in Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if entry.file_type() != FileType::Symlink {
                continue;
            }
            let ours = real.join(name);
            let Ok(target) = readlinkat(&self.descriptor, name, Vec::new()) else {
                continue;
            };
            if target.to_bytes() == ours.as_os_str().as_bytes() && ours.symlink_metadata().is_err()
            {
                // The plugin may have removed it itself.
                let _gone: rustix::io::Result<()> =
                    unlinkat(&self.descriptor, name, AtFlags::empty());
            }
        }
        Ok(())
    }

    /// What is in it; stops counting beyond `max`.
    fn size(&self, max: PrivateMax) -> Result<tree::Size, tree::Unmeasurable> {
        tree::measure(&self.descriptor, max)
    }
}

/// Removes what workers may have put into `directory`, whatever it is, and the directory, if it is
/// there.
///
/// # Errors
///
/// Something in it cannot be removed.
pub fn remove_tree(directory: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        let text = format!("{} has no parent", directory.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let parent = open(parent, DIRECTORY, Mode::empty())?;
    Ok(tree::remove(&parent, name)?)
}

/// Keeps the file that a rule for `path` names the same: what `/proc` shows exists only as
/// long as somebody looks at it.
pub(crate) fn pin(path: &Path) -> Option<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests;
