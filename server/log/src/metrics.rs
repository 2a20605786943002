//! What is counted about the log.

use prometheus::{Histogram, HistogramOpts, IntCounter, core::Collector};

/// Seconds; a flush on a busy disk may take a while.
const BUCKETS: [f64; 12] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Counts what the committer does. Clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) entries: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) flush_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the name is valid");
        let flush = HistogramOpts::new(
            "outrigger_log_flush_seconds",
            "Making a log entry durable and applying it",
        );
        let flush = flush.buckets(BUCKETS.to_vec());
        Self {
            entries: counter("outrigger_log_entries_total", "Log entries written"),
            bytes: counter("outrigger_log_bytes_total", "Bytes of log entries written"),
            flush_seconds: Histogram::with_opts(flush).expect("the name is valid"),
        }
    }
}

impl Metrics {
    /// All of them, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.entries.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.flush_seconds.clone()),
        ]
    }
}
