//! A disk that is soon full: a file system in memory, mounted in a directory of its own.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::process::command;

/// Unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// A disk of so many mebibytes; or why there is none: only who may mount has one.
    pub fn mount(mebibytes: usize) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={mebibytes}m");
        let mounted = command("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self { directory }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("start mount: {error}")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("make the ballast");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("remove the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let lazily = command("umount").arg("-l").arg(self.path()).status();
        let is_gone = lazily.is_ok_and(|status| status.success());
        assert!(is_gone || std::thread::panicking(), "unmount the disk");
    }
}
