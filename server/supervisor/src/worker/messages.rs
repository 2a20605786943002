//! What the messages to and from a worker look like, and which of a worker's are refused.

use std::time::Duration;

use outrigger_model::{clock::Timestamp, trace::TraceContext};
use outrigger_proto::v1::{
    Arguments, Bind, FileRef, FilesEvent, Invoke, Log, Package, PluginError, RequestEvent,
    ScheduleEvent, SingleFile, SourceFile, TableRef, Timings, WriteEvent, bind, from_worker,
    invoke, log::Level,
};

use super::call::Limits;
use crate::{
    backend::{LogLevel, LogLine, Scope},
    error::PluginFailure,
    invocation::{Event, EventFile, EventTable, Invocation, Phases, Plugin, Response, Source},
    registry::InvocationKey,
};

/// What a load is called in `Cancel`, `Probe` and `Heartbeat`: it is no invocation.
pub(super) const LOADING: &str = "";
/// The longest log line: what the plugin host cuts lines to, and its mark.
const LOG_BYTES_MAX: usize = 72 * 1024;
/// The most headers of a response, and their bytes. The plugin host refuses more than 999
/// and 64 KiB, and adds one.
const HEADERS_MAX: usize = 1000;
const HEADERS_BYTES_MAX: usize = 72 * 1024;
/// The longest body of a response; the plugin host has the same limit.
const BODY_BYTES_MAX: usize = 12 * 1024 * 1024;
/// What is kept of an exception's text, and of its traceback.
const EXCEPTION_BYTES_MAX: usize = 8 * 1024;
const TRACEBACK_BYTES_MAX: usize = 72 * 1024;

/// Refuses a message that is about another invocation, or too large.
pub(super) fn check(message: &from_worker::Message, scope: &Scope) -> Result<(), String> {
    let named = match message {
        from_worker::Message::Log(log) if log.text.len() > LOG_BYTES_MAX => {
            return Err(format!("a log line of {} bytes", log.text.len()));
        }
        from_worker::Message::Log(log) => &log.invocation,
        from_worker::Message::Lines(lines) => &lines.invocation,
        from_worker::Message::Completed(completed) => &completed.invocation,
        from_worker::Message::Heartbeat(heartbeat) => &heartbeat.invocation,
        _ => return Ok(()),
    };
    if **named == *scope.invocation.0 {
        return Ok(());
    }
    Err(format!("{} for an unknown invocation", name(message)))
}

/// What a message is called in reports of violations.
pub(super) fn name(message: &from_worker::Message) -> &'static str {
    match message {
        from_worker::Message::Hello(_) => "hello",
        from_worker::Message::Ready(_) => "ready",
        from_worker::Message::LoadFailed(_) => "load failed",
        from_worker::Message::Log(_) => "log",
        from_worker::Message::Lines(_) => "lines",
        from_worker::Message::Completed(_) => "completed",
        from_worker::Message::Heartbeat(_) => "heartbeat",
    }
}

pub(super) fn bind(plugin: &Plugin) -> Bind {
    let source = match &plugin.source {
        Source::SingleFile(text) => bind::Source::SingleFile(SingleFile {
            text: text.to_vec(),
        }),
        Source::Package(package) => bind::Source::Package(Package {
            name: package.name.clone(),
            files: package
                .files
                .iter()
                .map(|(path, text)| SourceFile {
                    path: path.clone(),
                    text: text.to_vec(),
                })
                .collect(),
        }),
    };
    Bind {
        binding: plugin.binding.to_string(),
        plugin_name: plugin.name.clone(),
        revision: plugin.revision.clone(),
        source: Some(source),
        arguments: plugin.arguments.clone().map(|values| Arguments {
            values: values.into_iter().collect(),
        }),
    }
}

pub(super) fn invoke(
    invocation: &Invocation,
    key: InvocationKey,
    (limits, left): (Limits, Duration),
    trace: TraceContext,
) -> Invoke {
    Invoke {
        invocation: invocation.id.to_string(),
        attempt: invocation.attempt,
        key: key.to_vec(),
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        lines_bytes_max: limits.lines_bytes_max as u64,
        event: Some(event(&invocation.event)),
        trace_parent: trace.to_string(),
    }
}

fn event(event: &Event) -> invoke::Event {
    match event {
        Event::Writes(tables) => {
            let tables = tables.iter().enumerate().map(table_reference).collect();
            invoke::Event::Writes(WriteEvent { tables })
        }
        Event::Files(files) => {
            let files = files.iter().enumerate().map(file_reference).collect();
            invoke::Event::Files(FilesEvent { files })
        }
        Event::Schedule { call_time } => invoke::Event::Schedule(ScheduleEvent {
            call_time_ns: call_time.0,
        }),
        Event::Request(request) => invoke::Event::Request(RequestEvent {
            query: request.query.clone().into_iter().collect(),
            headers: request.headers.clone().into_iter().collect(),
            body: request.body.to_vec(),
        }),
    }
}

fn table_reference((index, table): (usize, &EventTable)) -> TableRef {
    TableRef {
        name: table.name.clone(),
        rows: table
            .batches
            .iter()
            .map(|batch| batch.num_rows() as u64)
            .sum(),
        index: u32::try_from(index).expect("an event has fewer tables"),
    }
}

