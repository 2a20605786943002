//! Who looks how much is in private directories, where no file system bounds it, and how much
//! workers have open?

use std::sync::{Arc, Weak};

use humantime::format_duration;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Duration, Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    PrivateDirectory, PrivateMax,
    open::{self, OpenMax, Seen},
};
use crate::{error::ExitReason, family::families};

/// How often is looked, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looking may take this share of the time at most, so that many files cost no more.
const SHARE: u32 = 20;

/// What is open is looked at so often at least, whatever that costs: it takes a second to take what
/// others need.
const OPEN_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a worker is told: why it must end, once it must.
pub(crate) type Over = watch::Receiver<Option<ExitReason>>;

/// A worker's private directories, while it lives.
#[derive(Debug)]
pub(crate) struct Watchee {
    /// Where its plugin keeps files, and its own temporary directory.
    pub(crate) directories: [PrivateDirectory; 2],
    pub(crate) pid: u32,
    /// Whether it may have started others.
    has_family: bool,
    seen: Mutex<Seen>,
    over: watch::Sender<Option<ExitReason>>,
}

impl Watchee {
    pub(crate) fn new(
        directories: [PrivateDirectory; 2],
        pid: u32,
        has_family: bool,
    ) -> (Self, Over) {
        let (over, receiver) = watch::channel(None);
        let watchee = Self {
            directories,
            pid,
            has_family,
            seen: Mutex::default(),
            over,
        };
        (watchee, receiver)
    }

    /// Why there is too much in its directories, if there is.
    pub(crate) fn excess(&self, max: PrivateMax) -> Option<String> {
        let mut size = self.seen.lock().unlinked;
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
        let open_max = OpenMax::of_this_machine();
        // Each at its own pace: many files must not hide what is open.
        let directories = self.repeat(Duration::MAX, move |watched| {
            look_at_directories(watched, max);
        });
        let open = self.repeat(OPEN_PAUSE_MAX, move |watched| {
            look_at_open(watched, open_max);
        });
        let both = async { tokio::join!(directories, open) };
        shutdown.run_until_cancelled(both).await;
    }

    async fn repeat(
        &self,
        pause_max: Duration,
        look: impl Fn(&[Arc<Watchee>]) + Copy + Send + 'static,
    ) {
        let mut pause = LOOK_EVERY;
        loop {
            sleep(pause).await;
            let watched = self.living();
            let begun = Instant::now();
            drop(spawn_blocking(move || look(&watched)).await);
            pause = LOOK_EVERY.max(begun.elapsed() * SHARE).min(pause_max);
            if pause > LOOK_EVERY {
                let pause = format_duration(pause);
                debug!(%pause, "what workers keep is much and is looked at less often");
            }
        }
    }

    fn living(&self) -> Vec<Arc<Watchee>> {
        let mut all = self.0.lock();
        all.retain(|watchee| watchee.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

fn look_at_directories(watched: &[Arc<Watchee>], max: PrivateMax) {
    for watchee in watched {
        if let Some(excess) = watchee.excess(max) {
            let reason = ExitReason::PrivateFull(excess);
            watchee.over.send_replace(Some(reason));
        }
    }
}

pub(super) fn look_at_open(watched: &[Arc<Watchee>], max: OpenMax) {
    let (with, without): (Vec<_>, Vec<_>) = watched.iter().partition(|one| one.has_family);
    let leaders: Vec<u32> = with.iter().map(|watchee| watchee.pid).collect();
    let alone = without.iter().map(|watchee| vec![watchee.pid]);
    let families = families(&leaders).into_iter().chain(alone);
    for (watchee, processes) in with.iter().chain(&without).zip(families) {
        let open = open::look(&processes, max);
        let reason = watchee.seen.lock().add(open, max);
        if reason.is_some() {
            watchee.over.send_replace(reason);
        }
    }
}
