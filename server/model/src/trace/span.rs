//! What took how long: spans are begun below a place in a trace, and end when they are dropped.

use std::{borrow::Cow, fmt, sync::Arc};

use super::context::{SpanId, TraceContext, TraceId};
use crate::clock::{Clock, SystemClock, Timestamp};

/// What is kept of a text in an attribute.
const TEXT_BYTES_MAX: usize = 1024;
/// How many links a span has at most.
const LINKS_MAX: usize = 32;

/// Takes spans that have ended. Must neither wait nor fail: the server goes on in any case.
pub trait SpanSink: fmt::Debug + Send + Sync + 'static {
    /// Takes one.
    fn take(&self, span: FinishedSpan);
}

/// What a span is of, for whoever looks at it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpanKind {
    /// A step inside the server.
    Internal,
    /// Answers a client.
    Server,
    /// Deals with what was stored before, by somebody who does not wait.
    Consumer,
}

/// What an attribute says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attribute {
    /// Cut after 1 KiB.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(cut(text))
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A span that has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FinishedSpan {
    /// Who it is.
    pub context: TraceContext,
    /// Below which span it stands.
    pub parent: Option<SpanId>,
    /// What was done.
    pub name: Cow<'static, str>,
    /// Of what kind it is.
    pub kind: SpanKind,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What is known about it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// What it came from, where that is not one span: 32 at most.
    pub links: Vec<TraceContext>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Records spans.
#[derive(Debug)]
struct Recorder {
    sink: Box<dyn SpanSink>,
    /// Traces that begin here are recorded if the first half of their id is below this.
    below: u64,
    clock: SystemClock,
}

/// Where traces begin. Clones are the same; the default one records nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

impl Tracer {
    /// A tracer that records this share of the traces that begin here, from 0 to 1, and
    /// of others those whose beginner wants it.
    pub fn new(sink: Box<dyn SpanSink>, ratio: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share need not be exact, and the cast saturates"
        )]
        let below = (ratio * u64::MAX as f64) as u64;
        Self(Some(Arc::new(Recorder {
            sink,
            below,
            clock: SystemClock::default(),
        })))
    }

    /// Begins a span below `parent`, or a trace of its own.
    pub fn begin(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Option<TraceContext>,
    ) -> Span {
        let context = match parent {
            Some(parent) => TraceContext {
                span_id: new_span_id(),
                ..parent
            },
            None => self.new_trace(),
        };
        let parent = parent.map(|parent| parent.span_id);
        Span::begin(self.0.as_ref(), context, parent, name.into(), kind)
    }

    /// Begins a trace that came of several. It is recorded if any of them is.
    pub fn begin_linked(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        links: &[TraceContext],
    ) -> Span {
        let mut context = self.new_trace();
        context.sampled |= links.iter().any(|link| link.sampled);
        let mut span = Span::begin(self.0.as_ref(), context, None, name.into(), kind);
        if let Some(recording) = &mut span.recording {
            // Of what nobody records, there is nothing to look at.
            let links = links.iter().filter(|link| link.sampled);
            recording.span.links.extend(links.take(LINKS_MAX));
        }
        span
    }

    fn new_trace(&self) -> TraceContext {
        let (first, second): (u64, u64) = (rand::random(), rand::random_range(1..=u64::MAX));
        let trace = u128::from(first) << 64 | u128::from(second);
        let sampled = |recorder: &Arc<Recorder>| first < recorder.below;
        TraceContext {
            trace_id: TraceId(trace.to_be_bytes()),
            span_id: new_span_id(),
            sampled: self.0.as_ref().is_some_and(sampled),
        }
    }
}

fn new_span_id() -> SpanId {
    SpanId(rand::random_range(1..=u64::MAX).to_be_bytes())
}

/// A place in a trace, below which spans are begun.
#[derive(Clone, Debug)]
pub struct Trace {
    context: TraceContext,
    /// Absent where nobody wants the trace recorded.
    recorder: Option<Arc<Recorder>>,
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.context == other.context
    }
}

impl Eq for Trace {}

impl Trace {
    /// A trace of its own that nobody records.
    pub fn unrecorded() -> Self {
        let tracer = Tracer::default();
        tracer.begin("", SpanKind::Internal, None).trace()
    }

    /// The place, as it travels.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Begins a step.
    pub fn child(&self, name: &'static str) -> Span {
        let context = TraceContext {
            span_id: new_span_id(),
            ..self.context
        };
        let parent = Some(self.context.span_id);
        let (name, kind) = (name.into(), SpanKind::Internal);
        Span::begin(self.recorder.as_ref(), context, parent, name, kind)
    }
}

/// Something that goes on until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Span {
    context: TraceContext,
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    recorder: Arc<Recorder>,
    span: FinishedSpan,
}

