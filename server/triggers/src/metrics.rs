//! What is counted about invocations, and what is measured when somebody asks: workers,
//! triggers, lag.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use outrigger_model::error::Report;
use outrigger_storage::{Storage, journal::PluginInvocation};
use outrigger_supervisor::PoolStatus;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, core::Collector,
};
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::error;

use crate::{
    board::Board,
    condition::{Condition, Observer, STATES},
};

/// How many triggers have a lag of their own in the metrics: those that lag most.
const LAGGING_MAX: usize = 100;

const WORKER_STATES: [&str; 5] = ["forking", "idle", "bound", "busy", "draining"];

/// Seconds, from a warm worker's to a deadline's.
const BUCKETS: [f64; 15] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0,
];

/// Counts invocations. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct InvocationMetrics {
    invocations: IntCounterVec,
    queue: Histogram,
    bind: Histogram,
    wall: Histogram,
}

impl Default for InvocationMetrics {
    fn default() -> Self {
        let seconds = |name, help| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            Histogram::with_opts(options).expect("the name is valid")
        };
        let invocations = Opts::new("outrigger_invocations_total", "Invocations of plugins");
        Self {
            invocations: IntCounterVec::new(invocations, &["kind", "outcome"])
                .expect("the name is valid"),
            queue: seconds("outrigger_invocation_queue_seconds", "Waiting for a worker"),
            bind: seconds("outrigger_invocation_bind_seconds", "Loading the plugin"),
            wall: seconds("outrigger_invocation_wall_seconds", "From call to answer"),
        }
    }
}

impl InvocationMetrics {
    pub(crate) fn count(&self, kind: &str, account: &PluginInvocation) {
        let outcome = account.outcome.name;
        self.invocations.with_label_values(&[kind, outcome]).inc();
        self.queue.observe(account.queue_wait.as_secs_f64());
        // Nothing was loaded or called where no worker was had.
        if account.pid > 0 {
            self.bind.observe(account.bind.as_secs_f64());
            self.wall.observe(account.wall.as_secs_f64());
        }
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.invocations.clone()),
            Box::new(self.queue.clone()),
            Box::new(self.bind.clone()),
            Box::new(self.wall.clone()),
        ]
    }
}

/// What is measured when somebody asks.
#[derive(Debug)]
pub struct Gauges {
    observer: Observer,
    workers: IntGaugeVec,
    forks: IntCounter,
    deaths: IntCounterVec,
    dropped: IntCounter,
    triggers: IntGaugeVec,
    lag: LagGauges,
    /// Two at a time would count twice.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct LagGauges {
    rows_max: IntGauge,
    seconds_max: Gauge,
    rows: IntGaugeVec,
    seconds: GaugeVec,
}

impl Gauges {
    /// Gauges of the triggers in `storage`'s catalog.
    pub fn new(storage: Storage, board: Board) -> Self {
        let gauges = |name, help, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("the name is valid")
        };
        let counter = |name, help| IntCounter::new(name, help).expect("the name is valid");
        let deaths = Opts::new(
            "outrigger_worker_deaths_total",
            "Workers that ended unasked",
        );
        Self {
            observer: Observer { storage, board },
            workers: gauges("outrigger_workers", "Worker processes", &["state"]),
            forks: counter("outrigger_worker_forks_total", "Workers that were forked"),
            deaths: IntCounterVec::new(deaths, &["reason"]).expect("the name is valid"),
            dropped: counter(
                "outrigger_plugin_log_lines_dropped_total",
                "Lines of plugins that were too many to be logged",
            ),
            triggers: gauges("outrigger_triggers", "Triggers", &["state"]),
            lag: LagGauges::new(),
            turn: Mutex::default(),
        }
    }

    /// All of them, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut collectors = self.observer.board.metrics.collectors();
        let LagGauges {
            rows_max,
            seconds_max,
            rows,
            seconds,
        } = &self.lag;
        let own: [Box<dyn Collector>; 9] = [
            Box::new(self.workers.clone()),
            Box::new(self.forks.clone()),
            Box::new(self.deaths.clone()),
            Box::new(self.dropped.clone()),
            Box::new(self.triggers.clone()),
            Box::new(rows_max.clone()),
            Box::new(seconds_max.clone()),
            Box::new(rows.clone()),
            Box::new(seconds.clone()),
        ];
        collectors.extend(own);
        collectors
    }

    /// Measures now, and has `read` look at the result before anybody measures again.
    pub async fn measured<T>(&self, read: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().await;
        let pool = self.observer.board.pool().await;
        if let Some(pool) = &pool {
            self.measure_pool(pool);
        }
        let observer = self.observer.clone();
        let look = move || {
            let catalog = observer.storage.catalog();
            observer.conditions(&catalog, pool.as_ref(), |_| true)
        };
        match spawn_blocking(look).await {
            Ok(conditions) => self.measure_triggers(conditions),
            Err(panicked) => error!(error = %Report(&panicked), "cannot look at the triggers"),
        }
        read()
    }

    fn measure_pool(&self, pool: &PoolStatus) {
        for state in WORKER_STATES {
            let workers = pool.workers.iter();
            let count = workers.filter(|worker| worker.state == state).count();
            self.workers.with_label_values(&[state]).set(signed(count));
        }
        raise(&self.forks, pool.forks);
        raise(&self.dropped, pool.log_lines_dropped);
        for (reason, count) in &pool.deaths.by_reason {
            raise(&self.deaths.with_label_values(&[*reason]), *count);
        }
    }

    fn measure_triggers(&self, conditions: Vec<Condition>) {
        let mut states: HashMap<&str, usize> = STATES.map(|state| (state, 0)).into();
        for condition in &conditions {
            *states.entry(condition.state).or_default() += 1;
        }
        for (state, count) in states {
            self.triggers.with_label_values(&[state]).set(signed(count));
        }
        let now = self.observer.storage.clock().now();
        let lagging = conditions.into_iter().filter_map(|condition| {
            let lag = condition.lag?;
            let age = lag.since.map(|since| now.0.saturating_sub(since.0));
            let age = Duration::from_nanos(age.and_then(|age| age.try_into().ok()).unwrap_or(0));
            Some(Lagging {
                database: condition.database.name.to_string(),
                trigger: condition.trigger.definition.name.clone(),
                rows: lag.rows,
                age,
            })
        });
        self.lag.measure(lagging.collect());
    }
}

