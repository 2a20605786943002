//! What do a worker and all that it has started have open that costs others?
//!
//! The kernel counts some things for a user as a whole, and the server may have the same one:
//! what epoll watches, and descriptors that were sent and not received yet. No limit of a process
//! bounds the first. So it is looked at, and who has too much ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::tree::Size;
use crate::error::ExitReason;

/// Descriptors of all processes of a worker.
const DESCRIPTORS_MAX: u64 = 64 * 1024;
/// Descriptors that were sent and not received yet: whatever is sent is received soon.
const IN_FLIGHT_MAX: u64 = 64;
/// How many looks in a row may find any. What hides in there is not seen.
const IN_FLIGHT_LOOKS_MAX: u32 = 3;
/// What epoll may watch for one worker, whatever the machine has.
const WATCHES_MAX: u64 = 64 * 1024;
const WATCHES_MIN: u64 = 1024;
/// One worker may have so small a part of what its user may have.
const WATCHES_SHARE: u64 = 64;
/// A line of those in which the kernel tells what an epoll descriptor watches is shorter.
const WATCH_BYTES: u64 = 128;

/// How much may be open.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenMax {
    watches: u64,
}

impl OpenMax {
    pub(super) fn of_this_machine() -> Self {
        let all = fs::read_to_string("/proc/sys/fs/epoll/max_user_watches");
        let all = all.ok().and_then(|text| text.trim().parse::<u64>().ok());
        let watches = all.unwrap_or(u64::MAX) / WATCHES_SHARE;
        Self {
            watches: watches.clamp(WATCHES_MIN, WATCHES_MAX),
        }
    }
}

/// What was found at one look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Open {
    /// Files that have no name any more and live on because they are open.
    pub(super) unlinked: Size,
    descriptors: u64,
    watches: u64,
    in_flight: u64,
}

/// Looks at what these processes have open; stops once it is too much.
pub(super) fn look(processes: &[u32], max: OpenMax) -> Open {
    let mut open = Open::default();
    // What was inherited is the same, and counts once.
    let (mut files, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for process in processes {
        let process = PathBuf::from(format!("/proc/{process}"));
        let descriptors = fs::read_dir(process.join("fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            open.descriptors += 1;
            if open.descriptors > DESCRIPTORS_MAX || open.watches > max.watches {
                return open;
            }
            let path = descriptor.path();
            let Ok(what) = fs::read_link(&path) else {
                continue;
            };
            let told = process.join("fdinfo").join(descriptor.file_name());
            let name = what.to_string_lossy();
            if name == "anon_inode:[eventpoll]" {
                open.watches += watches(&told, max.watches - open.watches);
            } else if name.starts_with("socket:") {
                if sockets.insert(what.clone()) {
                    open.in_flight += in_flight(&told);
                }
            } else if what.is_absolute()
                && let Some((file, size)) = unlinked(&path)
                && files.insert(file)
            {
                open.unlinked = open.unlinked.plus(size);
            }
        }
    }
    open
}

/// A file without a name. This looks at what is open; it opens nothing.
fn unlinked(descriptor: &Path) -> Option<((u64, u64), Size)> {
    let found = fs::metadata(descriptor).ok()?;
    let is_unlinked = found.is_file() && found.nlink() == 0;
    let size = Size {
        bytes: found.blocks().saturating_mul(512),
        files: 1,
    };
    is_unlinked.then_some(((found.dev(), found.ino()), size))
}

/// How much is watched; a little more than `max` if it is more.
fn watches(told: &Path, max: u64) -> u64 {
    let mut text = Vec::new();
    let Ok(told) = File::open(told) else { return 0 };
    // The kernel makes all of it at once, but no more than this is kept here.
    drop(told.take((max + 2) * WATCH_BYTES).read_to_end(&mut text));
    let lines = text.split(|byte| *byte == b'\n');
    let watches = lines.filter(|line| line.starts_with(b"tfd:")).count();
    watches as u64
}

fn in_flight(told: &Path) -> u64 {
    let told = fs::read_to_string(told).unwrap_or_default();
    let sent = told.lines().find_map(|line| line.strip_prefix("scm_fds:"));
    sent.and_then(|sent| sent.trim().parse().ok()).unwrap_or(0)
}

/// What has been found of a worker over time.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) unlinked: Size,
    in_flight_looks: u32,
}

impl Seen {
    /// Adds what was found now; returns why the worker must end, if it must.
    pub(super) fn add(&mut self, open: Open, max: OpenMax) -> Option<ExitReason> {
        self.unlinked = open.unlinked;
        let is_any = open.in_flight > 0;
        self.in_flight_looks = if is_any { self.in_flight_looks + 1 } else { 0 };
        let what = if open.descriptors > DESCRIPTORS_MAX {
            format!("more than {DESCRIPTORS_MAX} descriptors in all its processes")
        } else if open.watches > max.watches {
            format!(
                "epoll watches more than {} descriptors for it, which are counted for all of its \
                 user (fs.epoll.max_user_watches)",
                max.watches
            )
        } else if open.in_flight > IN_FLIGHT_MAX {
            format!(
                "{} descriptors were sent to a socket and not received, and {IN_FLIGHT_MAX} may be",
                open.in_flight
            )
        } else if self.in_flight_looks >= IN_FLIGHT_LOOKS_MAX {
            "descriptors that were sent to a socket have not been received for seconds".to_owned()
        } else {
            return None;
        };
        Some(ExitReason::TooMuchOpen(what))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;
    use crate::passing::Passing;

    const FEW: OpenMax = OpenMax { watches: 50 };

    fn told(seen: &mut Seen) -> Option<String> {
        let reason = seen.add(look(&[std::process::id()], FEW), FEW);
        reason.map(|reason| reason.to_string())
    }

    #[tokio::test]
    async fn who_watches_too_much_ends() {
        let mut seen = Seen::default();
        assert_eq!(told(&mut seen), None);
        let watched: Vec<_> = (0..30).map(|_| UnixStream::pair().unwrap()).collect();
        let reason = told(&mut seen).expect("it watches 60");
        assert!(reason.contains("epoll watches more than 50"), "{reason}");
        drop(watched);
        assert_eq!(told(&mut seen), None);
    }

    #[tokio::test]
    async fn what_is_sent_and_not_received_ends_its_sender() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ours = Passing::new(ours);
        let mut send = async |count: usize| {
            for _ in 0..count {
                ours.attach(vec![File::open("/dev/null").unwrap().into()]);
                ours.write_all(b"x").await.unwrap();
            }
        };
        let mut seen = Seen::default();
        send(1).await;
        for _ in 1..IN_FLIGHT_LOOKS_MAX {
            assert_eq!(told(&mut seen), None);
        }
        let reason = told(&mut seen).expect("it lies there for long");
        assert!(reason.contains("for seconds"), "{reason}");
        send(64).await;
        let reason = told(&mut Seen::default()).expect("these are many");
        assert!(reason.contains("65 descriptors were sent"), "{reason}");
        drop(theirs);
        assert_eq!(told(&mut seen), None);
    }

    #[test]
    fn a_machine_that_allows_little_allows_a_worker_less() {
        let max = OpenMax::of_this_machine().watches;
        assert!((WATCHES_MIN..=WATCHES_MAX).contains(&max), "{max}");
    }
}
