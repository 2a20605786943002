//! Which namespaces does a program get before it starts?
//!
//! The host takes them, and its workers are born into them.

use std::{fs, io};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::prctl,
    unistd::{getegid, geteuid},
};

use crate::report::{Layer, LayerReport};

/// How large the private /dev/shm is.
const SHARED_MEMORY: &str = "mode=1777,size=64m,nr_inodes=1024";

/// Those that are never taken, and why.
const NOT_TAKEN: [(Layer, &str); 2] = [
    (
        Layer::PidNamespace,
        "the server and its hosts call workers by numbers that both must see",
    ),
    (
        Layer::NetworkNamespace,
        "plugins connect from their own process",
    ),
];

#[derive(Debug, thiserror::Error)]
enum NamespaceError {
    #[error("{0}")]
    Unshare(#[source] Errno),
    #[error("be seen as oneself: {0}")]
    Dumpable(#[source] Errno),
    #[error("write {path}: {source}")]
    Map {
        path: &'static str,
        source: io::Error,
    },
    #[error("keep mounts to oneself: {0}")]
    Private(#[source] Errno),
    #[error("mount a private /dev/shm: {0}")]
    SharedMemory(#[source] Errno),
}

/// Takes what can be had. Nothing here is required: without privileges in a container,
/// nothing of it can be had.
pub(crate) fn enter(root: bool) -> Vec<LayerReport> {
    let mut reports = Vec::new();
    let mut note = |layer, result: Result<(), NamespaceError>| {
        reports.push(match result {
            Ok(()) => LayerReport::enforced(layer),
            Err(error) => LayerReport::degraded(layer, error.to_string()),
        });
    };
    // Root may take the others without, and gives up its capabilities afterwards.
    note(Layer::UserNamespace, if root { Ok(()) } else { user() });
    note(Layer::MountNamespace, mounts());
    note(Layer::IpcNamespace, take(CloneFlags::CLONE_NEWIPC));
    note(Layer::UtsNamespace, take(CloneFlags::CLONE_NEWUTS));
    for (layer, why) in NOT_TAKEN {
        reports.push(LayerReport::degraded(layer, why));
    }
    if root {
        reports[0] = LayerReport::off(Layer::UserNamespace);
    }
    reports
}

fn take(flags: CloneFlags) -> Result<(), NamespaceError> {
    unshare(flags).map_err(NamespaceError::Unshare)
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

fn mounts() -> Result<(), NamespaceError> {
    const NONE: Option<&str> = None;
    take(CloneFlags::CLONE_NEWNS)?;
    // What the operator mounts later comes in; what is mounted here does not get out.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .map_err(NamespaceError::Private)?;
    // Nobody else's shared memory, and a limit for its own, which no other limit counts.
    mount(
        Some("outrigger"),
        "/dev/shm",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some(SHARED_MEMORY),
    )
    .map_err(NamespaceError::SharedMemory)
}
