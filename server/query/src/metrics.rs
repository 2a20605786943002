//! What is counted about queries.

use std::time::Instant;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, core::Collector};

/// Seconds.
const BUCKETS: [f64; 13] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0, 60.0,
];

/// How a query ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Ok,
    Error,
    /// Whoever asked did not want all of it.
    Cancelled,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Counts queries. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    queries: IntCounterVec,
    seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let queries = Opts::new("outrigger_queries_total", "SQL queries that have ended");
        let queries = IntCounterVec::new(queries, &["outcome"]).expect("the name is valid");
        for outcome in [Outcome::Ok, Outcome::Error, Outcome::Cancelled] {
            queries.with_label_values(&[outcome.as_str()]);
        }
        let help = "From planning a SQL query to its last row";
        let seconds = HistogramOpts::new("outrigger_query_seconds", help);
        let seconds = seconds.buckets(BUCKETS.to_vec());
        Self {
            queries,
            seconds: Histogram::with_opts(seconds).expect("the name is valid"),
        }
    }
}

impl Metrics {
    pub(crate) fn begin(&self) -> Asked {
        Asked {
            metrics: self.clone(),
            at: Instant::now(),
        }
    }

    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.queries.clone()),
            Box::new(self.seconds.clone()),
        ]
    }
}

/// A query that is planned; it counts once it runs, or if it is refused.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    metrics: Metrics,
    at: Instant,
}

impl Asked {
    pub(crate) fn refused(self) {
        self.run().end(Outcome::Error);
    }

    pub(crate) fn run(self) -> Running {
        Running {
            asked: self,
            outcome: Outcome::Cancelled,
        }
    }
}

/// A query that runs; it has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    asked: Asked,
    outcome: Outcome,
}

impl Running {
    /// An error stays one, whatever follows it.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if !matches!(self.outcome, Outcome::Error) {
            self.outcome = outcome;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Asked { metrics, at } = &self.asked;
        let outcome = self.outcome.as_str();
        metrics.queries.with_label_values(&[outcome]).inc();
        metrics.seconds.observe(at.elapsed().as_secs_f64());
    }
}
