//! How much an invocation may log: a burst, then a steady rate. More is counted and dropped,
//! so that a plugin that floods neither fills the log nor crowds out others.

use outrigger_model::clock::Timestamp;

/// How many lines at once, and how many a second after that.
const LINES_BURST: f64 = 2_000.0;
const LINES_PER_SECOND: f64 = 200.0;
/// Likewise for their bytes.
const BYTES_BURST: f64 = 4.0 * 1024.0 * 1024.0;
const BYTES_PER_SECOND: f64 = 256.0 * 1024.0;

/// What an invocation may still log.
#[derive(Debug)]
pub(crate) struct Allowance {
    lines: f64,
    bytes: f64,
    last: Option<Timestamp>,
    /// Lines dropped since the last report.
    pub(super) dropped: u64,
    /// Lines that were logged.
    pub(super) passed: u64,
}

impl Allowance {
    /// A full burst.
    pub(crate) fn new() -> Self {
        Self {
            lines: LINES_BURST,
            bytes: BYTES_BURST,
            last: None,
            dropped: 0,
            passed: 0,
        }
    }

    /// Whether a line of that many bytes may be logged; if not, it is counted.
    pub(super) fn takes(&mut self, bytes: usize, now: Timestamp) -> bool {
        let elapsed = self
            .last
            .map_or(0, |last| now.0.saturating_sub(last.0))
            .max(0);
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let (seconds, bytes) = (elapsed as f64 / 1e9, bytes as f64);
        self.last = self.last.max(Some(now));
        self.lines = (self.lines + seconds * LINES_PER_SECOND).min(LINES_BURST);
        self.bytes = (self.bytes + seconds * BYTES_PER_SECOND).min(BYTES_BURST);
        if self.lines < 1.0 || self.bytes < bytes {
            self.dropped += 1;
            return false;
        }
        self.passed += 1;
        self.lines -= 1.0;
        self.bytes -= bytes;
        true
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

    #[test]
    fn a_burst_passes_and_a_flood_is_counted() {
        let mut allowance = Allowance::new();
        let passed = (0..5_000)
            .filter(|_| allowance.takes(10, Timestamp(0)))
            .count();
        assert_eq!(passed, 2_000);
        let report = allowance.report().unwrap();
        assert!(report.starts_with("3000 lines were dropped"), "{report}");
        assert_eq!(allowance.report(), None);
        // A second later there is room again.
        let later = Timestamp(1_000_000_000);
        assert_eq!(
            (0..5_000).filter(|_| allowance.takes(10, later)).count(),
            200
        );
    }

    #[test]
    fn large_lines_count_by_their_size() {
        let mut allowance = Allowance::new();
        let passed = (0..1_000)
            .filter(|_| allowance.takes(64 * 1024, Timestamp(0)))
            .count();
        assert_eq!(passed, 64);
    }
}
