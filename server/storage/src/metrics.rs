//! What is counted about writes, and what memory their rows take.

use std::{fmt, sync::Arc};

use prometheus::{
    IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::state::State;

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
