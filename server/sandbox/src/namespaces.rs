//! Which namespaces does a program get before it starts?
//!
//! A host takes them, and its workers are born into them: so nobody below the launcher needs the
//! right to take any, or to mount. docs/decisions/0021 says why.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{getegid, geteuid},
};
use serde::{Deserialize, Serialize};

use crate::{
    report::{Layer, LayerReport},
    view::Mount,
};

/// How large the shared memory of a program without devices of its own is.
const SHARED_MEMORY: &str = "mode=1777,size=64m,nr_inodes=1024";
/// A cover holds only the directories in which other things are mounted.
const COVER: &str = "mode=755,size=1m,nr_inodes=4096";
const DEVICES: &str = "mode=755,size=64k,nr_inodes=64";

/// Devices that a worker finds.
const SHOWN_DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Where a host finds the machine's network figures: in its own network there are none.
pub(crate) const NETWORK_FIGURES: &str = "/dev/outrigger-network";
/// Links in `/dev`. Each process has its own shared memory: where its own descriptor with this
/// number leads. That is a directory that may be written, or there is none.
const LINKS: [(&str, &str); 5] = [
    ("shm", SHARED_MEMORY_LINK),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

const NUMBERS: &str = "the server and its hosts call workers by numbers that both must see";
const OUTSIDE: &str = "plugins connect from their own process";

const SHARED_MEMORY_LINK: &str = "/proc/self/fd/900";
const SHARED_MEMORY_DESCRIPTOR: RawFd = 900;

/// What a program takes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// What is mounted in that of mounts, in this order; all or nothing.
    pub(crate) mounts: Vec<Mount>,
    /// Whether it needs no network at all.
    pub(crate) network: bool,
    /// Why it takes none.
    pub(crate) missing: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum NamespaceError {
    #[error("{0}")]
    Unshare(#[source] Errno),
    #[error("a container's profile or this machine's settings forbid it")]
    Forbidden,
    #[error("be seen as oneself: {0}")]
    Dumpable(#[source] Errno),
    #[error("write {path}: {source}")]
    Map {
        path: &'static str,
        source: io::Error,
    },
    #[error("keep mounts to oneself: {0}")]
    Private(#[source] Errno),
    #[error("mount {path}: {source}")]
    Mount { path: PathBuf, source: io::Error },
    #[error("without a file tree of its own, a plugin would not see the machine's network figures")]
    Figures,
}

/// Takes what can be had. Nothing here is required: without privileges in a container,
/// nothing of it can be had.
pub(crate) fn enter(wanted: &Namespaces, root: bool) -> Vec<LayerReport> {
    let mut reports = vec![LayerReport::degraded(Layer::PidNamespace, NUMBERS)];
    if let Some(why) = &wanted.missing {
        let missing = |(layer, _)| LayerReport::degraded(layer, why);
        reports.extend(ALL.map(missing));
        return reports;
    }
    for (layer, take) in ALL {
        reports.push(match layer {
            // Root may take the others without, and gives up its capabilities afterwards.
            Layer::UserNamespace if root => LayerReport::off(layer),
            Layer::NetworkNamespace if !wanted.network => LayerReport::degraded(layer, OUTSIDE),
            _ => match take(wanted) {
                Ok(()) => LayerReport::enforced(layer),
                Err(error) => LayerReport::degraded(layer, error.to_string()),
            },
        });
    }
    reports
}

/// Has this process use a directory as its shared memory, where it has devices of its own; as
/// workers do in Python (`_shared_memory.py`).
pub(crate) fn share_memory(directory: &Path) -> io::Result<()> {
    let link = fs::read_link("/dev/shm");
    if !link.is_ok_and(|target| target == Path::new(SHARED_MEMORY_LINK)) {
        return Ok(());
    }
    let directory = look(directory)?;
    match fcntl(&directory, FcntlArg::F_DUPFD(SHARED_MEMORY_DESCRIPTOR)) {
        // Where fewer descriptors are allowed, there is no shared memory.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

type Take = fn(&Namespaces) -> Result<(), NamespaceError>;

/// In this order: the user's gives the right to the others, and figures of the network are
/// mounted before that is another one.
const ALL: [(Layer, Take); 5] = [
    (Layer::UserNamespace, |_| user()),
    (Layer::MountNamespace, |wanted| tree(&wanted.mounts)),
    (Layer::IpcNamespace, |_| take(CloneFlags::CLONE_NEWIPC)),
    (Layer::UtsNamespace, |_| take(CloneFlags::CLONE_NEWUTS)),
    (Layer::NetworkNamespace, |_| network()),
];

fn take(flags: CloneFlags) -> Result<(), NamespaceError> {
    unshare(flags).map_err(|error| match error {
        Errno::EPERM => NamespaceError::Forbidden,
        other => NamespaceError::Unshare(other),
    })
}

fn network() -> Result<(), NamespaceError> {
    // Else plugins that report them would report an empty machine.
    if !Path::new(NETWORK_FIGURES).exists() {
        return Err(NamespaceError::Figures);
    }
    take(CloneFlags::CLONE_NEWNET)
}

/// The user stays who it is: the server sees the same, and files belong to the same.
fn user() -> Result<(), NamespaceError> {
    let (user, group) = (geteuid(), getegid());
    take(CloneFlags::CLONE_NEWUSER)?;
    // What is in /proc belongs to root otherwise.
    prctl::set_dumpable(true).map_err(NamespaceError::Dumpable)?;
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{user} {user} 1")),
        ("/proc/self/gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(path, text).map_err(|source| NamespaceError::Map { path, source })?;
    }
    Ok(())
}

/// Makes the mounts; where one fails, takes back those before it.
fn tree(mounts: &[Mount]) -> Result<(), NamespaceError> {
    const NONE: Option<&str> = None;
    take(CloneFlags::CLONE_NEWNS)?;
    // What the operator mounts later comes in; what is mounted here does not get out.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .map_err(NamespaceError::Private)?;
    // As they are before the first mount.
    let sources = mounts.iter().map(|mount| match mount {
        Mount::Bind { path, source } => look(source).map(Some).map_err(failed(path)),
        Mount::Cover { .. } | Mount::Devices | Mount::SharedMemory => Ok(None),
    });
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    // Others than this user pass through the covers where the user changes later.
    let mask = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let mut made = Vec::new();
    let mut all = mounts.iter().zip(&sources);
    let done = all.try_for_each(|(wanted, source)| {
        put(wanted, source.as_ref(), &mut made).map_err(failed(wanted.path()))
    });
    let done = done.and_then(|()| mounts.iter().try_for_each(close));
    umask(mask);
    if done.is_err() {
        for path in made.into_iter().rev() {
            // What was mounted can be taken away again.
            let _: nix::Result<()> = umount2(&path, MntFlags::MNT_DETACH);
        }
    }
    done
}

impl Mount {
    fn path(&self) -> &Path {
        match self {
            Self::Cover { path } | Self::Bind { path, .. } => path,
            Self::Devices => Path::new("/dev"),
            Self::SharedMemory => Path::new("/dev/shm"),
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> NamespaceError {
    move |source| NamespaceError::Mount {
        path: path.to_owned(),
        source,
    }
}

fn look(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn put(wanted: &Mount, source: Option<&OwnedFd>, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let path = wanted.path();
    match (wanted, source) {
        (Mount::Bind { .. }, None) => {}
        (_, Some(source)) => {
            bind(source, path)?;
            made.push(path.to_owned());
        }
        (Mount::Cover { .. }, None) => {
            in_memory(path, COVER)?;
            made.push(path.to_owned());
        }
        (Mount::SharedMemory, None) => {
            in_memory(path, SHARED_MEMORY)?;
            made.push(path.to_owned());
        }
        (Mount::Devices, None) => devices(path, made)?,
    }
    Ok(())
}

fn in_memory(path: &Path, options: &str) -> nix::Result<()> {
    let kind = Some("tmpfs");
    mount(Some("outrigger"), path, kind, NOTHING, Some(options))
}

/// No setuid programs, devices, or programs at all. Holds for what is in the memory itself, and
/// not for what is mounted in it.
const NOTHING: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Mounts it, at a place that is made if it is not there: in a cover.
fn bind(source: &OwnedFd, path: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    if !path.exists() {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        if source.is_dir() {
            fs::create_dir(path)?;
        } else {
            File::create(path)?;
        }
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(&source), path, NONE, flags, NONE)?)
}

fn devices(path: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let shown = SHOWN_DEVICES.map(|name| path.join(name));
    let shown = shown.into_iter().filter(|device| device.exists());
    let shown = shown.map(|device| Ok((look(&device)?, device)));
    let mut shown = shown.collect::<io::Result<Vec<_>>>()?;
    shown.push((
        look(Path::new("/proc/self/net/dev"))?,
        NETWORK_FIGURES.into(),
    ));
    in_memory(path, DEVICES)?;
    // With all that is in it.
    made.push(path.to_owned());
    for (source, device) in &shown {
        bind(source, device)?;
    }
    for (name, target) in LINKS {
        symlink(target, path.join(name))?;
    }
    Ok(())
}

/// Makes it read-only, if it is to be.
fn close(wanted: &Mount) -> Result<(), NamespaceError> {
    const NONE: Option<&str> = None;
    if matches!(wanted, Mount::Bind { .. } | Mount::SharedMemory) {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | NOTHING;
    let closed = mount(NONE, wanted.path(), NONE, flags, NONE);
    closed.map_err(|error| failed(wanted.path())(error.into()))
}
