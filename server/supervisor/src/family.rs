//! Which processes are a worker's: itself, and what it has started, also detached?

use std::{
    collections::{BTreeSet, HashMap},
    fs,
};

/// How many processes of one worker are looked for; where it has a control group, it cannot have
/// more.
const PROCESSES_MAX: usize = 1024;

/// The processes of each of these workers, itself among them.
pub(crate) fn families(workers: &[u32]) -> Vec<Vec<u32>> {
    let mut families: Vec<_> = workers.iter().map(|worker| below(*worker)).collect();
    let hosts: BTreeSet<u32> = workers.iter().filter_map(|pid| parent(*pid)).collect();
    for host in hosts {
        // What has lost its parent is the host's child by now. Whose it is, says the mark that
        // workers set on themselves and cannot change; see `_orphans.py`.
        let strangers: Vec<u32> = children(host)
            .into_iter()
            .filter(|child| !workers.contains(child))
            .collect();
        if strangers.is_empty() {
            continue;
        }
        let marks = workers.iter().enumerate();
        let marks: HashMap<_, _> = marks
            .filter_map(|(at, worker)| Some(((parent(*worker)?, mark(*worker)?), at)))
            .collect();
        for stranger in strangers {
            let owner = mark(stranger).and_then(|mark| marks.get(&(host, mark)));
            if let Some(at) = owner {
                families[*at].extend(below(stranger));
            }
        }
    }
    families
}

/// A process and its descendants.
fn below(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut at = 0;
    while at < found.len() && found.len() < PROCESSES_MAX {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// Its children. Kernels without this list tell of none.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let lists = threads.into_iter().flatten().flatten();
    let lists = lists.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let mut found = Vec::new();
    for list in lists {
        found.extend(
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    found
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

fn mark(process: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let locks = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file locks"))?;
    locks.split_ascii_whitespace().next()?.parse().ok()
}
