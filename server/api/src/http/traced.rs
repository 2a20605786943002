//! Whose trace does a request continue, and when does its span end?
//!
//! A client says in `traceparent` (W3C) or `uber-trace-id` (Jaeger) to which span its request
//! belongs; without one, or with one that makes no sense, the request begins a trace of its own.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request},
    response::Response,
};
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use outrigger_model::trace::{Span, SpanKind, TraceContext, Tracer};

use super::is_grpc;

/// Asked for every few seconds by machines: in no trace, unless the client says so.
const QUIET: [&str; 4] = ["/health", "/api/v1/health", "/ping", "/metrics"];
/// The longest name of a request that has no route.
const NAME_BYTES_MAX: usize = 100;

/// Begins the request's span; what it consists of stands below.
pub(super) fn begin(tracer: &Tracer, request: &Request) -> Span {
    let parent = parent(request.headers());
    let (method, path) = (request.method(), request.uri().path());
    let route = request.extensions().get::<MatchedPath>();
    let name = match route {
        // There the path is what is called, and the route only says that something is.
        Some(_) if is_grpc(request) => cut(path).to_owned(),
        Some(route) => format!("{method} {}", route.as_str()),
        None => format!("{method} unknown"),
    };
    let nobody = Tracer::default();
    let is_quiet = parent.is_none() && QUIET.contains(&path);
    let tracer = if is_quiet { &nobody } else { tracer };
    let mut span = tracer.begin(name, SpanKind::Server, parent);
    span.set("http.request.method", method.as_str());
    span.set("url.path", path);
    span
}

/// Lets the span end with the response's body.
pub(super) fn end(mut span: Span, response: Response) -> Response {
    let status = response.status();
    span.set("http.response.status_code", u64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail(&status);
    }
    // What is whole is as good as sent.
    if !span.is_recorded() || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::new(Traced { body, span }))
}

/// The client's span. One that is said twice is not said.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none());
        value.and_then(|value| value.to_str().ok())
    };
    only("traceparent")
        .and_then(TraceContext::from_traceparent)
        .or_else(|| only("uber-trace-id").and_then(TraceContext::from_uber_trace_id))
}

fn cut(path: &str) -> &str {
    &path[..path.floor_char_boundary(NAME_BYTES_MAX)]
}

/// A body, and the span that ends with it.
struct Traced {
    body: Body,
    span: Span,
}

impl HttpBody for Traced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Err(error))) = &polled {
            self.span.fail(error);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[track_caller]
    fn check(headers: &[(&'static str, &[u8])], expected: Option<&str>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let found = parent(&map).map(|context| context.to_string());
        assert_eq!(found.as_deref(), expected, "{headers:?}");
    }

    #[test]
    fn a_clients_trace_is_found() {
        let jaeger = "00-00000000000000000000000000000005-0000000000000006-00";
        check(&[], None);
        check(&[("traceparent", W3C.as_bytes())], Some(W3C));
        check(&[("uber-trace-id", b"5:6:0:0")], Some(jaeger));
        let both: [(_, &[u8]); 2] = [
            ("uber-trace-id", b"5:6:0:0"),
            ("traceparent", W3C.as_bytes()),
        ];
        check(&both, Some(W3C));
        check(
            &[("traceparent", b"x"), ("uber-trace-id", b"5:6:0:0")],
            Some(jaeger),
        );
        check(&[("traceparent", W3C.as_bytes()); 2], None);
        check(&[("traceparent", b"\xff\xfe")], None);
    }

    #[test]
    fn names_are_few_and_short() {
        let tracer = Tracer::default();
        let request = Request::builder().uri("/".to_owned() + &"x".repeat(60_000));
        let span = begin(&tracer, &request.body(Body::empty()).unwrap());
        drop(end(span, Response::new(Body::empty())));
        assert_eq!(cut(&"ä".repeat(90)).len(), NAME_BYTES_MAX);
    }
}
