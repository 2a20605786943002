//! Which HTTP status and gRPC code a failure gets, and what its answer looks like.

use std::{error::Error, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use outrigger_catalog::CatalogError;
use outrigger_model::{
    error::{ErrorKind, Report},
    line_protocol::LineError,
};
use outrigger_query::QueryError;
use outrigger_storage::{WriteError, WriteErrorBody};
use outrigger_supervisor::environment::InstallError;
use outrigger_triggers::{DryRunError, TriggerError};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tracing::error;

/// The longest message of a gRPC error, in characters: it travels in a header.
const GRPC_MESSAGE_CHARS_MAX: usize = 2000;

/// The one table of statuses and codes.
fn codes(kind: ErrorKind) -> (StatusCode, Code) {
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, Code::NotFound),
        ErrorKind::Conflict => (StatusCode::CONFLICT, Code::AlreadyExists),
        ErrorKind::Exhausted => (StatusCode::UNPROCESSABLE_ENTITY, Code::ResourceExhausted),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        ErrorKind::Deadline => (StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
    }
}

/// An HTTP request that failed. Most clients expect plain text without a content type;
/// what is JSON, is JSON because they parse it.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    body: ErrorBody,
    /// A plugin failed, which stands in its own log and is no fault of the server's.
    of_plugin: bool,
    /// When it may work, where the status says that it may later.
    retry_after: Duration,
}

#[derive(Debug)]
enum ErrorBody {
    Text(String),
    Json(Value),
}

impl HttpError {
    /// A failure that is told as text.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self::with_status(codes(kind).0, text)
    }

    /// The client's mistake.
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, text)
    }

    /// A refusal that only HTTP knows, so that no kind stands for it.
    pub(crate) fn with_status(status: StatusCode, text: impl Into<String>) -> Self {
        let body = ErrorBody::Text(text.into());
        Self {
            status,
            body,
            of_plugin: false,
            retry_after: Duration::ZERO,
        }
    }

    /// A plugin did not answer, or not in a way that can be sent.
    pub(crate) fn of_plugin(kind: ErrorKind, text: &str) -> Self {
        let error = Self::json(kind, serde_json::json!({ "error": text }));
        Self {
            of_plugin: true,
            ..error
        }
    }

    /// The failure, after which trying again makes sense when this time has passed.
    pub(crate) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        let retry_after = retry_after.unwrap_or_default();
        Self {
            retry_after,
            ..self
        }
    }

    /// Nobody answers requests to the path. Existing clients look for `not found`.
    pub(crate) fn no_request_trigger(path: &str) -> Self {
        let message = format!(
            "no enabled request trigger has the path {path:?}: create one with --trigger-spec \
             request:PATH, or enable it"
        );
        let body = json!({ "error": "not found", "message": message });
        Self::json(ErrorKind::NotFound, body)
    }

    /// A failure that is told as JSON.
    fn json(kind: ErrorKind, body: Value) -> Self {
        let (status, _) = codes(kind);
        Self {
            status,
            body: ErrorBody::Json(body),
            of_plugin: false,
            retry_after: Duration::ZERO,
        }
    }

    fn report(kind: ErrorKind, error: &(dyn Error + 'static)) -> Self {
        Self::new(kind, Report(error).to_string())
    }
}

impl From<WriteError> for HttpError {
    fn from(error: WriteError) -> Self {
        let data = match error.lines() {
            WriteErrorBody::One(line) => line_json(line),
            WriteErrorBody::Many(lines) => lines.iter().map(line_json).collect(),
            WriteErrorBody::None => match error {
                WriteError::Catalog(error) => return error.into(),
                error if error.kind() == ErrorKind::Invalid => {
                    return Self::report(error.kind(), &error);
                }
                error => {
                    let body = json!({ "error": Report(&error).to_string() });
                    return Self::json(error.kind(), body);
                }
            },
        };
        let body = json!({ "error": error.to_string(), "data": data });
        Self::json(error.kind(), body)
    }
}

impl From<CatalogError> for HttpError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::DatabaseName(_) | CatalogError::Deleted(_) => {
                Self::json(error.kind(), json!({ "error": Report(&error).to_string() }))
            }
            error => Self::report(error.kind(), &error),
        }
    }
}

impl From<QueryError> for HttpError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::DatabaseNotFound(_) => Self::json(
                error.kind(),
                json!({ "error": format!("query error: {error}") }),
            ),
            error => Self::report(error.kind(), &error),
        }
    }
}

