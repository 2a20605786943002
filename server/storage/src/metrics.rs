//! What is counted about writes.

use prometheus::{IntCounterVec, Opts, core::Collector};

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
