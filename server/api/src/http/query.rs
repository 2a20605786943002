//! `GET|POST /api/v3/query_sql`: SQL in, rows out.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::{HeaderMap, HeaderValue, header};
use outrigger_model::error::{ErrorKind, Report};
use outrigger_query::{Param, QueryError, format::Format};
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::{debug, warn};

use super::{Shared, request};
use crate::error::HttpError;

/// As in a URL, where the parameters are a JSON object written as text.
#[derive(Debug, Deserialize)]
struct UrlQuery {
    db: String,
    q: String,
    format: Option<String>,
    params: Option<String>,
}

#[derive(Debug, Deserialize)]
struct JsonQuery {
    db: String,
    q: String,
    format: Option<String>,
    params: Option<Map<String, Value>>,
}

pub(crate) async fn get_sql(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let accepted = accepted_format(request.headers())?;
    let missing = "missing query parameters 'db' and 'q'";
    let UrlQuery {
        db,
        q,
        format,
        params,
    } = request::require_query(request.uri(), missing)?;
    let params = params
        .map(|text| request::parse_json(text.as_bytes()))
        .transpose()?;
    let query = JsonQuery {
        db,
        q,
        format,
        params,
    };
    answer(&shared, query, accepted).await
}

pub(crate) async fn post_sql(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let accepted = accepted_format(request.headers())?;
    let body = request::body(request, shared.config.max_request_bytes).await?;
    answer(&shared, request::parse_json(&body)?, accepted).await
}

async fn answer(shared: &Shared, query: JsonQuery, accepted: &str) -> Result<Response, HttpError> {
    let format = parse_format(query.format.as_deref().unwrap_or(accepted))?;
    let params = parse_params(query.params.unwrap_or_default())?;
    let plan = shared.queries.plan(&query.db, &query.q, params).await?;
    let schema = plan.schema().clone();
    let text = format.encode(schema, plan.execute().await?);
    respond(format, text).await
}

/// Streams a result. The first piece is awaited, so that a query that fails at once is
/// answered with its error; one that fails later can only break off.
pub(super) async fn respond(
    format: Format,
    mut text: BoxStream<'static, Result<Bytes, QueryError>>,
) -> Result<Response, HttpError> {
    let first = text.next().await.transpose()?;
    let rest = text.inspect_err(|error| {
        let report = Report(error);
        if error.kind() == ErrorKind::Internal {
            warn!(error = %report, "result breaks off");
        } else {
            debug!(error = %report, "result breaks off");
        }
    });
    let all = stream::iter(first.map(Ok)).chain(rest);
    let mut response = Response::new(Body::from_stream(all));
    let content_type = HeaderValue::from_static(format.content_type());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

pub(super) fn parse_format(name: &str) -> Result<Format, HttpError> {
    name.parse()
        .map_err(|error| HttpError::invalid(format!("serde error: {error}")))
}

/// The name of the format that `Accept` asks for. It is looked at even where the request
/// names a format, because 3.10 does so.
fn accepted_format(headers: &HeaderMap) -> Result<&'static str, HttpError> {
    let Some(accept) = headers.get(header::ACCEPT) else {
        return Ok("json");
    };
    let accept = String::from_utf8_lossy(accept.as_bytes());
    match accept.as_ref() {
        "application/vnd.apache.parquet" => Ok("parquet"),
        "text/csv" => Ok("csv"),
        "text/plain" => Ok("pretty"),
        "application/json" => Ok("json"),
        any if any.contains("*/*") || any.contains("text/html") => Ok("json"),
        other => Err(HttpError::invalid(format!("invalid mime type ({other})"))),
    }
}

fn parse_params(params: Map<String, Value>) -> Result<BTreeMap<String, Param>, HttpError> {
    let parse = |(name, value): (String, Value)| match Param::try_from(value) {
        Ok(param) => Ok((name, param)),
        Err(error) => Err(HttpError::invalid(format!("parameter {name:?}: {error}"))),
    };
    params.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_a_format() {
        check("text/csv", Some("csv"));
        check("text/plain", Some("pretty"));
        check("application/json", Some("json"));
        check("application/vnd.apache.parquet", Some("parquet"));
        check("text/html,application/xml;q=0.9,*/*;q=0.8", Some("json"));
        check("text/csv;q=1", None);
        assert_eq!(accepted_format(&HeaderMap::new()).unwrap(), "json");
    }

    #[track_caller]
    fn check(accept: &'static str, expected: Option<&str>) {
        let value = HeaderValue::from_static(accept);
        let headers = HeaderMap::from_iter([(header::ACCEPT, value)]);
        assert_eq!(accepted_format(&headers).ok(), expected, "{accept}");
    }
}
