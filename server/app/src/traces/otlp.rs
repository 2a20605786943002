//! How spans look in OTLP.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status::StatusCode},
};
use outrigger_model::{
    clock::Timestamp,
    trace::{Attribute, FinishedSpan, SpanKind, TraceContext},
};

/// Who sends spans.
#[derive(Debug)]
pub(super) struct About {
    resource: Resource,
    scope: InstrumentationScope,
}

impl About {
    pub(super) fn new(service_name: &str, node_id: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let attributes = [
            ("service.name", service_name),
            ("service.version", version),
            ("service.instance.id", node_id),
        ];
        let resource = Resource {
            attributes: attributes
                .map(|(key, value)| attribute(key, Attribute::from(value)))
                .to_vec(),
            ..Resource::default()
        };
        let scope = InstrumentationScope {
            name: "outrigger".to_owned(),
            version: version.to_owned(),
            ..InstrumentationScope::default()
        };
        Self { resource, scope }
    }

    /// What sends these.
    pub(super) fn request(&self, spans: Vec<FinishedSpan>) -> ExportTraceServiceRequest {
        let scope_spans = ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.into_iter().map(span).collect(),
            ..ScopeSpans::default()
        };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![resource_spans],
        }
    }
}

fn span(span: FinishedSpan) -> Span {
    let TraceContext {
        trace_id, span_id, ..
    } = span.context;
    let parent = span.parent.map(|parent| parent.as_bytes().to_vec());
    let attributes = span.attributes.into_iter();
    Span {
        trace_id: trace_id.as_bytes().to_vec(),
        span_id: span_id.as_bytes().to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        flags: flags(span.context),
        name: span.name.into_owned(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: attributes
            .map(|(key, value)| attribute(key, value))
            .collect(),
        links: span.links.into_iter().map(link).collect(),
        status: span.error.map(|message| Status {
            message,
            code: StatusCode::Error.into(),
        }),
        ..Span::default()
    }
}

fn link(context: TraceContext) -> span::Link {
    span::Link {
        trace_id: context.trace_id.as_bytes().to_vec(),
        span_id: context.span_id.as_bytes().to_vec(),
        flags: flags(context),
        ..span::Link::default()
    }
}

fn kind(kind: SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Internal => span::SpanKind::Internal,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Consumer => span::SpanKind::Consumer,
    }
}

/// The flags of W3C's trace context.
fn flags(context: TraceContext) -> u32 {
    u32::from(context.sampled)
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.0).unwrap_or_default()
}

fn attribute(key: &str, value: Attribute) -> KeyValue {
    let value = match value {
        Attribute::Text(text) => Value::StringValue(text),
        Attribute::Number(number) => Value::IntValue(number),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
