//! What lies below a directory, so that it can be said what has changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

/// A file or directory as an attempt could have changed it. Links are not followed.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    mode: u32,
    owner: u32,
    links: u64,
    modified: (i64, i64),
    bytes: Option<Vec<u8>>,
}

/// All that is below a directory, by path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Snapshot(BTreeMap<PathBuf, Entry>);

impl Snapshot {
    pub(super) fn take(directory: &Path) -> Self {
        let mut entries = BTreeMap::new();
        let mut left = vec![directory.to_owned()];
        while let Some(path) = left.pop() {
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            if metadata.is_dir() {
                let inner = fs::read_dir(&path).expect("it can be listed");
                left.extend(inner.filter_map(|entry| Some(entry.ok()?.path())));
            }
            let entry = Entry {
                mode: metadata.mode(),
                owner: metadata.uid(),
                // A directory's number of links says how many directories are in it.
                links: if metadata.is_dir() {
                    0
                } else {
                    metadata.nlink()
                },
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                bytes: metadata
                    .is_file()
                    .then(|| fs::read(&path).unwrap_or_default()),
            };
            entries.insert(path, entry);
        }
        Self(entries)
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Puts things back as they were: the next attempt is to find them so.
    pub(super) fn restore(&self, now: &Self) {
        for path in now.0.keys().filter(|path| !self.0.contains_key(*path)) {
            super::canaries::remove(path);
        }
        for (path, entry) in &self.0 {
            let Some(bytes) = &entry.bytes else { continue };
            fs::write(path, bytes).expect("write it again");
            let mode = fs::Permissions::from_mode(entry.mode & 0o7777);
            fs::set_permissions(path, mode).expect("set its mode");
            lchown(path, Some(entry.owner), None).expect("give it back");
        }
    }

    /// Says what is different now.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, before) in &self.0 {
            match now.0.get(path) {
                None => found.push(format!("{} is gone", path.display())),
                Some(after) if after != before => {
                    found.push(format!("{} has changed", path.display()));
                }
                Some(_) => {}
            }
        }
        let new = now.0.keys().filter(|path| !self.0.contains_key(*path));
        found.extend(new.map(|path| format!("{} is new", path.display())));
        found
    }
}

/// The names in a directory; nothing about what they are.
pub(super) fn names(directory: &Path) -> Vec<PathBuf> {
    let inner = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = inner.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.sort();
    names
}
