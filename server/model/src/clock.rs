//! What time it is, so that tests can say so.

use std::{
    fmt,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub i64);

/// A source of wall-clock time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, made strictly increasing: two calls never get the same
/// nanosecond, because a write's points without a timestamp get the time of the
/// write, and two writes must not overwrite each other's.
///
/// If the machine's clock is set back, this one goes on at half its speed until the other has
/// caught up: nothing that happens later gets an earlier time, and schedules go on. If it is
/// set forward, this one follows. All of a process's are the same clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    steady: &'static Mutex<Steady>,
}

impl Default for SystemClock {
    fn default() -> Self {
        static STEADY: Mutex<Steady> = Mutex::new(Steady {
            last: i64::MIN,
            at: Duration::ZERO,
        });
        Self { steady: &STEADY }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one Clock that reads the machine's"
    )]
    fn now(&self) -> Timestamp {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_nanos()).ok())
            .unwrap_or(0);
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that it never goes back either.
        steady.advance(nanos, BEGAN.elapsed())
    }
}

/// Makes an increasing time of one that can be set.
#[derive(Debug)]
struct Steady {
    /// What was told last.
    last: i64,
    /// And when, by a clock that nobody sets.
    at: Duration,
}

impl Steady {
    /// The time, if the machine's clock shows `wall` when it has run for `uptime`.
    fn advance(&mut self, wall: i64, uptime: Duration) -> Timestamp {
        let elapsed = uptime.saturating_sub(self.at);
        let slow = i64::try_from(elapsed.as_nanos() / 2).unwrap_or(i64::MAX);
        let least = self.last.saturating_add(slow.max(1));
        self.last = wall.max(least);
        self.at = uptime;
        Timestamp(self.last)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now: AtomicI64::new(now.0),
        }
    }

    /// Sets the time.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_shows_the_same_time_twice() {
        let clock = SystemClock::default();
        let times: Vec<_> = (0..10_000).map(|_| clock.now()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(SystemClock::default().now() > times[9_999], "another one");
    }

    const SECOND: i64 = 1_000_000_000;

    /// What is told each second of so many, while the machine's clock shows what `wall` says.
    fn told(seconds: i64, wall: impl Fn(i64) -> i64) -> Vec<i64> {
        let mut steady = Steady {
            last: i64::MIN,
            at: Duration::ZERO,
        };
        let at = |second: i64| Duration::from_secs(second.unsigned_abs());
        let tell = |second| steady.advance(wall(second) * SECOND, at(second)).0;
        (0..seconds).map(tell).collect()
    }

    #[test]
    fn a_clock_that_is_set_back_is_waited_for_at_half_its_speed() {
        // After ten seconds it is set back by an hour.
        let told = told(3 * 3600, |second| {
            10_000 + second - if second >= 10 { 3600 } else { 0 }
        });
        assert_eq!(told[9], 10_009 * SECOND);
        for pair in told[9..7209].windows(2) {
            assert_eq!(pair[1] - pair[0], SECOND / 2);
        }
        // Two hours later it is right again.
        assert_eq!(told[7300], (10_000 + 7300 - 3600) * SECOND);
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed() {
        let year = 365 * 86_400;
        let told = told(20, |second| second + if second >= 10 { year } else { 0 });
        assert_eq!(told[10] - told[9], (year + 1) * SECOND);
        assert_eq!(told[11] - told[10], SECOND);
    }
}
