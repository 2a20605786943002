//! Was it the kernel's out-of-memory killer? Nobody says so; this gathers what shows it.

use std::{fs, path::Path};

use outrigger_sandbox::GroupMemory;

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
        let groups = text("proc/self/cgroup");
        let group = Group::V2.read(root, &groups);
        let group = group.or_else(|| Group::V1.read(root, &groups));
        let kib = |kib: u64| kib * 1024;
        Self {
            system_kills: field(&text("proc/vmstat"), "oom_kill"),
            group_kills: group.map(|(kills, _)| kills),
            group_max: group.and_then(|(_, max)| max),
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
        if self.group_kills.is_some() {
            let place = "the server's control group";
            kills(self.group_kills, now.group_kills, place);
        } else {
            // A group counts each kill of its own processes, whoever's limit was reached: only
            // without one may what happened to others have happened to this one.
            kills(self.system_kills, now.system_kills, "this system");
        }
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

/// What a worker's own control group says for it.
pub(super) fn own_evidence(memory: GroupMemory) -> Option<String> {
    let GroupMemory { kills, max, peak } = memory;
    if kills == 0 {
        return None;
    }
    // Without a limit, version 1 says the largest number of pages.
    let max = max.filter(|max| *max < u64::MAX / 4);
    let max = max.map(|max| format!(", which may have {} MiB", max / MIB));
    let peak = peak.map(|peak| format!("; it had up to {} MiB", peak / MIB));
    Some(format!(
        "the kernel's out-of-memory killer has struck {kills} times in the worker's own control \
         group{}{}",
        max.unwrap_or_default(),
        peak.unwrap_or_default()
    ))
}

/// Where a control group says what is asked here.
#[derive(Clone, Copy, Debug)]
enum Group {
    V1,
    V2,
}

impl Group {
    /// How many processes of the server's group were killed, and what memory it may have.
    fn read(self, root: &Path, groups: &str) -> Option<(u64, Option<u64>)> {
        let (mount, marker, kills, max) = match self {
            Self::V1 => (
                "sys/fs/cgroup/memory",
                ":memory:/",
                "memory.oom_control",
                "memory.limit_in_bytes",
            ),
            Self::V2 => ("sys/fs/cgroup", "0::/", "memory.events", "memory.max"),
        };
        let own = |line: &str| {
            let (number, path) = line.split_once(marker)?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| path.to_owned())
        };
        let directory = root.join(mount).join(groups.lines().find_map(own)?);
        let text = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let max = text(max).and_then(|text| text.trim().parse().ok());
        Some((field(&text(kills)?, "oom_kill")?, max))
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

    /// What a machine says: its files, and their texts.
    fn machine(files: &[(&str, &str)]) -> MemoryCounts {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        MemoryCounts::read(root.path())
    }

    /// With control groups as they are now.
    fn unified(oom_kill: u64) -> MemoryCounts {
        machine(&[
            ("proc/vmstat", "nr_free_pages 1\noom_kill 3\n"),
            (
                "proc/meminfo",
                "MemTotal:        4194304 kB\nMemFree: 1 kB\n",
            ),
            ("proc/self/cgroup", "0::/a/b\n"),
            (
                "sys/fs/cgroup/a/b/memory.events",
                &format!("low 0\noom 9\noom_kill {oom_kill}\n"),
            ),
            ("sys/fs/cgroup/a/b/memory.max", "1073741824\n"),
        ])
    }

    /// With those of old beside them, as recorded on a machine of this project (shortened).
    fn hybrid(oom_kill: u64, system_kills: u64) -> MemoryCounts {
        machine(&[
            ("proc/vmstat", &format!("oom_kill {system_kills}\n")),
            (
                "proc/self/cgroup",
                "8:pids:/\n4:memory:/process_api/8d82\n1:cpu:/\n0::/\n",
            ),
            ("sys/fs/cgroup/unified/cgroup.procs", ""),
            (
                "sys/fs/cgroup/memory/process_api/8d82/memory.oom_control",
                &format!("oom_kill_disable 0\nunder_oom 0\noom_kill {oom_kill}\n"),
            ),
            (
                "sys/fs/cgroup/memory/process_api/8d82/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ])
    }

    #[test]
    fn a_kill_in_the_group_is_evidence() {
        let before = unified(1);
        let after = unified(2);
        assert_eq!(
            before.evidence(&after, 300 * MIB).unwrap(),
            "the kernel's out-of-memory killer has struck 1 times in the server's control group \
             since the worker began; it had up to 300 MiB"
        );
        assert_eq!(before.evidence(&before, 300 * MIB), None);
    }

    #[test]
    fn a_peak_near_a_limit_is_evidence() {
        let counts = unified(1);
        let text = counts.evidence(&counts, 1000 * MIB).unwrap();
        assert!(
            text.starts_with("its peak is near the limit of the control group, 1024 MiB"),
            "{text}"
        );
    }

    #[test]
    fn a_kill_in_a_group_of_old_is_evidence_and_one_elsewhere_is_not() {
        let text = hybrid(0, 5).evidence(&hybrid(1, 6), 0).unwrap();
        assert!(
            text.contains("1 times in the server's control group"),
            "{text}"
        );
        assert_eq!(hybrid(0, 5).evidence(&hybrid(0, 6), 100 * MIB), None);
        let without_groups =
            |kills: u64| machine(&[("proc/vmstat", &format!("oom_kill {kills}\n"))]);
        let text = without_groups(1).evidence(&without_groups(2), 0).unwrap();
        assert!(text.contains("1 times in this system"), "{text}");
    }

    #[test]
    fn a_workers_own_group_says_whether_it_was_that() {
        let memory = |kills| GroupMemory {
            kills,
            max: Some(1024 * MIB),
            peak: Some(1024 * MIB),
        };
        assert_eq!(own_evidence(memory(0)), None);
        assert_eq!(
            own_evidence(memory(1)).unwrap(),
            "the kernel's out-of-memory killer has struck 1 times in the worker's own control \
             group, which may have 1024 MiB; it had up to 1024 MiB"
        );
    }

    #[test]
    fn a_machine_that_tells_nothing_gives_no_evidence() {
        let nothing = machine(&[]);
        assert_eq!(nothing, MemoryCounts::default());
        assert_eq!(nothing.evidence(&nothing, u64::MAX), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(MemoryCounts::now().system_max > Some(0));
    }
}