impl From<TriggerError> for HttpError {
    fn from(error: TriggerError) -> Self {
        Self::report(error.kind(), &error)
    }
}

impl From<InstallError> for HttpError {
    fn from(error: InstallError) -> Self {
        let report = Report(&error).to_string();
        match error {
            InstallError::Disabled => Self::with_status(StatusCode::FORBIDDEN, report),
            error => {
                let text =
                    format!("Processing engine error: error installing python packages: {report}");
                Self::new(error.kind(), text)
            }
        }
    }
}

impl From<DryRunError> for HttpError {
    fn from(error: DryRunError) -> Self {
        match error {
            DryRunError::Write(error) => error.into(),
            error => Self::report(error.kind(), &error),
        }
    }
}

fn line_json(line: &LineError) -> Value {
    json!({
        "error_message": line.message,
        "line_number": line.line_number,
        "original_line": line.original_line,
    })
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (text, is_json) = match self.body {
            ErrorBody::Text(text) => (text, false),
            ErrorBody::Json(value) => (value.to_string(), true),
        };
        if self.status == StatusCode::INTERNAL_SERVER_ERROR && !self.of_plugin {
            error!(error = text, "request failed");
        }
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if is_json {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // Whole seconds, and never too early.
            let seconds = self.retry_after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A query that failed, as gRPC tells it.
pub(crate) fn grpc_status(error: &QueryError) -> Status {
    let (_, code) = codes(error.kind());
    let text = Report(error).to_string();
    if code == Code::Internal {
        error!(error = text, "query failed");
    }
    Status::new(code, cut(text))
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(GRPC_MESSAGE_CHARS_MAX) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use outrigger_log::LogError;
    use outrigger_model::bytes::ByteSize;

    use super::*;

    #[test]
    fn every_kind_has_a_status_and_a_code() {
        check(ErrorKind::Invalid, 400, Code::InvalidArgument);
        check(ErrorKind::NotFound, 404, Code::NotFound);
        check(ErrorKind::Conflict, 409, Code::AlreadyExists);
        check(ErrorKind::Exhausted, 422, Code::ResourceExhausted);
        check(ErrorKind::Unavailable, 503, Code::Unavailable);
        check(ErrorKind::Deadline, 504, Code::DeadlineExceeded);
        check(ErrorKind::Internal, 500, Code::Internal);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(cut("ä".repeat(3000)).chars().count(), 2000);
        assert_eq!(cut("short".to_owned()), "short");
    }

    #[tokio::test]
    async fn one_line_is_an_object_and_several_are_an_array() {
        let line = LineError {
            line_number: 2,
            original_line: "bad".to_owned(),
            message: "why".to_owned(),
            limit: false,
        };
        let data = r#"{"error_message":"why","line_number":2,"original_line":"bad"}"#;
        let one = format!(r#"{{"data":{data},"error":"line protocol parsing error"}}"#);
        check_body(WriteError::Line(line.clone()), &one).await;
        let many =
            format!(r#"{{"data":[{data}],"error":"partial write of line protocol occurred"}}"#);
        check_body(WriteError::Partial(vec![line]), &many).await;
        check_body(WriteError::Empty, "incoming write was empty").await;
    }

    #[tokio::test]
    async fn what_the_store_does_is_told_with_a_reason_and_when_to_come_back() {
        let waits = LogError::NotYetDurable {
            waited: Duration::from_secs(30),
            reason: "no space left on device".to_owned(),
        };
        let behind = WriteError::Behind {
            rows: ByteSize::mib(600),
            max: ByteSize::mib(512),
            reason: "no space left on device".to_owned(),
        };
        for error in [waits.into(), behind] {
            let response = HttpError::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(header::RETRY_AFTER));
            let body = to_bytes(response.into_body(), 1000).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let text = body["error"].as_str().unwrap();
            assert!(text.contains("no space left on device"), "{text}");
            assert!(text.contains("again"), "{text}");
        }
    }

    #[track_caller]
    fn check(kind: ErrorKind, status: u16, code: Code) {
        let (found, found_code) = codes(kind);
        assert_eq!((found.as_u16(), found_code), (status, code));
    }

    async fn check_body(error: WriteError, expected: &str) {
        let response = HttpError::from(error).into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
}
