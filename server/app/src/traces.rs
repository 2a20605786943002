//! Where do finished spans go? Through a bounded queue to a receiver of OTLP over gRPC.
//!
//! Nobody waits for it: where the queue is full, or the receiver does not take a batch, spans
//! are lost and counted.

mod otlp;

use std::{mem, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use outrigger_model::{
    shutdown::Gate,
    trace::{FinishedSpan, SpanSink, Tracer},
};
use prometheus::{IntCounter, IntCounterVec, Opts, core::Collector};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tracing::{info, warn};

pub(crate) const DEFAULT_ENDPOINT: &str = "http://localhost:4317";
pub(crate) const DEFAULT_SERVICE_NAME: &str = "outrigger";

/// How many spans may wait; more are lost.
const WAITING_MAX: usize = 8192;
/// How many are sent at a time, and how long is waited for so many.
const BATCH_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long the receiver may take for a batch.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// How often a receiver that does not work is spoken of.
const WARN_EVERY: Duration = Duration::from_mins(10);
/// How long the last spans may take when the server ends.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// A receiver of spans.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    url: String,
    endpoint: Endpoint,
}

impl Receiver {
    /// The receiver at `url`, or what is wrong with that.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        if url.starts_with("https://") {
            return Err(
                "spans are sent without TLS: name a collector nearby, with http://, \
                 that passes them on"
                    .to_owned(),
            );
        }
        if !url.starts_with("http://") {
            return Err("it must begin with http://".to_owned());
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_invalid| "it is not a URL".to_owned())?
            .timeout(EXPORT_MAX)
            .connect_timeout(EXPORT_MAX);
        let url = url.to_owned();
        Ok(Self { url, endpoint })
    }
}

/// Where spans go.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) receiver: Receiver,
    pub(crate) service_name: String,
    /// The share of the traces that begin here.
    pub(crate) ratio: f64,
}

/// The server's spans on their way out.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    tracer: Tracer,
    counts: Option<IntCounterVec>,
    gate: Gate,
}

impl Traces {
    /// Begins to send spans, if they are to be sent. Needs a runtime.
    pub(crate) fn start(config: Option<&Config>, node_id: &str) -> Self {
        let Some(config) = config else {
            return Self::default();
        };
        let about = Opts::new(
            "outrigger_trace_spans_total",
            "Spans of traces by their fate",
        );
        let counts = IntCounterVec::new(about, &["result"]).expect("the name is valid");
        let [exported, dropped] =
            ["exported", "dropped"].map(|result| counts.with_label_values(&[result]));
        let (queue, inbox) = mpsc::channel(WAITING_MAX);
        let export = ExportTask {
            inbox,
            client: TraceServiceClient::new(config.receiver.endpoint.connect_lazy()),
            url: config.receiver.url.clone(),
            about: otlp::About::new(&config.service_name, node_id),
            exported,
            dropped: dropped.clone(),
            trouble: None,
        };
        let gate = Gate::default();
        gate.tasks().spawn(export.run(gate.clone()));
        let tracer = Tracer::new(Box::new(Queue { queue, dropped }), config.ratio);
        Self {
            tracer,
            counts: Some(counts),
            gate,
        }
    }

    /// Where traces begin.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// What is counted, for a registry.
    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let boxed = |counts: IntCounterVec| Box::new(counts) as Box<dyn Collector>;
        self.counts.clone().into_iter().map(boxed).collect()
    }

    /// Sends what is left, when nothing else runs any more.
    pub(crate) async fn finish(&self) {
        if !self.gate.close(FLUSH_MAX).await {
            warn!(after = ?FLUSH_MAX, "the last spans could not be sent in time");
        }
    }
}

/// Takes spans without ever waiting.
#[derive(Debug)]
struct Queue {
    queue: mpsc::Sender<FinishedSpan>,
    dropped: IntCounter,
}

impl SpanSink for Queue {
    fn take(&self, span: FinishedSpan) {
        if self.queue.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// A receiver that does not work.
#[derive(Debug)]
struct Trouble {
    told: Instant,
    /// Spans that were lost since it was last spoken of.
    lost: u64,
}

#[derive(Debug)]
struct ExportTask {
    inbox: mpsc::Receiver<FinishedSpan>,
    client: TraceServiceClient<Channel>,
    url: String,
    about: otlp::About,
    exported: IntCounter,
    dropped: IntCounter,
    trouble: Option<Trouble>,
}

impl ExportTask {
    /// Sends batches until the gate closes, then what is left.
    async fn run(mut self, gate: Gate) {
        info!(endpoint = self.url, "sending traces");
        let end = gate.token().clone();
        let mut batch = Vec::new();
        while let Some(()) = end.run_until_cancelled(self.gather(&mut batch)).await {
            self.export(mem::take(&mut batch)).await;
        }
        self.inbox.close();
        loop {
            self.inbox.recv_many(&mut batch, BATCH_MAX).await;
            // Where one gets lost, the others would not get there either.
            if batch.is_empty() || !self.export(mem::take(&mut batch)).await {
                break;
            }
        }
    }

    /// Waits for spans, and then a little for more.
    ///
    /// # Cancel safety
    /// What it has got by then is in the batch.
    async fn gather(&mut self, batch: &mut Vec<FinishedSpan>) {
        let count = self.inbox.recv_many(batch, BATCH_MAX).await;
        if count == 0 {
            // Nobody is left who could end a span.
            std::future::pending::<()>().await;
        }
        let until = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            let more = self.inbox.recv_many(batch, room);
            if !matches!(timeout_at(until, more).await, Ok(1..)) {
                break;
            }
        }
    }

    /// Sends a batch; `false` if it was lost.
    async fn export(&mut self, batch: Vec<FinishedSpan>) -> bool {
        let count = batch.len() as u64;
        let request = self.about.request(batch);
        let answer = timeout(EXPORT_MAX, self.client.export(request)).await;
        let late = |_elapsed| Status::deadline_exceeded("no answer in time");
        match answer.map_err(late).flatten() {
            Ok(answer) => {
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                let refused = u64::try_from(partial.rejected_spans)
                    .unwrap_or(0)
                    .min(count);
                self.exported.inc_by(count - refused);
                if refused > 0 {
                    self.on_lost(refused, &partial.error_message);
                    return true;
                }
                if self.trouble.take().is_some() {
                    info!(endpoint = self.url, "traces are received again");
                }
                true
            }
            Err(status) => {
                self.on_lost(count, &reason(&status));
                false
            }
        }
    }

    /// Counts what was lost, and says so from time to time.
    fn on_lost(&mut self, count: u64, reason: &str) {
        self.dropped.inc_by(count);
        let now = Instant::now();
        let lost = match &mut self.trouble {
            None => count,
            Some(trouble) => {
                trouble.lost += count;
                if now.duration_since(trouble.told) < WARN_EVERY {
                    return;
                }
                trouble.lost
            }
        };
        self.trouble = Some(Trouble { told: now, lost: 0 });
        let (endpoint, again) = (&self.url, WARN_EVERY);
        warn!(
            endpoint,
            lost,
            reason,
            ?again,
            "traces cannot be sent, spans are lost"
        );
    }
}

/// The status, and what lies behind it.
fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
