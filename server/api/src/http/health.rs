//! `/health` and `/ping`: that the server is there, and who it is.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use uuid::Uuid;

use super::Shared;

pub(crate) async fn health() -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, plain)], "OK").into_response()
}

/// Clients tell InfluxDB 3 Core from other servers by this answer.
pub(crate) async fn ping(State(shared): State<Shared>) -> Response {
    let instance = &shared.instance;
    let body = json!({
        "product_name": "InfluxDB 3 Core",
        "version": instance.version,
        "revision": instance.revision,
        "process_id": instance.process_id.to_string(),
    });
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert("x-influxdb-build", HeaderValue::from_static("Core"));
    if let Ok(version) = HeaderValue::try_from(&instance.version) {
        headers.insert("x-influxdb-version", version);
    }
    if let Ok(id) = HeaderValue::try_from(Uuid::now_v7().to_string()) {
        headers.insert("request-id", id.clone());
        headers.insert("x-request-id", id);
    }
    (headers, Body::from(body.to_string())).into_response()
}
