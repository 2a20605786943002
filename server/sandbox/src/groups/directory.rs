//! What can be done with one control group, which is a directory?

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Controller, GroupError, GroupLimits, GroupMemory, Version};

/// How long processes that were killed may take to leave.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// How often to look.
const LOOK: Duration = Duration::from_millis(2);

/// A group.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

impl Directory {
    /// Bounds it.
    pub(super) fn limit(
        &self,
        controllers: &[Controller],
        limits: GroupLimits,
    ) -> Result<(), GroupError> {
        let GroupLimits {
            memory_bytes,
            processes,
        } = limits;
        for controller in controllers {
            match (controller, memory_bytes, processes) {
                (Controller::Memory, Some(bytes), _) => self.limit_memory(bytes)?,
                (Controller::Processes, _, Some(count)) => {
                    self.set("pids.max", &count.to_string())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), GroupError> {
        let bytes = bytes.to_string();
        match self.version {
            Version::Two => {
                self.set("memory.max", &bytes)?;
                self.set_if_there("memory.swap.max", "0")?;
                // What it has started cannot go on without it.
                self.set_if_there("memory.oom.group", "1")
            }
            Version::One => {
                self.set("memory.limit_in_bytes", &bytes)?;
                // Memory and swap together, so that there is none.
                self.set_if_there("memory.memsw.limit_in_bytes", &bytes)
            }
        }
    }

    /// Moves a process into it, and whatever that starts from now on.
    pub(super) fn enter(&self, pid: u32) -> Result<(), GroupError> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Writes one of its files.
    pub(super) fn set(&self, file: &str, value: &str) -> Result<(), GroupError> {
        self.write(file, value)
            .map_err(|source| GroupError::Refused {
                what: format!("write {value} to {}", self.path.join(file).display()),
                source,
            })
    }

    fn set_if_there(&self, file: &str, value: &str) -> Result<(), GroupError> {
        match self.set(file, value) {
            Err(GroupError::Refused { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(())
            }
            set => set,
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // A file that the kernel has not made is not to be made by us.
        let mut file = File::options().write(true).open(self.path.join(file))?;
        file.write_all(value.as_bytes())
    }

    /// Who is in it.
    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        let list = fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(list.lines().filter_map(|pid| pid.parse().ok()).collect())
    }

    pub(super) fn has(&self, pid: u32) -> bool {
        self.processes().is_ok_and(|all| all.contains(&pid))
    }

    pub(super) fn memory(&self) -> Option<GroupMemory> {
        let (events, max, peak) = match self.version {
            Version::Two => ("memory.events", "memory.max", "memory.peak"),
            Version::One => (
                "memory.oom_control",
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            ),
        };
        let text = |file: &str| fs::read_to_string(self.path.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse().ok();
        let events = text(events)?;
        let mut lines = events.lines();
        let kills = lines.find_map(|line| line.strip_prefix("oom_kill "))?;
        Some(GroupMemory {
            kills: kills.trim().parse().ok()?,
            max: number(max),
            peak: number(peak),
        })
    }

    /// Removes it, which the kernel does only when nobody is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Kills what is in it and in those below it, and removes them.
    pub(super) fn end(&self) -> io::Result<()> {
        for inner in self.inner()? {
            inner.end()?;
        }
        let deadline = Instant::now() + LEAVE_MAX;
        loop {
            match self.remove() {
                Err(error) if is_in_use(&error) && Instant::now() < deadline => self.kill()?,
                removed => return removed,
            }
            pause();
        }
    }

    fn inner(&self) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let directories = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let version = self.version;
        let inner = directories.map(|entry| Self {
            path: entry.path(),
            version,
        });
        Ok(inner.collect())
    }

    /// Kills all that are in it.
    fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            // Version 1, and Linux before 5.14.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            killed => return killed,
        }
        // Nobody starts more while those that are there are killed.
        drop(self.write("pids.max", "0"));
        for pid in self.processes()? {
            self.kill_one(pid);
        }
        Ok(())
    }

    /// Who cannot be killed has ended.
    fn kill_one(&self, pid: u32) {
        let Some(named) = Pid::from_raw(pid.cast_signed()) else {
            return;
        };
        let Ok(process) = pidfd_open(named, PidfdFlags::empty()) else {
            return;
        };
        // The number may have been given to somebody else before it was opened.
        if self.has(pid) {
            let _: rustix::io::Result<()> = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "who removes groups may block, and nothing tells when a killed process has left"
)]
fn pause() {
    std::thread::sleep(LOOK);
}

/// As an error that says where.
pub(super) fn refused(what: &str, path: &Path, source: io::Error) -> GroupError {
    GroupError::Refused {
        what: format!("{what} {}", path.display()),
        source,
    }
}
