//! Who looks how much is in private directories, where no file system bounds it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Weak},
};

use humantime::format_duration;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Duration, Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{PrivateDirectory, PrivateMax, tree::Size};

/// How often is looked, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looking may take this share of the time at most, so that many files cost no more.
const SHARE: u32 = 20;

/// What a worker is told of its directories: why it must end, once it must.
pub(crate) type Over = watch::Receiver<Option<String>>;

/// A worker's private directories, while it lives.
#[derive(Debug)]
pub(crate) struct Watchee {
    /// Where its plugin keeps files, and its own temporary directory.
    pub(crate) directories: [PrivateDirectory; 2],
    pub(crate) pid: u32,
    over: watch::Sender<Option<String>>,
}

impl Watchee {
    pub(crate) fn new(directories: [PrivateDirectory; 2], pid: u32) -> (Self, Over) {
        let (over, receiver) = watch::channel(None);
        let watchee = Self {
            directories,
            pid,
            over,
        };
        (watchee, receiver)
    }

    /// Why there is too much, if there is.
    pub(crate) fn excess(&self, max: PrivateMax) -> Option<String> {
        let mut size = unlinked(self.pid);
        for directory in &self.directories {
            match directory.size(max) {
                Ok(more) => size = size.plus(more),
                Err(error) => return Some(format!("{}: {error}", directory.path.display())),
            }
        }
        size.exceeds(max).then(|| {
            let [kept, temporary] = &self.directories;
            format!(
                "{} and {} hold more than {} MiB or {} files; make room there, or allow more with \
                 --plugin-private-size or --plugin-private-files",
                kept.path.display(),
                temporary.path.display(),
                max.bytes >> 20,
                max.files,
            )
        })
    }
}

/// Files that have no name any more and live on because the process has them open.
fn unlinked(pid: u32) -> Size {
    let descriptors = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut size = Size::default();
    for entry in fs::read_dir(descriptors).into_iter().flatten().flatten() {
        // This looks at what is open; it opens nothing.
        let Ok(found) = fs::metadata(entry.path()) else {
            continue;
        };
        if found.is_file() && found.nlink() == 0 {
            size = size.plus(Size {
                bytes: found.blocks().saturating_mul(512),
                files: 1,
            });
        }
    }
    size
}

/// Looks at all that are given to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Vec<Weak<Watchee>>>>);

impl Watch {
    /// Looks at this one too, as long as it is there.
    pub(crate) fn add(&self, watchee: &Arc<Watchee>) {
        self.0.lock().push(Arc::downgrade(watchee));
    }

    /// Looks until the server ends.
    pub(crate) async fn run(self, max: PrivateMax, shutdown: CancellationToken) {
        let looks = async {
            let mut pause = LOOK_EVERY;
            loop {
                sleep(pause).await;
                let watched = self.living();
                let begun = Instant::now();
                drop(spawn_blocking(move || look(&watched, max)).await);
                pause = LOOK_EVERY.max(begun.elapsed() * SHARE);
                if pause > LOOK_EVERY {
                    let pause = format_duration(pause);
                    debug!(%pause, "private directories are large and are looked at less often");
                }
            }
        };
        shutdown.run_until_cancelled(looks).await;
    }

    fn living(&self) -> Vec<Arc<Watchee>> {
        let mut all = self.0.lock();
        all.retain(|watchee| watchee.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

fn look(watched: &[Arc<Watchee>], max: PrivateMax) {
    for watchee in watched {
        if let Some(excess) = watchee.excess(max) {
            watchee.over.send_replace(Some(excess));
        }
    }
}
