//! `POST /api/v3/write_lp`: line protocol in.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use outrigger_model::{line_protocol::Precision, trace::Trace};
use outrigger_storage::WriteRequest;
use serde::Deserialize;

use super::{Shared, empty, request};
use crate::error::HttpError;

#[derive(Debug, Deserialize)]
struct WriteParams {
    db: String,
    #[serde(default)]
    precision: Option<String>,
    #[serde(default = "yes")]
    accept_partial: bool,
    #[serde(default)]
    no_sync: bool,
}

fn yes() -> bool {
    true
}

pub(crate) async fn write_lp(
    State(shared): State<Shared>,
    Extension(trace): Extension<Trace>,
    request: Request,
) -> Result<Response, HttpError> {
    let params: WriteParams =
        request::require_query(request.uri(), "missing query parameter 'db'")?;
    let precision = match params.precision {
        None => Precision::default(),
        Some(name) => name
            .parse()
            .map_err(|error| HttpError::invalid(format!("serde error: {error}")))?,
    };
    let body = request::body(request, shared.config.max_request_bytes).await?;
    let text = std::str::from_utf8(&body)
        .map_err(|error| HttpError::invalid(format!("body content is not valid utf8: {error}")))?;
    let write = WriteRequest {
        database: params.db,
        text: text.into(),
        precision,
        accept_partial: params.accept_partial,
        no_sync: params.no_sync,
        trace,
    };
    shared.storage.write(write).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
