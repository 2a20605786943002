//! When a worker has served long enough. Only asked between invocations.

use std::fmt;

use tokio::time::Instant;

use super::{Member, WorkerState};
use crate::config::PoolLimits;

/// Why a worker was asked to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Retirement {
    /// Its binding is no longer needed.
    Released,
    /// It had nothing to do for long.
    Idle,
    /// It has run many invocations.
    Invocations,
    /// It has lived long.
    Age,
    /// It has used much memory.
    Memory,
    /// Its package has changed.
    SourceChanged,
    /// Others wait for a worker.
    Scarce,
    /// Packages were installed that it does not know.
    Installed,
}

impl fmt::Display for Retirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "released",
            Self::Idle => "idle",
            Self::Invocations => "invocations",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::SourceChanged => "source changed",
            Self::Scarce => "workers are scarce",
            Self::Installed => "packages were installed",
        })
    }
}

/// Whether a worker ends after an invocation.
pub(super) fn after_invocation(
    member: &Member,
    limits: &PoolLimits,
    now: Instant,
) -> Option<Retirement> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a limit with jitter is not exact"
    )]
    let over = |value: u64, limit: Option<u64>| {
        limit.is_some_and(|limit| value as f64 >= limit as f64 * member.jitter)
    };
    if over(member.memory_bytes, limits.memory_bytes_max) {
        return Some(Retirement::Memory);
    }
    if over(member.invocations, limits.invocations_max) {
        return Some(Retirement::Invocations);
    }
    is_old(member, limits, now).then_some(Retirement::Age)
}

/// Whether an idle worker ends now. One that keeps objects for its plugin does not end
/// merely because it is idle.
pub(super) fn while_idle(member: &Member, limits: &PoolLimits, now: Instant) -> Option<Retirement> {
    let WorkerState::Bound { since } = member.state else {
        return None;
    };
    if is_old(member, limits, now) {
        return Some(Retirement::Age);
    }
    let idle_max = limits.idle_max.mul_f64(member.jitter);
    let is_idle = member.cached_objects == 0 && now.duration_since(since) >= idle_max;
    is_idle.then_some(Retirement::Idle)
}

fn is_old(member: &Member, limits: &PoolLimits, now: Instant) -> bool {
    let age = now.duration_since(member.since);
    limits
        .age_max
        .is_some_and(|age_max| age >= age_max.mul_f64(member.jitter))
}
