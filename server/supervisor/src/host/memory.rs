//! Was it the kernel's out-of-memory killer? Nobody says so; this gathers what shows it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// How close to a limit a process must have been to have reached it: the killer strikes when
/// the next page cannot be had, and others share the limit.
const NEAR: f64 = 0.9;
const MIB: u64 = 1024 * 1024;

/// What the kernel has counted, at one time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct MemoryCounts {
    /// Kills in the whole system.
    system_kills: Option<u64>,
    /// Kills in the server's control group, where its workers are too.
    group_kills: Option<u64>,
    /// The most memory that the group may have.
    group_max: Option<u64>,
    /// All memory that there is.
    system_max: Option<u64>,
}

impl MemoryCounts {
    /// As of now.
    pub(super) fn now() -> Self {
        Self::read(Path::new("/"))
    }

    fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let group = text("proc/self/cgroup");
        let group = group.lines().find_map(|line| line.strip_prefix("0::/"));
        let group = group.map(|group| PathBuf::from("sys/fs/cgroup").join(group));
        let of_group = |file: &str| {
            let path = root.join(group.as_ref()?).join(file);
            fs::read_to_string(path).ok()
        };
        let kib = |kib: u64| kib * 1024;
        Self {
            system_kills: field(&text("proc/vmstat"), "oom_kill"),
            group_kills: of_group("memory.events").and_then(|text| field(&text, "oom_kill")),
            group_max: of_group("memory.max").and_then(|text| text.trim().parse().ok()),
            system_max: field(&text("proc/meminfo"), "MemTotal:").map(kib),
        }
    }

    /// What speaks for it that a process with this peak of memory, which began at `self` and
    /// was killed before `now`, was killed for want of memory.
    pub(super) fn evidence(&self, now: &Self, peak_bytes: u64) -> Option<String> {
        let mut found = Vec::new();
        let mut kills = |before: Option<u64>, after: Option<u64>, place: &str| {
            if let (Some(before), Some(after)) = (before, after)
                && after > before
            {
                found.push(format!(
                    "the kernel's out-of-memory killer has struck {} times in {place} since the \
                     worker began",
                    after - before
                ));
            }
        };
        kills(
            self.group_kills,
            now.group_kills,
            "the server's control group",
        );
        kills(self.system_kills, now.system_kills, "this system");
        let mut limits = |limit: Option<u64>, what: &str| {
            if let Some(limit) = limit
                && is_near(peak_bytes, limit)
            {
                found.push(format!("its peak is near {what}, {} MiB", limit / MIB));
            }
        };
        limits(now.group_max, "the limit of the control group");
        limits(now.system_max, "all memory of the machine");
        if found.is_empty() {
            return None;
        }
        if peak_bytes > 0 {
            found.push(format!("it had up to {} MiB", peak_bytes / MIB));
        }
        Some(found.join("; "))
    }
}

#[expect(clippy::cast_precision_loss, reason = "near need not be exact")]
fn is_near(peak: u64, limit: u64) -> bool {
    peak as f64 >= limit as f64 * NEAR
}

/// The first number of the line that begins with this word.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(oom_kill: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/vmstat", "nr_free_pages 1\noom_kill 3\n");
        write(
            "proc/meminfo",
            "MemTotal:        4194304 kB\nMemFree: 1 kB\n",
        );
        write("proc/self/cgroup", "4:memory:/x\n0::/a/b\n");
        let events = format!("low 0\noom 9\noom_kill {oom_kill}\n");
        write("sys/fs/cgroup/a/b/memory.events", &events);
        write("sys/fs/cgroup/a/b/memory.max", "1073741824\n");
        root
    }

    #[test]
    fn a_kill_in_the_group_is_evidence() {
        let before = MemoryCounts::read(machine(1).path());
        let after = MemoryCounts::read(machine(2).path());
        assert_eq!(
            before.evidence(&after, 300 * MIB).unwrap(),
            "the kernel's out-of-memory killer has struck 1 times in the server's control group \
             since the worker began; it had up to 300 MiB"
        );
        assert_eq!(before.evidence(&before, 300 * MIB), None);
    }

    #[test]
    fn a_peak_near_a_limit_is_evidence() {
        let counts = MemoryCounts::read(machine(1).path());
        let text = counts.evidence(&counts, 1000 * MIB).unwrap();
        assert!(
            text.starts_with("its peak is near the limit of the control group, 1024 MiB"),
            "{text}"
        );
    }

    #[test]
    fn a_machine_that_tells_nothing_gives_no_evidence() {
        let root = tempfile::tempdir().unwrap();
        let nothing = MemoryCounts::read(root.path());
        assert_eq!(nothing, MemoryCounts::default());
        assert_eq!(nothing.evidence(&nothing, u64::MAX), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(MemoryCounts::now().system_max > Some(0));
    }
}
