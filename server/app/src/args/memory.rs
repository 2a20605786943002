//! How memory is said on the command line: as a size, or as a part of what there is.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use outrigger_model::bytes::ByteSize;

/// What a machine is taken for that does not say how much it has.
const UNKNOWN: usize = ByteSize::mib(512).0;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// A size, or a part of the memory that the server may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum MemoryShare {
    Percent(u8),
    Bytes(ByteSize),
}

impl MemoryShare {
    pub(crate) fn bytes(&self) -> ByteSize {
        match self {
            Self::Percent(percent) => ByteSize(memory() / 100 * usize::from(*percent)),
            Self::Bytes(bytes) => *bytes,
        }
    }
}

impl FromStr for MemoryShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            let bytes = text.parse().map(Self::Bytes);
            return bytes.map_err(|error: outrigger_model::bytes::ByteSizeError| error.to_string());
        };
        match percent.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!("{text:?} is not a percentage from 1% to 100%")),
        }
    }
}

/// All of the machine's memory, or what its control group leaves the server.
fn memory() -> usize {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = machine_memory(&meminfo).unwrap_or(UNKNOWN);
    let limit = group_memory(&group, Path::new(GROUPS));
    limit.map_or(machine, |limit| limit.min(machine))
}

fn machine_memory(meminfo: &str) -> Option<usize> {
    let mut lines = meminfo.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// The least that any of the server's control groups allows. `memberships` is as in
/// `/proc/self/cgroup`.
fn group_memory(memberships: &str, mounted: &Path) -> Option<usize> {
    let limits = memberships.lines().filter_map(|line| {
        let (_, membership) = line.split_once(':')?;
        let (controllers, path) = membership.split_once(':')?;
        let (top, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            v1 if v1.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        least(&top, path, file)
    });
    limits.min()
}

/// The least limit in a group and the groups above it. In a container, the path may be one that
/// only the machine knows; then the topmost group is the container's.
fn least(top: &Path, path: &str, file: &str) -> Option<usize> {
    let mut group: PathBuf = top.join(path.trim_start_matches('/'));
    let mut found: Option<usize> = None;
    loop {
        let limit = fs::read_to_string(group.join(file)).ok();
        let limit = limit.and_then(|text| text.trim().parse().ok());
        found = [found, limit].into_iter().flatten().min();
        if group == top || !group.pop() {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_said_in_percent_or_bytes() {
        let read = |text: &str| text.parse::<MemoryShare>();
        assert_eq!(read("50%"), Ok(MemoryShare::Percent(50)));
        assert_eq!(read("2gb"), Ok(MemoryShare::Bytes(ByteSize::mib(2048))));
        assert_eq!(read("7"), Ok(MemoryShare::Bytes(ByteSize::mib(7))));
        for nonsense in ["0%", "101%", "%", "x"] {
            assert!(read(nonsense).is_err(), "{nonsense}");
        }
        assert!(MemoryShare::Percent(50).bytes() > ByteSize::mib(16));
    }

    #[test]
    fn the_machine_says_how_much_it_has() {
        assert_eq!(
            machine_memory("MemTotal:   2 kB\nMemFree: 1 kB"),
            Some(2048)
        );
        assert_eq!(machine_memory("nonsense"), None);
    }

    #[test]
    fn the_least_limit_of_the_groups_counts() {
        let mounted = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = mounted.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |groups: &str| group_memory(groups, mounted.path());
        assert_eq!(limit("0::/a/b"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b"), None);
        write("a/memory.max", "1000\n");
        assert_eq!(limit("0::/a/b"), Some(1000));
        write("memory/c/memory.limit_in_bytes", "500\n");
        assert_eq!(limit("5:cpu:/c\n4:hugetlb,memory:/c\n0::/a/b"), Some(500));
        // A container sees its own group at the top.
        write("memory.max", "200");
        assert_eq!(limit("0::/known/only/outside"), Some(200));
    }
}
