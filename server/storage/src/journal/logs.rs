//! What plugins and the engine said: the rows of `system.processing_engine_logs`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use outrigger_model::{clock::Timestamp, trace::TraceContext};

/// How important a log line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// As expected.
    Info,
    /// Unexpected, coped with.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// As the column `log_level` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// A row of [`super::JournalTable::PluginLogs`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginLog {
    /// When it was said.
    pub event_time: Timestamp,
    /// The trigger's name.
    pub trigger_name: String,
    /// How important it is.
    pub log_level: LogLevel,
    /// What was said.
    pub log_text: String,
    /// The invocation it was said in; `None` for what concerns the trigger as a whole.
    pub invocation_id: Option<String>,
    /// The attempt at it; `None` where there is no invocation.
    pub trace: Option<TraceContext>,
}

pub(super) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    Arc::new(Schema::new(vec![
        Field::new("event_time", time, false),
        Field::new("trigger_name", DataType::Utf8, false),
        Field::new("log_level", DataType::Utf8, false),
        Field::new("log_text", DataType::Utf8, false),
        Field::new("invocation_id", DataType::Utf8, true),
        Field::new("trace_id", DataType::Utf8, true),
        Field::new("span_id", DataType::Utf8, true),
    ]))
}

pub(super) fn batch(rows: &[PluginLog]) -> RecordBatch {
    let text = |column: fn(&PluginLog) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(column)))
    };
    let times = rows.iter().map(|row| row.event_time.0);
    let invocations: StringArray = rows
        .iter()
        .map(|row| row.invocation_id.as_deref())
        .collect();
    let [traces, spans] = super::trace_columns(rows.iter().map(|row| row.trace));
    let columns = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(times)) as ArrayRef,
        text(|row| &row.trigger_name),
        text(|row| row.log_level.as_str()),
        text(|row| &row.log_text),
        Arc::new(invocations),
        traces,
        spans,
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are made for the schema")
}