struct Lagging {
    database: String,
    trigger: String,
    rows: u64,
    age: Duration,
}

impl LagGauges {
    fn new() -> Self {
        const LABELS: [&str; 2] = ["database", "trigger"];
        let rows = Opts::new(
            "outrigger_trigger_lag_rows",
            "Rows a trigger has yet to see",
        );
        let help = "Age of the oldest rows a trigger has yet to see";
        let seconds = Opts::new("outrigger_trigger_lag_seconds", help);
        let most = |name, help| Opts::new(name, help);
        let rows_max = most(
            "outrigger_trigger_lag_rows_max",
            "The largest lag of any trigger, in rows",
        );
        let seconds_max = most(
            "outrigger_trigger_lag_seconds_max",
            "The largest lag of any trigger, in seconds",
        );
        Self {
            rows_max: IntGauge::with_opts(rows_max).expect("the name is valid"),
            seconds_max: Gauge::with_opts(seconds_max).expect("the name is valid"),
            rows: IntGaugeVec::new(rows, &LABELS).expect("the name is valid"),
            seconds: GaugeVec::new(seconds, &LABELS).expect("the name is valid"),
        }
    }

    fn measure(&self, mut lagging: Vec<Lagging>) {
        let rows_max = lagging.iter().map(|trigger| trigger.rows).max();
        self.rows_max.set(signed(rows_max.unwrap_or_default()));
        let age_max = lagging.iter().map(|trigger| trigger.age).max();
        self.seconds_max
            .set(age_max.unwrap_or_default().as_secs_f64());
        lagging.sort_by_key(|trigger| Reverse((trigger.age, trigger.rows)));
        self.rows.reset();
        self.seconds.reset();
        for trigger in lagging.into_iter().take(LAGGING_MAX) {
            let labels = [trigger.database.as_str(), trigger.trigger.as_str()];
            self.rows
                .with_label_values(&labels)
                .set(signed(trigger.rows));
            let seconds = trigger.age.as_secs_f64();
            self.seconds.with_label_values(&labels).set(seconds);
        }
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn signed(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_most_lagging_triggers_have_a_lag_of_their_own() {
        let gauges = LagGauges::new();
        let lagging = |count: u64| {
            let trigger = |n: u64| Lagging {
                database: "db".to_owned(),
                trigger: format!("t{n}"),
                rows: n,
                age: Duration::from_secs(n),
            };
            (0..count).map(trigger).collect()
        };
        gauges.measure(lagging(150));
        let series = |collected: Vec<prometheus::proto::MetricFamily>| {
            let families = collected.iter();
            families
                .map(|family| family.get_metric().len())
                .sum::<usize>()
        };
        assert_eq!(series(gauges.rows.collect()), LAGGING_MAX);
        assert_eq!(series(gauges.seconds.collect()), LAGGING_MAX);
        assert_eq!(gauges.rows_max.get(), 149);
        let kept = gauges.rows.with_label_values(&["db", "t50"]);
        assert_eq!(kept.get(), 50);
        // Who no longer lags, or is gone, is not shown any more.
        gauges.measure(lagging(2));
        assert_eq!(series(gauges.rows.collect()), 2);
    }

    #[test]
    fn counters_follow_totals() {
        let counter = IntCounter::new("x", "x").unwrap();
        for (total, expected) in [(3, 3), (3, 3), (7, 7), (5, 7)] {
            raise(&counter, total);
            assert_eq!(counter.get(), expected);
        }
    }
}
