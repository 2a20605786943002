//! How much a worker's plugin may log: a burst, then a steady rate, however many invocations
//! there are. More is counted and dropped, so that a plugin that floods neither fills the log nor
//! crowds out others. Each level has an allowance of its own: what is said in passing never crowds
//! out an error.

use tokio::time::{Duration, Instant};

use crate::backend::LogLevel;

/// How many lines of information at once, and how many a second after that. Warnings and
/// errors have half of it each.
const LINES_BURST: f64 = 2_000.0;
const LINES_PER_SECOND: f64 = 200.0;
/// Likewise for their bytes.
const BYTES_BURST: f64 = 4.0 * 1024.0 * 1024.0;
const BYTES_PER_SECOND: f64 = 256.0 * 1024.0;

/// How often is said that lines are dropped, besides at the end.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What a plugin may still log in its worker.
#[derive(Debug)]
pub(super) struct Allowance {
    info: Bucket,
    warn: Bucket,
    error: Bucket,
    /// Lines dropped since the last report.
    pub(super) dropped: u64,
    /// Lines of this invocation that were logged.
    pub(super) passed: u64,
    reported: Option<Instant>,
}

/// What may still be logged at one level.
#[derive(Debug)]
struct Bucket {
    share: f64,
    lines: f64,
    bytes: f64,
    last: Option<Instant>,
}

impl Bucket {
    /// A full burst.
    fn new(share: f64) -> Self {
        Self {
            share,
            lines: LINES_BURST * share,
            bytes: BYTES_BURST * share,
            last: None,
        }
    }

    fn takes(&mut self, bytes: usize, now: Instant) -> bool {
        let elapsed = self.last.map(|last| now.duration_since(last));
        let seconds = elapsed.unwrap_or_default().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let bytes = bytes as f64;
        self.last = self.last.max(Some(now));
        let full = |burst: f64| burst * self.share;
        self.lines = (self.lines + seconds * full(LINES_PER_SECOND)).min(full(LINES_BURST));
        self.bytes = (self.bytes + seconds * full(BYTES_PER_SECOND)).min(full(BYTES_BURST));
        if self.lines < 1.0 || self.bytes < bytes {
            return false;
        }
        self.lines -= 1.0;
        self.bytes -= bytes;
        true
    }
}

impl Allowance {
    /// A full burst.
    pub(super) fn new() -> Self {
        Self {
            info: Bucket::new(1.0),
            warn: Bucket::new(0.5),
            error: Bucket::new(0.5),
            dropped: 0,
            passed: 0,
            reported: None,
        }
    }

    /// The next invocation begins: with what is left.
    pub(super) fn begin(&mut self) {
        (self.dropped, self.passed) = (0, 0);
    }

    /// Whether a line of that many bytes may be logged; if not, it is counted.
    pub(super) fn takes(&mut self, level: LogLevel, bytes: usize, now: Instant) -> bool {
        let bucket = match level {
            LogLevel::Info => &mut self.info,
            LogLevel::Warn => &mut self.warn,
            LogLevel::Error => &mut self.error,
        };
        let takes = bucket.takes(bytes, now);
        if takes {
            self.passed += 1;
        } else {
            self.dropped += 1;
        }
        takes
    }

    /// What to say about dropped lines while more may come: not too often.
    pub(super) fn report_meanwhile(&mut self, now: Instant) -> Option<String> {
        if self
            .reported
            .is_some_and(|last| now.duration_since(last) < REPORT_EVERY)
        {
            return None;
        }
        let report = self.report()?;
        self.reported = Some(now);
        Some(report)
    }

    /// What to say about dropped lines, once.
    pub(super) fn report(&mut self) -> Option<String> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped > 0).then(|| format!("{dropped} lines were dropped: the plugin logs too much"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many lines pass.
    fn passed(
        allowance: &mut Allowance,
        level: LogLevel,
        count: usize,
        bytes: usize,
        now: Instant,
    ) -> usize {
        (0..count)
            .filter(|_| allowance.takes(level, bytes, now))
            .count()
    }

    #[test]
    fn a_burst_passes_and_a_flood_is_counted() {
        let (mut allowance, start) = (Allowance::new(), Instant::now());
        let count = passed(&mut allowance, LogLevel::Info, 5_000, 10, start);
        assert_eq!(count, 2_000);
        let report = allowance.report().unwrap();
        assert!(report.starts_with("3000 lines were dropped"), "{report}");
        assert_eq!(allowance.report(), None);
        // A second later there is room again.
        let later = start + Duration::from_secs(1);
        let count = passed(&mut allowance, LogLevel::Info, 5_000, 10, later);
        assert_eq!(count, 200);
    }

    #[test]
    fn another_invocation_is_no_other_allowance() {
        let (mut allowance, start) = (Allowance::new(), Instant::now());
        let counts = [0, 1, 2].map(|second| {
            allowance.begin();
            let now = start + Duration::from_secs(second);
            passed(&mut allowance, LogLevel::Info, 1_900, 10, now);
            (allowance.passed, allowance.dropped)
        });
        assert_eq!(counts, [(1_900, 0), (300, 1_600), (200, 1_700)]);
    }

    #[test]
    fn large_lines_count_by_their_size() {
        let mut allowance = Allowance::new();
        let count = passed(
            &mut allowance,
            LogLevel::Info,
            1_000,
            64 * 1024,
            Instant::now(),
        );
        assert_eq!(count, 64);
    }

    #[test]
    fn a_flood_of_information_leaves_room_for_errors() {
        let (mut allowance, now) = (Allowance::new(), Instant::now());
        passed(&mut allowance, LogLevel::Info, 5_000, 10, now);
        passed(&mut allowance, LogLevel::Warn, 5_000, 10, now);
        assert!(allowance.takes(LogLevel::Error, 10, now));
    }

    #[test]
    fn that_lines_are_dropped_is_not_said_too_often() {
        let (mut allowance, start) = (Allowance::new(), Instant::now());
        let mut reports = 0;
        for second in 0..25 {
            let now = start + Duration::from_secs(second);
            passed(&mut allowance, LogLevel::Info, 5_000, 10, now);
            reports += usize::from(allowance.report_meanwhile(now).is_some());
        }
        assert_eq!(reports, 3);
    }
}
