//! A receiver of traces, as a collector is one: it takes OTLP over gRPC and remembers the spans.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1 as proto,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport};

use crate::eventually::eventually;

/// A span; ids are in hexadecimal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace: String,
    /// Who it is.
    pub id: String,
    /// Below whom it stands; empty if it begins the trace.
    pub parent: String,
    /// What was done.
    pub name: String,
    /// What it says, as text; by name.
    pub attributes: Vec<(String, String)>,
    /// The traces and spans that it came from.
    pub links: Vec<(String, String)>,
    /// Why it failed.
    pub error: Option<String>,
    /// What the server is called.
    pub service: String,
}

impl Span {
    /// What it says under a name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Receives until it is dropped. A story that has one needs several threads, since the end of a
/// server, which sends its last spans, blocks the one that waits for it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    memory: Memory,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Memory {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let received = request.into_inner().resource_spans;
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in received {
            let about = resource.resource.unwrap_or_default().attributes;
            let service = about.iter().find(|about| about.key == "service.name");
            let service = service
                .map(|about| text(about.value.clone()))
                .unwrap_or_default();
            let of_scopes = resource.scope_spans.into_iter();
            let of_all = of_scopes.flat_map(|scope| scope.spans);
            spans.extend(of_all.map(|received| span(received, &service)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    /// Listens on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let memory = Memory::default();
        let service = TraceServiceServer::new(memory.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("it serves until it is dropped");
        });
        Self {
            address,
            memory,
            _server: server,
        }
    }

    /// Where to send spans.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<Span> {
        let spans = self.memory.0.lock();
        spans.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of a trace, once they are complete.
    pub async fn until(
        &self,
        trace: &str,
        complete: impl Fn(&[Span]) -> bool + Send + Sync,
    ) -> Vec<Span> {
        eventually(&format!("trace {trace} is complete"), async || {
            let mut spans = self.spans();
            spans.retain(|span| span.trace == trace);
            if complete(&spans) {
                Ok(spans)
            } else {
                Err(format!("{spans:#?}"))
            }
        })
        .await
    }
}

fn span(span: proto::Span, service: &str) -> Span {
    let attributes = span.attributes.into_iter();
    let links = span.links.into_iter();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        attributes: attributes.map(|of| (of.key, text(of.value))).collect(),
        links: links
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        error: span.status.map(|status| status.message),
        service: service.to_owned(),
    }
}

fn text(value: Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
