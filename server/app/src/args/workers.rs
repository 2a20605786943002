//! What can be said about the processes that plugins run in.

use std::{num::NonZeroUsize, thread, time::Duration};

use outrigger_model::bytes::ByteSize;
use outrigger_supervisor::PoolLimits;

/// How long a trigger may keep a worker while another one has none and no more may be made.
const FAIR_TURN: Duration = Duration::from_secs(5);

/// Arguments about workers.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Plugin workers")]
pub(crate) struct WorkerArgs {
    /// How many invocations of one asynchronous trigger may run at the same time
    /// [default: the number of cores]
    #[arg(
        long,
        visible_alias = "async-trigger-concurrency-limit",
        env = "INFLUXDB3_TRIGGER_CONCURRENCY",
        value_name = "NUMBER"
    )]
    trigger_concurrency: Option<NonZeroUsize>,

    /// How long one invocation may take, unless its trigger says otherwise
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_TIMEOUT",
        default_value = "10m",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    pub(crate) plugin_timeout: Duration,

    /// How many worker processes there may be; triggers take turns where they are too few
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_WORKERS",
        default_value = "256",
        value_name = "NUMBER"
    )]
    plugin_workers: NonZeroUsize,

    /// How many warm workers wait for triggers that have none yet
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_SPARE_WORKERS",
        default_value_t = 2,
        value_name = "NUMBER"
    )]
    plugin_spare_workers: usize,

    /// End a worker that has had nothing to do for this long and keeps nothing in its cache
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_IDLE_TIMEOUT",
        default_value = "5m",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    plugin_idle_timeout: Duration,

    /// Replace a worker, and with it its cache, after this many invocations
    #[arg(long, env = "INFLUXDB3_PLUGIN_MAX_INVOCATIONS", value_name = "NUMBER")]
    plugin_max_invocations: Option<u64>,

    /// Replace a worker, and with it its cache, at this age
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_MAX_AGE",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    plugin_max_age: Option<Duration>,

    /// Replace a worker, and with it its cache, once it has used this much memory, for
    /// example 512mb
    #[arg(long, env = "INFLUXDB3_PLUGIN_MAX_MEMORY", value_name = "SIZE")]
    plugin_max_memory: Option<ByteSize>,
}

impl WorkerArgs {
    pub(crate) fn pool(&self) -> PoolLimits {
        PoolLimits {
            workers_max: self.plugin_workers.get(),
            spares: self.plugin_spare_workers,
            idle_max: self.plugin_idle_timeout,
            invocations_max: self.plugin_max_invocations,
            age_max: self.plugin_max_age,
            memory_bytes_max: self.plugin_max_memory.map(|size| size.0 as u64),
            fair_turn: FAIR_TURN,
        }
    }

    pub(crate) fn concurrency(&self) -> NonZeroUsize {
        let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.trigger_concurrency.unwrap_or_else(cores)
    }
}
