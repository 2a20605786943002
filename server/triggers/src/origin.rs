//! To which trace does an invocation belong?
//!
//! A request's invocation continues the request's trace. Rows that one traced write brought
//! continue that write's; rows of several belong to none of them, so their invocation begins a
//! trace that links to the first of them. Schedules begin a trace too.

use outrigger_model::trace::{Span, SpanKind, TraceContext, Tracer};
use outrigger_storage::feed::Origins;

/// What an invocation comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    parent: Option<TraceContext>,
    links: Vec<TraceContext>,
}

impl Origin {
    /// Of somebody who waits for it, or has asked for it.
    pub(crate) fn of(parent: TraceContext) -> Self {
        Self {
            parent: Some(parent),
            links: Vec::new(),
        }
    }

    /// Begins an attempt.
    pub(crate) fn begin(&self, tracer: &Tracer, name: String, kind: SpanKind) -> Span {
        match self.parent {
            Some(parent) => tracer.begin(name, kind, Some(parent)),
            None => tracer.begin_linked(name, kind, &self.links),
        }
    }

    /// Further attempts stand beside the first one, or, if that has begun the trace, below it.
    pub(crate) fn on_first(&mut self, first: TraceContext) {
        self.parent.get_or_insert(first);
    }
}

impl From<Origins> for Origin {
    fn from(origins: Origins) -> Self {
        match origins.first.as_slice() {
            [only] if origins.count == 1 => Self::of(*only),
            _ => Self {
                parent: None,
                links: origins.first,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_model::trace::Trace;

    use super::*;

    fn begin(origin: &Origin) -> TraceContext {
        let tracer = Tracer::default();
        let span = origin.begin(&tracer, "t".to_owned(), SpanKind::Consumer);
        span.context()
    }

    fn of(first: Vec<TraceContext>, count: usize) -> Origin {
        Origins { first, count }.into()
    }

    #[test]
    fn one_write_is_continued_and_several_are_not() {
        let [one, two] = [(); 2].map(|()| Trace::unrecorded().context());
        assert_eq!(begin(&of(vec![one], 1)).trace_id, one.trace_id);
        let several = begin(&of(vec![one, two], 2)).trace_id;
        assert!(several != one.trace_id && several != two.trace_id);
        assert_ne!(begin(&of(vec![one], 2)).trace_id, one.trace_id);
        assert_ne!(begin(&of(Vec::new(), 0)), begin(&of(Vec::new(), 0)));
    }

    #[test]
    fn all_attempts_are_in_one_trace() {
        let mut origin = of(Vec::new(), 0);
        let first = begin(&origin);
        origin.on_first(first);
        origin.on_first(Trace::unrecorded().context());
        assert_eq!(begin(&origin).trace_id, first.trace_id);
    }
}
