//! What does the pool know of workers, what can happen to it, and what can it want done?

use std::sync::Arc;

use tokio::time::Instant;

use super::Retirement;
use crate::{invocation::BindingKey, pool::intensity::Pause};

/// A worker's number in the pool; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Seat(pub(crate) u64);

/// A waiting invocation's number; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket(pub(crate) u64);

/// What a worker that runs something can run next: anything if `None`, otherwise only
/// the source of this revision, because it has imported that.
pub(crate) type Pin = Option<Arc<str>>;

/// An invocation that wants a worker.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) ticket: Ticket,
    pub(crate) binding: BindingKey,
    pub(crate) pin: Pin,
    /// How many workers the binding may have.
    pub(crate) workers_max: usize,
    /// Since when it waits.
    pub(crate) since: Instant,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A binding will want workers: keep some warm.
    Prepared(BindingKey),
    /// An invocation wants a worker.
    Submitted(Wanted),
    /// A worker is there, and waits for a plugin.
    Forked {
        seat: Seat,
        /// About 1; shifts its retirement.
        jitter: f64,
        /// Of what it has loaded before its plugin.
        foundations: u64,
    },
    /// Something was installed; spares know it better if they are new. Workers on other
    /// foundations must not run anything any more.
    Installed { foundations: u64 },
    /// A worker could not be had.
    NotForked { seat: Seat },
    /// An invocation is over and its worker can run another.
    Returned {
        seat: Seat,
        cached_objects: u64,
        memory_bytes: u64,
        /// Whether it has its plugin's source, as far as that has just been tried.
        loaded: bool,
    },
    /// A worker has ended. `why` if that is held against its plugin.
    Ended { seat: Seat, why: Option<String> },
    /// A worker is ending and did not begin what it was granted. Its end comes, or has come,
    /// as an event of its own.
    Bounced { seat: Seat, wanted: Wanted },
    /// A binding is no longer needed.
    Released(BindingKey),
    /// A binding's pause is over because somebody said so.
    Resumed(BindingKey),
    /// Time has passed.
    Tick,
}

/// Something to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Fork a worker.
    Fork(Seat),
    /// Have the worker run the invocation.
    Grant { ticket: Ticket, seat: Seat },
    /// Have the idle worker end.
    Retire { seat: Seat, why: Retirement },
    /// The invocation gets no worker.
    Refuse { ticket: Ticket, why: Refusal },
}

/// Why an invocation gets no worker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// Its plugin pauses.
    Paused(Pause),
    /// No worker could be forked.
    NotForked,
    /// Its binding was released.
    Released,
}

/// What a worker is doing. One that has ended is not in the pool any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum WorkerState {
    /// Its process is being made.
    Forking,
    /// Warm, bound to nothing.
    Idle,
    /// Waits for the next invocation of its binding.
    Bound { since: Instant },
    /// Runs an invocation.
    Busy { ticket: Ticket },
    /// Was asked to end, or is ending.
    Draining,
}

/// A worker, as far as the pool needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) state: WorkerState,
    pub(crate) binding: Option<BindingKey>,
    /// Whose it is or was; stays when it retires.
    pub(crate) owner: Option<BindingKey>,
    pub(super) pin: Pin,
    /// Whether it has ever loaded that.
    pub(super) loaded: bool,
    pub(crate) since: Instant,
    pub(super) bound_since: Instant,
    pub(crate) invocations: u64,
    pub(crate) cached_objects: u64,
    pub(crate) memory_bytes: u64,
    pub(super) jitter: f64,
    pub(super) foundations: u64,
}

impl Member {
    pub(super) fn forking(now: Instant) -> Self {
        Self {
            state: WorkerState::Forking,
            binding: None,
            owner: None,
            pin: None,
            loaded: false,
            since: now,
            bound_since: now,
            invocations: 0,
            cached_objects: 0,
            memory_bytes: 0,
            jitter: 1.0,
            foundations: 0,
        }
    }
}
