//! What is counted about writes, and what memory their rows take.

use std::{fmt, sync::Arc};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{files::ParquetFile, snapshot::Edit, state::State};

/// Who wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Writer {
    /// A client, or a plugin at once.
    Client,
    /// A plugin, with what it returned.
    Plugin,
}

impl Writer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Plugin => "plugin",
        }
    }
}

/// Counts lines. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    lines: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let lines = Opts::new("outrigger_write_lines_total", "Lines written or refused");
        let lines = IntCounterVec::new(lines, &["writer", "result"]).expect("the name is valid");
        for writer in [Writer::Client, Writer::Plugin] {
            for result in ["accepted", "rejected"] {
                lines.with_label_values(&[writer.as_str(), result]);
            }
        }
        Self { lines }
    }
}

impl Metrics {
    pub(crate) fn count(&self, writer: Writer, accepted: usize, rejected: usize) {
        for (result, count) in [("accepted", accepted), ("rejected", rejected)] {
            let lines = self.lines.with_label_values(&[writer.as_str(), result]);
            lines.inc_by(count as u64);
        }
    }

    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.lines.clone())]
    }
}

/// Seconds.
const SNAPSHOT_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

/// Counts what snapshots do. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotMetrics {
    seconds: Histogram,
    failed: IntCounter,
    files: IntCounter,
    bytes: IntCounter,
    skipped: IntCounter,
    joined: IntCounter,
    expired: IntCounter,
}

impl Default for SnapshotMetrics {
    fn default() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the name is valid");
        let seconds = HistogramOpts::new(
            "outrigger_snapshot_seconds",
            "Making a snapshot: writing rows as Parquet and the object that names them",
        );
        let seconds = seconds.buckets(SNAPSHOT_BUCKETS.to_vec());
        Self {
            seconds: Histogram::with_opts(seconds).expect("the name is valid"),
            failed: counter(
                "outrigger_snapshot_failures_total",
                "Snapshots that could not be made, and were tried again",
            ),
            files: counter("outrigger_parquet_files_total", "Parquet files written"),
            bytes: counter(
                "outrigger_parquet_bytes_total",
                "Bytes of Parquet files written",
            ),
            skipped: counter(
                "outrigger_trigger_skipped_entries_total",
                "Log entries that were removed before a trigger had seen them",
            ),
            joined: counter(
                "outrigger_parquet_files_joined_total",
                "Parquet files whose place a joined one has taken",
            ),
            expired: counter(
                "outrigger_parquet_files_expired_total",
                "Parquet files older than their database keeps rows",
            ),
        }
    }
}

impl SnapshotMetrics {
    pub(crate) fn made<'a>(&self, seconds: f64, files: impl Iterator<Item = &'a Arc<ParquetFile>>) {
        self.seconds.observe(seconds);
        for file in files {
            self.files.inc();
            self.bytes.inc_by(file.size_bytes);
        }
    }

    pub(crate) fn failed(&self) {
        self.failed.inc();
    }

    pub(crate) fn skipped(&self, entries: u64) {
        self.skipped.inc_by(entries);
    }

    pub(crate) fn edited(&self, edit: &Edit) {
        let counter = if edit.added.is_empty() {
            &self.expired
        } else {
            &self.joined
        };
        counter.inc_by(edit.removed.len() as u64);
        for (_, file) in &edit.added {
            self.files.inc();
            self.bytes.inc_by(file.size_bytes);
        }
    }

    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.seconds.clone()),
            Box::new(self.failed.clone()),
            Box::new(self.files.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.skipped.clone()),
            Box::new(self.joined.clone()),
            Box::new(self.expired.clone()),
        ]
    }
}

/// Measures, when it is asked, what is kept in memory on purpose: whatever else the process
/// takes is not the data's.
pub(crate) struct Memory {
    state: Arc<State>,
    bytes: IntGaugeVec,
}

impl Memory {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let bytes = Opts::new(
            "outrigger_storage_memory_bytes",
            "Memory that stored rows take, about",
        );
        let bytes = IntGaugeVec::new(bytes, &["part"]).expect("the name is valid");
        Self { state, bytes }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Collector for Memory {
    fn desc(&self) -> Vec<&Desc> {
        self.bytes.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (part, bytes) in self.state.held_bytes() {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.bytes.with_label_values(&[part]).set(bytes);
        }
        self.bytes.collect()
    }
}
