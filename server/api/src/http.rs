//! Which path leads where, and what every answer has in common.

mod databases;
mod engine;
mod health;
mod metrics;
mod packages;
mod plugin_test;
mod plugins;
mod query;
mod request;
mod tables;
mod traced;
mod triggers;
mod write;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tonic::Status;
use tracing::{Instrument, info_span};

pub use self::metrics::Metrics;
use crate::{Deps, error::HttpError};

type Shared = Arc<Deps>;

const ANY: HeaderValue = HeaderValue::from_static("*");

/// All of HTTP, and `flight` beside it.
pub(crate) fn router(deps: Deps, flight: Router) -> Router {
    const DATABASE: &str = "/api/v3/configure/database";
    const ENVIRONMENT: &str = "/api/v3/configure/plugin_environment";
    const TRIGGER: &str = "/api/v3/configure/processing_engine_trigger";
    let shared: Shared = Arc::new(deps);
    let databases = get(databases::list)
        .post(databases::create)
        .put(databases::update)
        .delete(databases::delete);
    let retention = post(databases::put_retention).delete(databases::delete_retention);
    let tables = post(tables::create).delete(tables::delete);
    let triggers = post(triggers::create).delete(triggers::delete);
    Router::new()
        .route("/api/v3/write_lp", post(write::write_lp))
        .route(
            "/api/v3/query_sql",
            get(query::get_sql).post(query::post_sql),
        )
        .route(DATABASE, databases)
        .route(&format!("{DATABASE}/retention_period"), retention)
        .route("/api/v3/configure/table", tables)
        .route(TRIGGER, triggers)
        .route(&format!("{TRIGGER}/enable"), post(triggers::enable))
        .route(&format!("{TRIGGER}/disable"), post(triggers::disable))
        .route(
            "/api/v3/plugins/files",
            post(plugins::upload).put(plugins::update),
        )
        .route("/api/v3/plugins/directory", put(plugins::update_directory))
        .route("/api/v3/plugin_test/wal", post(plugin_test::wal))
        .route(
            "/api/v3/plugin_test/persisted",
            post(plugin_test::persisted),
        )
        .route("/api/v3/plugin_test/schedule", post(plugin_test::schedule))
        .route("/api/v3/plugin_test/request", post(plugin_test::request))
        .route(
            "/api/v3/plugins/repository",
            put(plugins::update_from_repository),
        )
        .route(
            &format!("{ENVIRONMENT}/install_packages"),
            post(packages::install_packages),
        )
        .route(
            &format!("{ENVIRONMENT}/install_requirements"),
            post(packages::install_requirements),
        )
        .route(
            &format!("{}{{*path}}", engine::PREFIX),
            get(engine::call).post(engine::call),
        )
        .route("/health", get(health::health))
        .route("/api/v1/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route("/ping", get(health::ping).post(health::ping))
        .with_state(shared.clone())
        .merge(flight)
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(from_fn_with_state(shared, frame))
}

/// What happens around every request. OPTIONS and HEAD never reach a handler: the one
/// is answered for any path, the other for none.
async fn frame(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let span = traced::begin(&shared.tracer, &request);
    let trace_id = span.context().trace_id;
    request.extensions_mut().insert(span.trace());
    let path = request.uri().path();
    let lines = info_span!("request", method = %request.method(), path, %trace_id);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match method {
        Method::OPTIONS => preflight(),
        Method::HEAD => not_found(request).await,
        _ => next.run(request).instrument(lines).await,
    };
    let status = response.status();
    shared.metrics.count(&method, route.as_ref(), status);
    let is_success = response.status().is_success();
    let headers = response.headers_mut();
    if let Ok(cluster) = HeaderValue::try_from(shared.instance.cluster_uuid.to_string()) {
        headers.insert("cluster-uuid", cluster);
    }
    if is_success {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    }
    traced::end(span, response)
}

fn preflight() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ANY);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ANY);
    let max_age = HeaderValue::from_static("86400");
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn not_found(request: Request) -> Response {
    if is_grpc(&request) {
        let status = Status::unimplemented("no such service or method");
        return status.into_http::<Body>();
    }
    HttpError::with_status(StatusCode::NOT_FOUND, "Not found").into_response()
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// An answer without a body, and without a content type.
fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
