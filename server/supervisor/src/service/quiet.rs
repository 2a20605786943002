//! How is a warning kept from flooding the log, when whoever causes it may repeat it at will?

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use tracing::warn;

/// How many warnings of a kind there are in one interval.
const WARNINGS_MAX: u32 = 5;
const INTERVAL: Duration = Duration::from_mins(1);

/// Lets a few warnings pass, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<Option<Interval>>);

#[derive(Debug)]
struct Interval {
    began: Instant,
    count: u32,
}

impl Quiet {
    /// Says it, unless it was said often lately.
    pub(super) fn say(&self, warning: impl FnOnce()) {
        let (passes, untold) = self.count(Instant::now());
        if untold > 0 {
            warn!(untold, "warnings of this kind were left out");
        }
        if passes {
            warning();
        }
    }

    fn count(&self, now: Instant) -> (bool, u32) {
        let mut interval = self.0.lock();
        let fresh = Interval {
            began: now,
            count: 0,
        };
        let current = interval.get_or_insert(fresh);
        let mut untold = 0;
        if now.duration_since(current.began) >= INTERVAL {
            untold = current.count.saturating_sub(WARNINGS_MAX);
            current.began = now;
            current.count = 0;
        }
        current.count = current.count.saturating_add(1);
        (current.count <= WARNINGS_MAX, untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_later() {
        let quiet = Quiet::default();
        let now = Instant::now();
        let passed = (0..100).filter(|_| quiet.count(now).0).count();
        assert_eq!(passed, 5);
        assert_eq!(quiet.count(now + INTERVAL), (true, 95));
        assert_eq!(quiet.count(now + INTERVAL), (true, 0));
    }
}