fn file_reference((index, file): (usize, &EventFile)) -> FileRef {
    FileRef {
        index: u32::try_from(index).expect("an event has fewer files"),
        table: file.table.clone(),
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        rows: file.rows,
        min_time_ns: file.min_time.0,
        max_time_ns: file.max_time.0,
        reason: file.reason.to_owned(),
        replaces: file.replaces.clone(),
    }
}

/// What a completed invocation answers; only a request has an answer.
pub(super) fn response(
    answer: Option<outrigger_proto::v1::Response>,
    asked: bool,
) -> Result<Option<Response>, String> {
    match (answer, asked) {
        (None, false) => Ok(None),
        (None, true) => Err("completed a request without a response".to_owned()),
        (Some(_), false) => Err("completed with a response to no request".to_owned()),
        (Some(answer), true) => {
            let status = u16::try_from(answer.status).ok();
            let status = status.filter(|status| (100..=999).contains(status));
            let status =
                status.ok_or_else(|| format!("a response with status {}", answer.status))?;
            check_size(&answer)?;
            let headers = answer
                .headers
                .into_iter()
                .map(|header| (header.name, header.value));
            Ok(Some(Response {
                status,
                headers: headers.collect(),
                body: answer.body.into(),
            }))
        }
    }
}

fn check_size(answer: &outrigger_proto::v1::Response) -> Result<(), String> {
    let (count, bytes) = (answer.headers.len(), answer.body.len());
    if count > HEADERS_MAX {
        return Err(format!("a response with {count} headers"));
    }
    let headers = answer.headers.iter();
    let headers: usize = headers
        .map(|header| header.name.len() + header.value.len())
        .sum();
    if headers > HEADERS_BYTES_MAX {
        return Err(format!("a response with {headers} bytes of headers"));
    }
    if bytes > BODY_BYTES_MAX {
        return Err(format!("a response with a body of {bytes} bytes"));
    }
    Ok(())
}

/// What the worker says of an exception, cut to what is worth storing.
pub(super) fn failure(error: PluginError) -> PluginFailure {
    let says_nothing = error.r#type.is_empty() && error.message.is_empty();
    let message = if says_nothing {
        "the plugin failed, and its worker does not say how".to_owned()
    } else {
        error.message
    };
    PluginFailure {
        exception: cut(error.r#type, EXCEPTION_BYTES_MAX),
        message: cut(message, EXCEPTION_BYTES_MAX),
        traceback: cut(error.traceback, TRACEBACK_BYTES_MAX),
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// How the worker says that it spent its time: no more than there was.
pub(super) fn phases(timings: Option<Timings>, wall: Duration) -> Phases {
    let timings = timings.unwrap_or_default();
    let bounded = |us| Duration::from_micros(us).min(wall);
    Phases {
        transfer: bounded(timings.transfer_us),
        conversion: bounded(timings.conversion_us),
        plugin: bounded(timings.plugin_us),
    }
}

/// A log line as the worker says it, its time bounded by what the server knows: a
/// plugin must not hide lines in the past or the future.
pub(super) fn log_line(log: Log, started: Timestamp, now: Timestamp) -> LogLine {
    let level = match log.level() {
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warn,
        Level::Info | Level::Unspecified => LogLevel::Info,
    };
    let time = Timestamp(log.time_ns).clamp(started, now.max(started));
    LogLine {
        level,
        text: log.text,
        time,
    }
}

#[cfg(test)]
mod tests {
    use outrigger_model::trace::Trace;
    use outrigger_proto::v1::Completed;

    use super::*;
    use crate::invocation::{BindingKey, InvocationId};

    #[test]
    fn messages_about_other_invocations_are_refused() {
        let completed = |invocation: &str| {
            let (invocation, outcome) = (invocation.to_owned(), None);
            from_worker::Message::Completed(Completed {
                invocation,
                outcome,
                ..Completed::default()
            })
        };
        assert_eq!(check(&completed("1-2-3"), &scope()), Ok(()));
        let refused = check(&completed("1-2-4"), &scope());
        assert_eq!(
            refused,
            Err("completed for an unknown invocation".to_owned())
        );
    }

    #[test]
    fn over_long_log_lines_are_refused() {
        let refused = check(
            &from_worker::Message::Log(log(0, LOG_BYTES_MAX + 1)),
            &scope(),
        );
        assert!(refused.unwrap_err().starts_with("a log line of"));
    }

    #[test]
    fn a_log_line_cannot_leave_its_invocation() {
        let time = |ns| log_line(log(ns, 1), Timestamp(100), Timestamp(200)).time;
        assert_eq!(
            (time(-5), time(150), time(i64::MAX)),
            (Timestamp(100), Timestamp(150), Timestamp(200))
        );
    }

    #[test]
    fn exceptions_are_cut_between_characters() {
        let error = PluginError {
            message: "ä".repeat(10_000),
            ..PluginError::default()
        };
        assert_eq!(failure(error).message.len(), EXCEPTION_BYTES_MAX);
    }

    fn log(time_ns: i64, bytes: usize) -> Log {
        Log {
            invocation: "1-2-3".to_owned(),
            level: 1,
            text: "x".repeat(bytes),
            time_ns,
        }
    }

    fn scope() -> Scope {
        Scope {
            binding: BindingKey("b".into()),
            invocation: InvocationId("1-2-3".into()),
            trace: Trace::unrecorded(),
        }
    }
}
