//! What was run and what it cost: the rows of `system.plugin_invocations`.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use outrigger_model::{clock::Timestamp, trace::TraceContext};

/// How an invocation ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// `ok`, or a word for what went wrong.
    pub name: &'static str,
    /// The first line of what is known about it.
    pub detail: Option<String>,
}

/// A row of [`super::JournalTable::PluginInvocations`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PluginInvocation {
    /// When it was asked for.
    pub start_time: Timestamp,
    /// The trigger's database.
    pub database_name: String,
    /// The trigger.
    pub trigger_name: String,
    /// As in the log lines.
    pub invocation_id: String,
    /// 1 for the first attempt at the event.
    pub attempt: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The process it ran in; 0 if it did not run.
    pub pid: u64,
    /// Waiting for a worker.
    pub queue_wait: Duration,
    /// Loading the plugin.
    pub bind: Duration,
    /// From the call to the answer.
    pub wall: Duration,
    /// In user mode.
    pub user_cpu: Duration,
    /// In the kernel.
    pub system_cpu: Duration,
    /// What the worker says of its time.
    pub transfer: Duration,
    /// Likewise.
    pub conversion: Duration,
    /// Likewise.
    pub plugin: Duration,
    /// The worker's peak memory.
    pub peak_memory_bytes: u64,
    /// Rows of the event.
    pub rows_in: u64,
    /// Bytes that were fetched.
    pub bytes_in: u64,
    /// Lines that were written.
    pub lines_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Lines that were logged.
    pub log_lines: u64,
    /// The attempt's span.
    pub trace: Option<TraceContext>,
}

type Number = (&'static str, fn(&PluginInvocation) -> u64);

/// The columns of numbers, in their order.
const NUMBERS: [Number; 16] = [
    ("attempt", |row| row.attempt),
    ("pid", |row| row.pid),
    ("queue_wait_us", |row| micros(row.queue_wait)),
    ("bind_us", |row| micros(row.bind)),
    ("wall_us", |row| micros(row.wall)),
    ("user_cpu_us", |row| micros(row.user_cpu)),
    ("system_cpu_us", |row| micros(row.system_cpu)),
    ("transfer_us", |row| micros(row.transfer)),
    ("conversion_us", |row| micros(row.conversion)),
    ("plugin_us", |row| micros(row.plugin)),
    ("peak_memory_bytes", |row| row.peak_memory_bytes),
    ("rows_in", |row| row.rows_in),
    ("bytes_in", |row| row.bytes_in),
    ("lines_out", |row| row.lines_out),
    ("bytes_out", |row| row.bytes_out),
    ("log_lines", |row| row.log_lines),
];

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    let mut fields = vec![
        Field::new("start_time", time, false),
        text("database_name", false),
        text("trigger_name", false),
        text("invocation_id", false),
        text("outcome", false),
        text("detail", true),
    ];
    fields.extend(NUMBERS.map(|(name, _)| Field::new(name, DataType::UInt64, false)));
    fields.extend(["trace_id", "span_id"].map(|name| text(name, true)));
    Arc::new(Schema::new(fields))
}

pub(super) fn batch(rows: &[PluginInvocation]) -> RecordBatch {
    let text = |column: fn(&PluginInvocation) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(column)))
    };
    let times = rows.iter().map(|row| row.start_time.0);
    let details = rows.iter().map(|row| row.outcome.detail.as_deref());
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(times)),
        text(|row| &row.database_name),
        text(|row| &row.trigger_name),
        text(|row| &row.invocation_id),
        text(|row| row.outcome.name),
        Arc::new(details.collect::<StringArray>()),
    ];
    columns.extend(NUMBERS.map(|(_, number)| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(number)))
    }));
    columns.extend(super::trace_columns(rows.iter().map(|row| row.trace)));
    RecordBatch::try_new(schema(), columns).expect("the columns are made for the schema")
}
