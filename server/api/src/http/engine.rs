//! `/api/v3/engine/<path>`: requests that plugins answer.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use outrigger_model::{error::ErrorKind, trace::Trace};
use outrigger_supervisor::{Request as PluginRequest, Response as PluginResponse};
use outrigger_triggers::AnswerError;
use tracing::debug;

use super::{Shared, request};
use crate::error::HttpError;

/// Where the paths of request triggers begin.
pub(crate) const PREFIX: &str = "/api/v3/engine/";

pub(crate) async fn call(
    State(shared): State<Shared>,
    Extension(trace): Extension<Trace>,
    request: Request,
) -> Result<Response, HttpError> {
    // As it stands in the request line: what a trigger's path is compared with.
    let path = request
        .uri()
        .path()
        .strip_prefix(PREFIX)
        .unwrap_or_default()
        .to_owned();
    let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let query: BTreeMap<String, String> = query.into_owned().collect();
    let headers = plugin_headers(request.headers());
    let body = request::body(request, shared.config.max_request_bytes).await?;
    let answered = shared
        .triggers
        .answer(
            &path,
            PluginRequest {
                query,
                headers,
                body,
            },
            trace.context(),
        )
        .await;
    let unfit = |text: String| HttpError::of_plugin(ErrorKind::Internal, &text);
    response(answered.map_err(|error| refuse(&path, error))?).map_err(unfit)
}

fn refuse(path: &str, error: AnswerError) -> HttpError {
    match error {
        AnswerError::NotFound => HttpError::no_request_trigger(path),
        error => {
            let answer = HttpError::of_plugin(error.kind(), &error.to_string());
            match error {
                AnswerError::Unavailable { retry_after, .. } => {
                    answer.with_retry_after(retry_after)
                }
                _ => answer,
            }
        }
    }
}

/// Whether plugins get a header.
pub(super) fn reaches_plugins(name: &str) -> bool {
    name != header::AUTHORIZATION
}

/// The headers as plugins get them: names in lower case, the last of several wins, and
/// without the client's credentials, which are for the server.
fn plugin_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .filter(|(name, _)| reaches_plugins(name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), header_text(value.as_bytes())))
        .collect()
}

/// UTF-8 if it is that, else Latin-1, which every sequence of bytes is.
fn header_text(value: &[u8]) -> String {
    match str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().copied().map(char::from).collect(),
    }
}

/// Whether a response with this status has a body.
pub(super) fn carries_body(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

fn body(status: StatusCode, bytes: Bytes) -> Body {
    match status {
        status if carries_body(status) => Body::from(bytes),
        // Its length is said, so that the client knows that the response is over.
        StatusCode::RESET_CONTENT => Body::empty(),
        // These have no length either: from a stream, none can be told.
        _ => Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()),
    }
}

/// The plugin's response, or why HTTP cannot carry it.
pub(super) fn response(answer: PluginResponse) -> Result<Response, String> {
    let unfit = |what: String| format!("the plugin's response cannot be sent: {what}");
    let status = StatusCode::from_u16(answer.status)
        .ok()
        // Those only announce a response, and 101 would end HTTP on the connection.
        .filter(|status| !status.is_informational())
        .ok_or_else(|| {
            let number = answer.status;
            unfit(format!("the status must be from 200 to 999, not {number}"))
        })?;
    let mut response = Response::new(body(status, answer.body));
    *response.status_mut() = status;
    for (name, value) in answer.headers {
        let header = HeaderName::try_from(&name)
            .map_err(|_invalid| unfit(format!("header {name:?} with value {value:?}")))?;
        // As InfluxDB 3 does. The worker replaces such values too, and tells the plugin.
        let value = HeaderValue::try_from(&value).unwrap_or(HeaderValue::from_static(""));
        // The server itself says how long the body is and how it is framed.
        if header == header::CONTENT_LENGTH || header == header::TRANSFER_ENCODING {
            debug!(name, "left out a header of a plugin's response");
            continue;
        }
        response.headers_mut().append(header, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{
        body::{HttpBody, to_bytes},
        response::IntoResponse,
    };

    use super::*;

    #[test]
    fn plugins_get_no_credentials() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer x"));
        headers.append("x-key", HeaderValue::from_static("1"));
        headers.append("x-key", HeaderValue::from_static("2"));
        headers.append("x-latin", HeaderValue::from_bytes(b"\xe4").unwrap());
        let utf8 = HeaderValue::from_bytes("ä€".as_bytes());
        headers.append("x-utf8", utf8.unwrap());
        let expected = [("x-key", "2"), ("x-latin", "ä"), ("x-utf8", "ä€")];
        let given = plugin_headers(&headers);
        let given: Vec<_> = given
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn responses_that_http_cannot_carry_are_refused() {
        let answer = |name: &str, value: &str| PluginResponse {
            status: 201,
            headers: vec![(name.to_owned(), value.to_owned())],
            body: "x".into(),
        };
        let sent = response(answer("X-A", "b")).unwrap();
        assert_eq!(
            (sent.status().as_u16(), &sent.headers()["x-a"]),
            (201, &HeaderValue::from_static("b"))
        );
        assert!(response(answer("bad name", "b")).is_err());
        let empty = response(answer("x", "a\nb")).unwrap();
        assert_eq!(empty.headers()["x"], "");
        assert!(
            response(answer("Content-Length", "999"))
                .unwrap()
                .headers()
                .is_empty()
        );
    }

    #[test]
    fn a_pause_is_told() {
        let refused = |retry_after| {
            let text = "paused".to_owned();
            let response =
                refuse("x", AnswerError::Unavailable { text, retry_after }).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            response.headers()[header::RETRY_AFTER].clone()
        };
        assert_eq!(refused(Some(Duration::from_millis(4001))), "5");
        assert_eq!(refused(Some(Duration::from_mins(1))), "60");
        assert_eq!(refused(Some(Duration::ZERO)), "1");
        assert_eq!(refused(None), "1");
    }

    #[tokio::test]
    async fn a_status_decides_whether_there_is_a_body() {
        let answer = |status| PluginResponse {
            status,
            headers: Vec::new(),
            body: "x".into(),
        };
        for (status, sent, length) in [
            (200, "x", Some(1)),
            (204, "", None),
            (205, "", Some(0)),
            (304, "", None),
            (404, "x", Some(1)),
        ] {
            let body = response(answer(status)).unwrap().into_body();
            assert_eq!(body.size_hint().exact(), length, "{status}");
            assert_eq!(to_bytes(body, 9).await.unwrap(), sent, "{status}");
        }
        for status in [0, 99, 100, 101, 103, 199, 1000] {
            let refused = response(answer(status)).unwrap_err();
            let expected = format!("must be from 200 to 999, not {status}");
            assert!(refused.ends_with(&expected), "{refused}");
        }
    }
}
