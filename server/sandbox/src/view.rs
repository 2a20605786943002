//! What does a host, and with it each of its workers, see of the file tree, where it has one of
//! its own? Plain data, made in the server, so that what mounts it has nothing to decide.
//!
//! What no worker should even know to be there is covered: the server's directories, those of
//! users, sockets of other programs. What was granted below that is put back in its place. The
//! rest stays as it is, and so do the figures of its disks.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::namespaces::NETWORK_FIGURES;

/// What is covered beside what the server names, and why.
const COVERED: &[(&str, &str)] = &[
    ("/run", "sockets of other programs"),
    ("/tmp", "files of other programs"),
    ("/var/tmp", "as /tmp"),
];
/// The same, unless it is a disk of its own: what is asked of that would be wrong.
const COVERED_UNLESS_MOUNTED: &[(&str, &str)] = &[("/home", "users"), ("/root", "root")];

/// What a host's own file tree is made of.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is to be covered, with all that is in it.
    pub covered: Vec<PathBuf>,
    /// What remains to be seen below what is covered, beside what is granted.
    pub shown: Vec<PathBuf>,
}

/// Something to be mounted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Mount {
    /// An empty directory that cannot be changed, but for the places of mounts that follow.
    Cover { path: PathBuf },
    /// A part of the tree as it was before the first mount. In a cover, its place is made.
    Bind { path: PathBuf, source: PathBuf },
    /// `/dev`, with the devices alone that hold nothing; then come those that are granted.
    Devices,
    /// `/dev/shm`, empty, in memory.
    SharedMemory,
}

/// The mounts of a host, in order.
pub(crate) fn mounts(view: &View, granted: &[PathBuf]) -> Vec<Mount> {
    let shown = shown(&[granted, &view.shown].concat());
    let mut mounts = tree(covered(view), &shown);
    mounts.extend(devices(&shown));
    mounts
}

/// With those that are granted.
fn devices(shown: &Shown) -> Vec<Mount> {
    let whole = |path: &PathBuf| {
        let shared = path.starts_with("/dev/shm") || path.starts_with(NETWORK_FIGURES);
        shared || Path::new("/dev").starts_with(path)
    };
    if shown.keys().any(whole) {
        // What is granted must stay what it is.
        return vec![Mount::SharedMemory];
    }
    let granted = shown.iter().filter(|(path, _)| path.starts_with("/dev"));
    let granted = granted.map(|(path, source)| Mount::Bind {
        path: path.clone(),
        source: source.clone(),
    });
    [Mount::Devices].into_iter().chain(granted).collect()
}

/// Covers what is to be covered, and puts back what is shown below.
fn tree(covered: Vec<PathBuf>, shown: &Shown) -> Vec<Mount> {
    let mut covers: Vec<PathBuf> = Vec::new();
    for path in covered {
        let twice = covers.iter().any(|cover| path.starts_with(cover));
        // What is granted with all that is in it is so here too.
        let granted = shown.keys().any(|shown| path.starts_with(shown));
        if !twice && !granted {
            covers.push(path);
        }
    }
    let mut put_back: Vec<PathBuf> = Vec::new();
    let cover = |path: PathBuf| Mount::Cover { path };
    let mut mounts: Vec<Mount> = covers.iter().cloned().map(cover).collect();
    for (path, source) in shown {
        let hidden = covers.iter().any(|cover| path.starts_with(cover));
        let there = put_back.iter().any(|outer| path.starts_with(outer));
        if hidden && !there {
            put_back.push(path.clone());
            mounts.push(Mount::Bind {
                path: path.clone(),
                source: source.clone(),
            });
        }
    }
    mounts
}

/// What is to be seen at a path. Sorted, so that a directory comes before what is in it.
type Shown = BTreeMap<PathBuf, PathBuf>;

/// Where something granted is to be found, and what that is: once where it really is, and once
/// where it was said to be.
fn shown(granted: &[PathBuf]) -> Shown {
    let mut shown = BTreeMap::new();
    for path in granted {
        let Ok(real) = path.canonicalize() else {
            continue;
        };
        let plain = |part: Component<'_>| part != Component::ParentDir;
        if path.is_absolute() && path.components().all(plain) {
            shown.insert(path.clone(), real.clone());
        }
        shown.insert(real.clone(), real);
    }
    shown
}

/// Sorted, so that a directory comes before what is in it.
fn covered(view: &View) -> Vec<PathBuf> {
    let always = COVERED.iter().map(|(path, _why)| Path::new(path));
    let unless = COVERED_UNLESS_MOUNTED
        .iter()
        .map(|(path, _why)| Path::new(path));
    let unless = unless.filter(|path| !is_mounted(path));
    let named = view.covered.iter().map(PathBuf::as_path);
    let all = always.chain(unless).chain(named);
    let mut all: Vec<_> = all.filter_map(directory).collect();
    all.sort();
    all
}

fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    path.parent()
        .is_some_and(|parent| device(path) != device(parent))
}

/// Where a directory really is, if it is there.
fn directory(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    real.is_dir().then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mount below `root` in words: what covers it, or what is put back.
    fn words(root: &Path, mounts: &[Mount]) -> Vec<String> {
        let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let say = |mount: &Mount| match mount {
            Mount::Cover { path } if path.starts_with(root) => {
                Some(format!("{} is covered", name(path)))
            }
            Mount::Bind { path, source } if path.starts_with(root) => {
                Some(format!("{} is {}", name(path), name(source)))
            }
            _ => None,
        };
        mounts.iter().filter_map(say).collect()
    }

    #[test]
    fn what_is_granted_below_a_cover_is_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for name in ["data/kept/mine", "data/wal", "plugins", "v1/lib"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("v1"), root.join("data/current")).unwrap();
        let at = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
        let covered = || at(&["data", "data/kept", "v1"]);
        let granted = at(&["plugins", "data/kept", "data/current/lib", "missing"]);
        let expected = [
            "data is covered",
            "v1 is covered",
            "data/current/lib is v1/lib",
            "data/kept is data/kept",
            "v1/lib is v1/lib",
        ];
        assert_eq!(words(&root, &tree(covered(), &shown(&granted))), expected);
        let all = [vec![root.clone()], granted].concat();
        let none: Vec<String> = Vec::new();
        assert_eq!(words(&root, &tree(covered(), &shown(&all))), none);
    }

    #[test]
    fn devices_stay_where_some_are_granted() {
        let made = |granted: &[&str]| {
            devices(&shown(
                &granted.iter().map(PathBuf::from).collect::<Vec<_>>(),
            ))
        };
        assert_eq!(made(&[]), [Mount::Devices]);
        let granted = Mount::Bind {
            path: "/dev/zero".into(),
            source: "/dev/zero".into(),
        };
        assert_eq!(made(&["/usr", "/dev/zero"]), [Mount::Devices, granted]);
        for granted in ["/dev/shm", "/dev", "/"] {
            assert_eq!(made(&[granted]), [Mount::SharedMemory], "{granted}");
        }
    }
}
