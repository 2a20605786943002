//! On whose behalf does a worker work, and for how long?

use outrigger_model::clock::Timestamp;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Break, too_much};
use crate::{
    backend::Scope,
    config::Config,
    error::ExitReason,
    invocation::{BindingKey, Invocation},
    private::Over,
    registry::Registry,
};

/// How long an invocation goes on that nobody wants any more.
const UNWANTED_MAX: Duration = Duration::from_secs(5);

/// An invocation, from when its worker has it: loading its plugin is part of it.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) registry: &'a Registry,
    pub(super) scope: Scope,
    pub(super) limits: Limits,
    pub(super) began: Instant,
    /// The same on the wall.
    pub(super) started: Timestamp,
    unwanted: CancellationToken,
}

/// What an invocation may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until its deadline.
    pub(super) timeout: Duration,
    /// For loading its plugin.
    pub(super) load_max: Duration,
    /// Between being asked to end and being killed.
    pub(super) grace: Duration,
    /// Of lines.
    pub(super) lines_bytes_max: usize,
}

/// Why there is no answer of a worker.
#[derive(Debug)]
pub(super) enum Stop {
    /// It has broken off.
    Broken(Break),
    /// It must end.
    Due(ExitReason),
}

impl From<Break> for Stop {
    fn from(broken: Break) -> Self {
        Self::Broken(broken)
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(
        (registry, config): (&'a Registry, &Config),
        binding: &BindingKey,
        invocation: &Invocation,
        started: Timestamp,
    ) -> Self {
        Self {
            registry,
            scope: Scope {
                binding: binding.clone(),
                invocation: invocation.id.clone(),
                trace: invocation.trace.clone(),
            },
            limits: Limits {
                timeout: invocation.timeout,
                load_max: config.load_max,
                grace: config.grace,
                lines_bytes_max: config.lines_bytes_max.0,
            },
            began: Instant::now(),
            started,
            unwanted: invocation.unwanted.clone(),
        }
    }

    /// What is left until its deadline.
    pub(super) fn left(&self) -> Duration {
        self.limits.timeout.saturating_sub(self.began.elapsed())
    }

    /// Waits until the worker must end, whatever it does: it has had this time since the call
    /// began, nobody wants the result, or it has too much in its directories or open.
    pub(super) async fn due(&self, timeout: Duration, mut over: Over) -> ExitReason {
        tokio::select! {
            () = sleep_until(self.began + timeout) => ExitReason::DeadlineExceeded { timeout },
            () = past_use(&self.unwanted) => ExitReason::Unwanted,
            reason = too_much(&mut over) => reason,
        }
    }
}

/// Waits until an invocation that nobody wants has had its time to end by itself.
async fn past_use(unwanted: &CancellationToken) {
    unwanted.cancelled().await;
    sleep(UNWANTED_MAX).await;
}

#[cfg(test)]
impl<'a> Call<'a> {
    /// One that takes up to three seconds, and may load and write little.
    pub(super) fn short(registry: &'a Registry, scope: Scope, lines_bytes_max: usize) -> Self {
        let limits = Limits {
            timeout: Duration::from_secs(3),
            load_max: Duration::from_mins(5),
            grace: Duration::from_secs(1),
            lines_bytes_max,
        };
        Self {
            registry,
            scope,
            limits,
            began: Instant::now(),
            started: Timestamp(0),
            unwanted: CancellationToken::new(),
        }
    }

    pub(super) fn unwanted(&self) -> &CancellationToken {
        &self.unwanted
    }
}
