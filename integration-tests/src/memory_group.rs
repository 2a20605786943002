//! A limit of memory for a story's processes, kept by the kernel: a control group.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Processes that have so much memory together. Removed when dropped; they should have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
}

impl MemoryGroup {
    /// Makes a group below this process's own. An error says why this machine does not let it.
    pub fn new(bytes_max: u64) -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let own = |mark: &str| {
            groups
                .lines()
                .find_map(|line| Some(line.split_once(mark)?.1))
        };
        let old = own(":memory:/").map(|own| Path::new("/sys/fs/cgroup/memory").join(own));
        let unified = own("0::/").map(|own| Path::new("/sys/fs/cgroup").join(own));
        let mut reasons = Vec::new();
        for (parent, file) in [(old, "memory.limit_in_bytes"), (unified, "memory.max")] {
            let Some(parent) = parent else { continue };
            match Self::make(&parent, file, bytes_max) {
                Ok(group) => return Ok(group),
                Err(error) => reasons.push(format!("{}: {error}", parent.display())),
            }
        }
        Err(format!("no group for memory can be made: {reasons:?}"))
    }

    fn make(parent: &Path, file: &str, bytes_max: u64) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outrigger-test-{}-{count}", std::process::id());
        let directory = parent.join(name);
        fs::create_dir(&directory)?;
        // From here on it is removed.
        let group = Self { directory };
        // Where memory is not handed down, the file is not there: nothing may make it.
        let mut limit = fs::File::options()
            .write(true)
            .open(group.directory.join(file))?;
        io::Write::write_all(&mut limit, bytes_max.to_string().as_bytes())?;
        Ok(group)
    }

    /// Puts a process into it, and whatever that starts from now on.
    pub fn add(&self, pid: u32) {
        let list = self.directory.join("cgroup.procs");
        fs::write(list, pid.to_string()).expect("a process can be moved below its own group");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It stays where processes are left, which somebody else complains of.
        drop(fs::remove_dir(&self.directory));
    }
}
