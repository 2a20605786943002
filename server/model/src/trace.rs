//! To which trace does something belong, and what took how long?
//!
//! A [`Trace`] is a place in a trace, below which [`Span`]s are begun; a [`TraceContext`] is the
//! same as bytes or text, as it travels. Ids are made always, since they stand in every log row.
//! Spans are measured only where a [`SpanSink`] takes them: else a span is its ids and no more.
//!
//! Deliberately does not know how spans are exported.

mod context;
mod span;

pub use self::{
    context::{SpanId, TraceContext, TraceId},
    span::{Attribute, FinishedSpan, Span, SpanKind, SpanSink, Trace, Tracer},
};
