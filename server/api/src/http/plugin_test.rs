//! `/api/v3/plugin_test`: tries plugins out. What a dry run is, is decided by
//! [`DryRuns`](outrigger_triggers::DryRuns).

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderMap;
use outrigger_model::trace::Trace;
use outrigger_supervisor::{Request as PluginRequest, Response as PluginResponse};
use outrigger_triggers::{DryEvent, DryRun, DryRunReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Shared, engine, request, triggers};
use crate::error::HttpError;

/// The part of a body that every kind of test has.
#[derive(Debug, Deserialize)]
struct Common {
    filename: String,
    database: String,
    #[serde(default)]
    cache_name: Option<String>,
    #[serde(default)]
    input_arguments: Option<BTreeMap<String, Value>>,
    /// Ours: how long the run may take, for example "30s".
    #[serde(default)]
    timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WalBody {
    #[serde(flatten)]
    common: Common,
    input_lp: String,
    /// Ours: what a trigger for this table would see.
    #[serde(default)]
    table: Option<String>,
}

/// Ours as a whole.
#[derive(Debug, Deserialize)]
struct PersistedBody {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    files: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct ScheduleBody {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    schedule: Option<String>,
}

/// Ours as a whole.
#[derive(Debug, Deserialize)]
struct RequestBody {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    /// For what is not UTF-8.
    #[serde(default)]
    body_base64: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    log_lines: Vec<String>,
    database_writes: BTreeMap<String, Vec<String>>,
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScheduleReport {
    trigger_time: Option<String>,
    #[serde(flatten)]
    report: Report,
}

#[derive(Debug, Serialize)]
pub(crate) struct RequestReport {
    response: Option<Answer>,
    #[serde(flatten)]
    report: Report,
}

/// A plugin's response as a client would get it.
#[derive(Debug, Eq, PartialEq, Serialize)]
struct Answer {
    status: u16,
    /// Values of one name are joined.
    headers: BTreeMap<String, String>,
    /// None if it is not UTF-8.
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

pub(crate) async fn wal(
    State(shared): State<Shared>,
    Extension(trace): Extension<Trace>,
    request: Request,
) -> Result<Json<Report>, HttpError> {
    let body: WalBody = request::json(request, shared.config.max_request_bytes).await?;
    let (lines, table) = (body.input_lp, body.table);
    let event = DryEvent::Writes { lines, table };
    let report = shared
        .dry_runs
        .run(body.common.dry_run(event, trace)?)
        .await?;
    Ok(Json(report.into()))
}

pub(crate) async fn persisted(
    State(shared): State<Shared>,
    Extension(trace): Extension<Trace>,
    request: Request,
) -> Result<Json<Report>, HttpError> {
    let body: PersistedBody = request::json(request, shared.config.max_request_bytes).await?;
    let (table, files) = (body.table, body.files);
    let event = DryEvent::Files { table, files };
    let report = shared
        .dry_runs
        .run(body.common.dry_run(event, trace)?)
        .await?;
    Ok(Json(report.into()))
}

pub(crate) async fn schedule(
    State(shared): State<Shared>,
    Extension(trace): Extension<Trace>,
    request: Request,
) -> Result<Json<ScheduleReport>, HttpError> {
    let body: ScheduleBody = request::json(request, shared.config.max_request_bytes).await?;
    let schedule = body.schedule;
    let event = DryEvent::Schedule { schedule };
    let mut report = shared
        .dry_runs
        .run(body.common.dry_run(event, trace)?)
        .await?;
    Ok(Json(ScheduleReport {
        trigger_time: report.trigger_time.take(),
        report: report.into(),
    }))
}

pub(crate) async fn request(
    State(shared): State<Shared>,
    Extension(trace): Extension<Trace>,
    request: Request,
) -> Result<Json<RequestReport>, HttpError> {
    let body: RequestBody = request::json(request, shared.config.max_request_bytes).await?;
    let event = DryEvent::Request(PluginRequest {
        query: body.query,
        headers: plugin_headers(body.headers),
        body: content(body.body, body.body_base64)?.into(),
    });
    let mut report = shared
        .dry_runs
        .run(body.common.dry_run(event, trace)?)
        .await?;
    let response = match report.response.take().map(answer).transpose() {
        Ok(response) => response,
        Err(unfit) => {
            report.errors.push(unfit);
            None
        }
    };
    let report = report.into();
    Ok(Json(RequestReport { response, report }))
}

impl Common {
    fn dry_run(self, event: DryEvent, trace: Trace) -> Result<DryRun, HttpError> {
        let arguments = self.input_arguments.map(|arguments| {
            let arguments = arguments.into_iter().map(triggers::argument);
            arguments.collect::<Result<_, _>>()
        });
        Ok(DryRun {
            plugin: self.filename,
            database: self.database,
            arguments: arguments.transpose()?,
            cache_name: self.cache_name,
            timeout: self.timeout.as_deref().map(triggers::timeout).transpose()?,
            event,
            trace,
        })
    }
}

impl From<DryRunReport> for Report {
    fn from(report: DryRunReport) -> Self {
        Self {
            log_lines: report.log_lines,
            database_writes: report.database_writes,
            errors: report.errors,
        }
    }
}

/// As a request trigger's plugin would get them.
fn plugin_headers(headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let headers = headers.into_iter();
    headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| engine::reaches_plugins(name))
        .collect()
}

fn content(text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, HttpError> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(HttpError::invalid(
            "a request has either body or body_base64, not both",
        )),
        (text, None) => Ok(text.unwrap_or_default().into_bytes()),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| HttpError::invalid(format!("body_base64 is not base64: {error}"))),
    }
}

fn answer(response: PluginResponse) -> Result<Answer, String> {
    let mut bytes = response.body.clone();
    let sent = engine::response(response)?;
    if !engine::carries_body(sent.status()) {
        bytes.clear();
    }
    let body = String::from_utf8(bytes.to_vec()).ok();
    let body_base64 = body.is_none().then(|| STANDARD.encode(&bytes));
    Ok(Answer {
        status: sent.status().as_u16(),
        headers: joined(sent.headers()),
        body,
        body_base64,
    })
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str().to_owned())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_as_it_would_be_sent() {
        let response = |body: &'static [u8], name: &str| PluginResponse {
            status: 201,
            headers: vec![
                (name.to_owned(), "b".to_owned()),
                ("x-a".to_owned(), "c".to_owned()),
            ],
            body: body.into(),
        };
        let shown = answer(response(b"text", "X-A")).unwrap();
        let headers = BTreeMap::from([("x-a".to_owned(), "b, c".to_owned())]);
        let expected = Answer {
            status: 201,
            headers,
            body: Some("text".to_owned()),
            body_base64: None,
        };
        assert_eq!(shown, expected);
        let binary = answer(response(b"\xff\0", "x")).unwrap();
        assert_eq!(
            (binary.body, binary.body_base64),
            (None, Some("/wA=".to_owned()))
        );
        assert!(answer(response(b"", "bad name")).is_err());
        let empty = PluginResponse {
            status: 204,
            ..response(b"not sent", "x")
        };
        assert_eq!(answer(empty).unwrap().body.as_deref(), Some(""));
    }

    #[test]
    fn a_request_has_one_body() {
        assert_eq!(content(None, None).unwrap(), b"");
        assert_eq!(content(Some("x".to_owned()), None).unwrap(), b"x");
        assert_eq!(content(None, Some("/wA=".to_owned())).unwrap(), b"\xff\0");
        assert!(content(None, Some("?".to_owned())).is_err());
        assert!(content(Some(String::new()), Some(String::new())).is_err());
    }

    #[test]
    fn credentials_do_not_reach_a_plugin() {
        let headers = [("Authorization", "Bearer x"), ("X-Key", "1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let given = plugin_headers(headers.into());
        assert_eq!(given, [("x-key".to_owned(), "1".to_owned())].into());
    }
}