impl Span {
    fn begin(
        recorder: Option<&Arc<Recorder>>,
        context: TraceContext,
        parent: Option<SpanId>,
        name: Cow<'static, str>,
        kind: SpanKind,
    ) -> Self {
        let recording = recorder.filter(|_| context.sampled).map(|recorder| {
            let start = recorder.clock.now();
            let span = FinishedSpan {
                context,
                parent,
                name,
                kind,
                start,
                end: start,
                attributes: Vec::new(),
                links: Vec::new(),
                error: None,
            };
            let recorder = recorder.clone();
            Box::new(Recording { recorder, span })
        });
        Self { context, recording }
    }

    /// Who it is.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Whether anybody will see it.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// The place below which its steps are begun.
    pub fn trace(&self) -> Trace {
        let recording = self.recording.as_ref();
        Trace {
            context: self.context,
            recorder: recording.map(|recording| recording.recorder.clone()),
        }
    }

    /// Says something about it.
    pub fn set<A: Into<Attribute>>(&mut self, key: &'static str, value: A) {
        if let Some(recording) = &mut self.recording {
            recording.span.attributes.push((key, value.into()));
        }
    }

    /// Says that it failed, and why.
    pub fn fail(&mut self, why: &dyn fmt::Display) {
        if let Some(recording) = &mut self.recording {
            recording.span.error = Some(cut(&why.to_string()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let Recording { recorder, mut span } = *recording;
            span.end = recorder.clock.now();
            recorder.sink.take(span);
        }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(TEXT_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<FinishedSpan>>>);

    impl SpanSink for Kept {
        fn take(&self, span: FinishedSpan) {
            self.0.lock().unwrap().push(span);
        }
    }

    impl Kept {
        fn all(&self) -> Vec<FinishedSpan> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }
    }

    fn tracer(ratio: f64) -> (Tracer, Kept) {
        let kept = Kept::default();
        (Tracer::new(Box::new(kept.clone()), ratio), kept)
    }

    #[test]
    fn spans_form_a_tree_and_say_what_happened() {
        let (tracer, kept) = tracer(1.0);
        let mut root = tracer.begin("root", SpanKind::Server, None);
        let mut step = root.trace().child("step");
        step.set("rows", 3_usize);
        step.fail(&"x".repeat(5000));
        drop(step);
        root.set("text", "a");
        let context = root.context();
        drop(root);
        let [step, root] = kept.all().try_into().unwrap();
        assert_eq!((root.context, root.parent), (context, None));
        assert_eq!(step.context.trace_id, context.trace_id);
        assert_eq!(step.parent, Some(context.span_id));
        assert!(root.start < step.start && step.start < step.end && step.end < root.end);
        assert_eq!(step.attributes, [("rows", Attribute::Number(3))]);
        assert!(step.error.unwrap().len() < 1100);
    }

    #[test]
    fn who_began_a_trace_decides_whether_it_is_recorded() {
        let (tracer, kept) = tracer(0.0);
        let mut parent = Trace::unrecorded().context();
        assert!(!parent.sampled);
        drop(tracer.begin("no", SpanKind::Server, Some(parent)));
        drop(tracer.begin("nor this", SpanKind::Server, None));
        parent.sampled = true;
        let span = tracer.begin("yes", SpanKind::Server, Some(parent));
        drop(span.trace().child("nor is this lost"));
        drop(span);
        let names: Vec<_> = kept.all().into_iter().map(|span| span.name).collect();
        assert_eq!(names, ["nor is this lost", "yes"]);
    }

    #[test]
    fn about_the_share_is_recorded_that_was_asked_for() {
        let (tracer, kept) = tracer(0.25);
        for _ in 0..4000 {
            drop(tracer.begin("x", SpanKind::Server, None));
        }
        let recorded = kept.all().len();
        assert!((700..1300).contains(&recorded), "{recorded}");
    }

    #[test]
    fn what_came_of_several_is_linked_to_some_of_them() {
        let (tracer, kept) = tracer(0.0);
        let mut links = vec![Trace::unrecorded().context(); 100];
        drop(tracer.begin_linked("no", SpanKind::Consumer, &links));
        links[99].sampled = true;
        links.extend(vec![links[99]; 50]);
        drop(tracer.begin_linked("yes", SpanKind::Consumer, &links));
        let [span] = kept.all().try_into().unwrap();
        assert_eq!((span.name.as_ref(), span.links.len()), ("yes", LINKS_MAX));
        assert_ne!(span.context.trace_id, links[0].trace_id);
    }

    #[test]
    fn ids_are_there_also_where_nothing_is_recorded() {
        let tracer = Tracer::default();
        let span = tracer.begin("x", SpanKind::Server, None);
        let step = span.trace().child("y");
        assert_eq!(step.context().trace_id, span.context().trace_id);
        assert_ne!(step.context().span_id, span.context().span_id);
        let other = tracer.begin("x", SpanKind::Server, None);
        assert_ne!(other.context().trace_id, span.context().trace_id);
    }
}
