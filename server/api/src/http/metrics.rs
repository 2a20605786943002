//! `/metrics`: what the server counts and measures, for Prometheus.

use axum::{
    extract::{MatchedPath, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use outrigger_query::QueryEngine;
use outrigger_storage::Storage;
use outrigger_triggers::Gauges;
use prometheus::{
    IntCounterVec, Opts, Registry, TextEncoder, core::Collector,
    process_collector::ProcessCollector,
};
use tracing::error;

use super::Shared;

/// Everything that can be read from `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    requests: IntCounterVec,
}

impl Metrics {
    /// The metrics of the server's parts, and `others`.
    pub fn new(
        storage: &Storage,
        queries: &QueryEngine,
        gauges: Gauges,
        others: Vec<Box<dyn Collector>>,
    ) -> Self {
        let requests = Opts::new("outrigger_http_requests_total", "HTTP requests answered");
        let requests = IntCounterVec::new(requests, &["method", "route", "status"])
            .expect("the name is valid");
        let own: [Box<dyn Collector>; 2] = [
            Box::new(requests.clone()),
            Box::new(ProcessCollector::for_self()),
        ];
        let registry = Registry::new();
        let collectors = storage.collectors().into_iter().chain(queries.collectors());
        let collectors = collectors.chain(gauges.collectors()).chain(others);
        for collector in collectors.chain(own) {
            registry
                .register(collector)
                .expect("no two metrics have the same name");
        }
        Self {
            registry,
            gauges,
            requests,
        }
    }

    /// Counts an answer. Routes are templates, so that there are only so many of them;
    /// what has none, and methods that nothing answers, are counted together.
    pub(super) fn count(
        &self,
        method: &http::Method,
        route: Option<&MatchedPath>,
        status: StatusCode,
    ) {
        let method = match method.as_str() {
            known @ ("GET" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "HEAD" | "PATCH") => known,
            _ => "other",
        };
        let route = route.map_or("none", MatchedPath::as_str);
        self.requests
            .with_label_values(&[method, route, status.as_str()])
            .inc();
    }
}

pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let metrics = &shared.metrics;
    let families = metrics.gauges.measured(|| metrics.registry.gather()).await;
    match TextEncoder::new().encode_to_string(&families) {
        Ok(mut text) => {
            text.push_str("# EOF\n");
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => {
            error!(%error, "cannot write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
