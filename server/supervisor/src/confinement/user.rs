//! Whose processes are hosts and workers, where the server is root?
//!
//! Nobody's else, if possible: of a user that has nothing but what workers are given. All that
//! they are to reach must then be open to any user.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use outrigger_sandbox::Mode;

use crate::config::Config;

/// What others may do with a file or directory: reading (and entering), changing.
const READ: u32 = 0o4;
const ENTER: u32 = 0o1;
const CHANGE: u32 = 0o2;

/// Which user workers are; or why they are the server's.
pub(crate) fn of_workers(config: &Config) -> Result<u32, String> {
    let settings = &config.confinement;
    if settings.mode == Mode::Off {
        return Err("the sandbox is off".to_owned());
    }
    let user = settings.machine.own_user()?;
    if !(settings.machine.has_seccomp() && settings.machine.has_notification()) {
        return Err("without the broker, workers need the server's own socket".to_owned());
    }
    let mut read = config.virtual_environment.readable();
    // Made with the same modes as all others in it.
    read.extend(read.clone().iter().map(|path| path.join("pyvenv.cfg")));
    read.extend(settings.read.iter().cloned());
    // That one is opened for them.
    read.retain(|path| !path.starts_with(&config.run_directory));
    let reads = read.iter().map(|path| (path.as_path(), READ));
    let writes = settings.write.iter();
    let writes = writes.map(|path| (path.as_path(), READ | CHANGE));
    let parents = [settings.kept.as_path(), &config.run_directory].map(Path::parent);
    let parents = parents.into_iter().flatten().map(|path| (path, ENTER));
    for (path, wanted) in reads.chain(writes).chain(parents) {
        if let Some(closed) = closed(path, wanted) {
            return Err(format!("{} is closed to other users", closed.display()));
        }
    }
    Ok(user)
}

/// What keeps others from using a path like this.
fn closed(path: &Path, wanted: u32) -> Option<PathBuf> {
    // What is not there yet is made with ordinary modes.
    let path = path.ancestors().find_map(|path| path.canonicalize().ok())?;
    let lacks = |path: &Path, wanted: u32| {
        fs::metadata(path).is_ok_and(|found| {
            let enter = if found.is_dir() { ENTER } else { 0 };
            let wanted = wanted | enter;
            found.permissions().mode() & wanted != wanted
        })
    };
    if lacks(&path, wanted) {
        return Some(path);
    }
    let mut above = path.ancestors().skip(1);
    above.find(|path| lacks(path, ENTER)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_closed_directory_on_the_way_is_enough() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let root = directory.path().canonicalize().unwrap();
        let inner = root.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in [&root, &root.join("a"), &inner] {
            mode(path, 0o755);
        }
        assert_eq!(closed(&inner, READ), None);
        assert_eq!(closed(&inner.join("later"), ENTER), None);
        assert_eq!(closed(&inner, READ | CHANGE), Some(inner.clone()));
        mode(&inner, 0o711);
        assert_eq!(closed(&inner, READ), Some(inner.clone()));
        assert_eq!(closed(&inner, ENTER), None);
        mode(&root.join("a"), 0o700);
        assert_eq!(closed(&inner, ENTER), Some(root.join("a")));
    }
}
