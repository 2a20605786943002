//! The server's own durable tables: rows that are only ever appended, and of which the
//! newest are kept.

mod invocations;
mod logs;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::SchemaRef,
};
use outrigger_model::trace::TraceContext;

pub use self::{
    invocations::{Outcome, PluginInvocation},
    logs::{LogLevel, PluginLog},
};
use crate::record::Meaning;

/// A journal table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum JournalTable {
    /// What plugins and the engine said: `system.processing_engine_logs`.
    PluginLogs,
    /// What was run and what it cost: `system.plugin_invocations`.
    PluginInvocations,
}

impl JournalTable {
    /// Its number in the log; never changes.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::PluginLogs => 1,
            Self::PluginInvocations => 2,
        }
    }

    pub(crate) fn from_number(number: u16) -> Option<Self> {
        [Self::PluginLogs, Self::PluginInvocations]
            .into_iter()
            .find(|table| table.number() == number)
    }

    /// Its columns.
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::PluginLogs => logs::schema(),
            Self::PluginInvocations => invocations::schema(),
        }
    }

    /// The column of the time at which its rows came to be.
    pub fn time_column(self) -> &'static str {
        match self {
            Self::PluginLogs => "event_time",
            Self::PluginInvocations => "start_time",
        }
    }

    /// About how many rows are kept: the oldest go first.
    pub(crate) fn rows_max(self) -> usize {
        match self {
            Self::PluginLogs => 250_000,
            Self::PluginInvocations => 100_000,
        }
    }
}

/// Rows for the journals.
#[derive(Clone, Debug, Default)]
pub struct JournalRows {
    /// Of [`JournalTable::PluginLogs`].
    pub logs: Vec<PluginLog>,
    /// Of [`JournalTable::PluginInvocations`].
    pub invocations: Vec<PluginInvocation>,
}

impl JournalRows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.invocations.is_empty()
    }

    /// The rows as records of the log.
    pub(crate) fn meanings(&self) -> impl Iterator<Item = Meaning> {
        let record = |table, rows: usize, batch: &dyn Fn() -> RecordBatch| {
            (rows > 0).then(|| Meaning::Journal {
                table,
                batch: batch(),
            })
        };
        let Self { logs, invocations } = self;
        let logs = record(JournalTable::PluginLogs, logs.len(), &|| logs::batch(logs));
        let invocations = record(JournalTable::PluginInvocations, invocations.len(), &|| {
            invocations::batch(invocations)
        });
        logs.into_iter().chain(invocations)
    }
}

/// The columns `trace_id` and `span_id`.
fn trace_columns(traces: impl Iterator<Item = Option<TraceContext>> + Clone) -> [ArrayRef; 2] {
    let text = |id: fn(TraceContext) -> String| -> ArrayRef {
        let ids = traces.clone().map(|trace| trace.map(id));
        Arc::new(ids.collect::<StringArray>())
    };
    [
        text(|trace| trace.trace_id.to_string()),
        text(|trace| trace.span_id.to_string()),
    ]
}
