//! Which worker runs which invocation: the pool's state, and nothing but state.
//!
//! [`Event`]s go in and [`Action`]s come out; [`super::PoolTask`] carries them out. So
//! every order of events can be tried without a process.
//!
//! ```text
//! Forking ──► Idle ──granted──► Busy ◄──granted── Bound
//!    │          │                 │ └──returned────►│
//!    ▼          ▼                 ▼                 ▼
//!  (gone)    Draining ──► (gone) ◄┴── died       Draining
//! ```

mod retirement;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::retirement::Retirement;
use super::intensity::{Intensity, Pause};
use crate::{config::PoolLimits, invocation::BindingKey};

/// How long no worker is forked after one could not be.
const FORK_PAUSE: Duration = Duration::from_secs(1);
/// How long at most no spare is: twice as long after each failure.
const SPARE_PAUSE_MAX: Duration = Duration::from_mins(1);

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
    },
    /// A worker has ended. `why` if that is held against its plugin.
    Ended { seat: Seat, why: Option<String> },
    /// A worker had ended before it got what it was granted.
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
    /// Was asked to end.
    Draining,
}

/// A worker, as far as the pool needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) state: WorkerState,
    pub(crate) binding: Option<BindingKey>,
    /// Whose it is or was; stays when it retires.
    pub(crate) owner: Option<BindingKey>,
    pin: Pin,
    pub(crate) since: Instant,
    bound_since: Instant,
    pub(crate) invocations: u64,
    pub(crate) cached_objects: u64,
    pub(crate) memory_bytes: u64,
    jitter: f64,
    foundations: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    wanted: Wanted,
    since: Instant,
}

/// A plugin's claim to workers.
#[derive(Clone, Debug, Default)]
struct Binding {
    queue: VecDeque<Waiting>,
    workers: Vec<Seat>,
    intensity: Intensity,
}

/// All workers and all that wait for one.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    limits: PoolLimits,
    members: BTreeMap<Seat, Member>,
    bindings: HashMap<BindingKey, Binding>,
    /// The bindings whose queue is not empty.
    waiting: HashSet<BindingKey>,
    last_seat: u64,
    /// How often in a row forks have failed, and when the last one did.
    failed_forks: u32,
    last_failed_fork: Option<Instant>,
    /// What workers must have loaded before their plugin.
    foundations: u64,
}

impl Pool {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            members: BTreeMap::new(),
            bindings: HashMap::new(),
            waiting: HashSet::new(),
            last_seat: 0,
            failed_forks: 0,
            last_failed_fork: None,
            foundations: 0,
        }
    }

    /// Takes in what happened and says what to do.
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Prepared(key) => drop(self.bindings.entry(key).or_default()),
            Event::Submitted(wanted) => self.on_submitted(wanted, now, &mut actions),
            Event::Forked {
                seat,
                jitter,
                foundations,
            } => self.on_forked(seat, (jitter, foundations), now, &mut actions),
            Event::Installed { foundations } => self.on_installed(foundations, &mut actions),
            Event::NotForked { seat } => self.on_not_forked(seat, now, &mut actions),
            Event::Returned {
                seat,
                cached_objects,
                memory_bytes,
            } => {
                if let Some(member) = self.members.get_mut(&seat) {
                    member.cached_objects = cached_objects;
                    member.memory_bytes = memory_bytes;
                    self.on_returned(seat, now, &mut actions);
                }
            }
            Event::Ended { seat, why } => self.on_ended(seat, why, now, &mut actions),
            Event::Bounced { seat, wanted } => {
                self.remove(seat);
                self.enqueue_first(wanted, now, &mut actions);
            }
            Event::Released(key) => self.on_released(&key, &mut actions),
            Event::Resumed(key) => {
                if let Some(binding) = self.bindings.get_mut(&key) {
                    binding.intensity.clear();
                }
            }
            Event::Tick => self.retire_idle(now, &mut actions),
        }
        self.schedule(now, &mut actions);
        actions
    }

    /// The workers, in the order in which they were made.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Seat, &Member)> {
        self.members.iter().map(|(seat, member)| (*seat, member))
    }

    /// The bindings: how many invocations wait, and the pause that holds.
    pub(crate) fn bindings(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&BindingKey, usize, Option<&Pause>)> {
        self.bindings.iter().map(move |(key, binding)| {
            let pause = binding.intensity.pause(now);
            (key, binding.queue.len(), pause)
        })
    }

    fn on_submitted(&mut self, wanted: Wanted, now: Instant, actions: &mut Vec<Action>) {
        let binding = self.bindings.entry(wanted.binding.clone()).or_default();
        if let Some(pause) = binding.intensity.pause(now) {
            let why = Refusal::Paused(pause.clone());
            let ticket = wanted.ticket;
            return actions.push(Action::Refuse { ticket, why });
        }
        self.waiting.insert(wanted.binding.clone());
        binding.queue.push_back(Waiting { wanted, since: now });
    }

    fn enqueue_first(&mut self, wanted: Wanted, now: Instant, actions: &mut Vec<Action>) {
        let Some(binding) = self.bindings.get_mut(&wanted.binding) else {
            let (ticket, why) = (wanted.ticket, Refusal::Released);
            return actions.push(Action::Refuse { ticket, why });
        };
        self.waiting.insert(wanted.binding.clone());
        binding.queue.push_front(Waiting { wanted, since: now });
    }

    fn on_forked(
        &mut self,
        seat: Seat,
        (jitter, foundations): (f64, u64),
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get_mut(&seat) else {
            return;
        };
        member.state = WorkerState::Idle;
        member.since = now;
        member.jitter = jitter;
        member.foundations = foundations;
        self.failed_forks = 0;
        self.last_failed_fork = None;
        if foundations != self.foundations {
            self.retire(seat, Retirement::Installed, actions);
        }
    }

    fn on_installed(&mut self, foundations: u64, actions: &mut Vec<Action>) {
        self.foundations = foundations;
        let outdated = |member: &Member| match member.state {
            WorkerState::Idle => true,
            WorkerState::Bound { .. } => member.foundations != foundations,
            WorkerState::Forking | WorkerState::Busy { .. } | WorkerState::Draining => false,
        };
        let members = self.members.iter();
        let seats: Vec<Seat> = members
            .filter(|(_, member)| outdated(member))
            .map(|(seat, _)| *seat)
            .collect();
        for seat in seats {
            self.retire(seat, Retirement::Installed, actions);
        }
    }

    /// Whoever has waited longest for a new worker is told; the others' turn comes with
    /// the next attempt.
    fn on_not_forked(&mut self, seat: Seat, now: Instant, actions: &mut Vec<Action>) {
        self.remove(seat);
        self.failed_forks = self.failed_forks.saturating_add(1);
        self.last_failed_fork = Some(now);
        let starving = self.by_need().into_iter().next();
        if let Some(ticket) = starving.and_then(|key| self.take_first(&key)) {
            let why = Refusal::NotForked;
            actions.push(Action::Refuse { ticket, why });
        }
    }

    fn on_returned(&mut self, seat: Seat, now: Instant, actions: &mut Vec<Action>) {
        let is_scarce = self.members.len() >= self.limits.workers_max && self.someone_starves();
        let limits = &self.limits;
        let Some(member) = self.members.get_mut(&seat) else {
            return;
        };
        member.invocations += 1;
        if let Some(binding) = member
            .binding
            .as_ref()
            .and_then(|key| self.bindings.get_mut(key))
        {
            binding.intensity.on_survival();
        }
        let held = now.duration_since(member.bound_since);
        let why = match member.binding {
            None => Some(Retirement::Released),
            Some(_) if member.foundations != self.foundations => Some(Retirement::Installed),
            Some(_) if is_scarce && held >= limits.fair_turn => Some(Retirement::Scarce),
            Some(_) => retirement::after_invocation(member, limits, now),
        };
        member.state = WorkerState::Bound { since: now };
        if let Some(why) = why {
            self.retire(seat, why, actions);
        }
    }

    fn on_ended(
        &mut self,
        seat: Seat,
        why: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let key = self.remove(seat).and_then(|member| member.binding);
        let (Some(key), Some(why)) = (key, why) else {
            return;
        };
        let Some(binding) = self.bindings.get_mut(&key) else {
            return;
        };
        binding.intensity.on_death(now, why);
        let Some(pause) = binding.intensity.pause(now).cloned() else {
            return;
        };
        self.waiting.remove(&key);
        for waiting in binding.queue.drain(..) {
            let why = Refusal::Paused(pause.clone());
            let ticket = waiting.wanted.ticket;
            actions.push(Action::Refuse { ticket, why });
        }
    }

    fn on_released(&mut self, key: &BindingKey, actions: &mut Vec<Action>) {
        let Some(binding) = self.bindings.remove(key) else {
            return;
        };
        self.waiting.remove(key);
        for waiting in binding.queue {
            let why = Refusal::Released;
            let ticket = waiting.wanted.ticket;
            actions.push(Action::Refuse { ticket, why });
        }
        for seat in binding.workers {
            let Some(member) = self.members.get_mut(&seat) else {
                continue;
            };
            member.binding = None;
            if matches!(member.state, WorkerState::Bound { .. }) {
                self.retire(seat, Retirement::Released, actions);
            }
        }
    }

    fn retire_idle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let limits = &self.limits;
        let due: Vec<(Seat, Retirement)> = self
            .members
            .iter()
            .filter_map(|(seat, member)| {
                retirement::while_idle(member, limits, now).map(|why| (*seat, why))
            })
            .collect();
        for (seat, why) in due {
            self.retire(seat, why, actions);
        }
    }

    fn retire(&mut self, seat: Seat, why: Retirement, actions: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&seat) {
            member.state = WorkerState::Draining;
            let binding = member.binding.take();
            self.leave(seat, binding.as_ref());
            actions.push(Action::Retire { seat, why });
        }
    }

    fn remove(&mut self, seat: Seat) -> Option<Member> {
        let member = self.members.remove(&seat)?;
        self.leave(seat, member.binding.as_ref());
        Some(member)
    }

    fn leave(&mut self, seat: Seat, key: Option<&BindingKey>) {
        if let Some(binding) = key.and_then(|key| self.bindings.get_mut(key)) {
            binding.workers.retain(|worker| *worker != seat);
        }
    }

    fn schedule(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut missing = 0;
        for key in self.by_need() {
            missing += self.serve(&key, now, actions);
        }
        self.fork(missing, now, actions);
        self.make_room(missing, actions);
    }

    /// The bindings that wait: first those without any worker, then by how long they have waited.
    fn by_need(&self) -> Vec<BindingKey> {
        let mut keys: Vec<_> = self
            .waiting
            .iter()
            .filter_map(|key| {
                let binding = self.bindings.get(key)?;
                let first = binding.queue.front()?;
                let order = (
                    !binding.workers.is_empty(),
                    first.since,
                    first.wanted.ticket,
                );
                Some((order, key.clone()))
            })
            .collect();
        keys.sort_unstable_by_key(|(order, _)| *order);
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn someone_starves(&self) -> bool {
        let starves = |key| {
            self.bindings
                .get(key)
                .is_some_and(|binding| binding.workers.is_empty())
        };
        self.waiting.iter().any(starves)
    }

    /// Grants what can be granted to a binding; returns how many more workers it could use.
    fn serve(&mut self, key: &BindingKey, now: Instant, actions: &mut Vec<Action>) -> usize {
        loop {
            let Some(binding) = self.bindings.get(key) else {
                return 0;
            };
            let Some(first) = binding.queue.front() else {
                return 0;
            };
            let wanted = first.wanted.clone();
            let own = binding
                .workers
                .iter()
                .copied()
                .find(|seat| matches!(self.members[seat].state, WorkerState::Bound { .. }));
            let seat = match own {
                Some(seat) if self.members[&seat].pin == wanted.pin => seat,
                Some(seat) => {
                    self.retire(seat, Retirement::SourceChanged, actions);
                    continue;
                }
                None => {
                    let may_have = wanted.workers_max.saturating_sub(binding.workers.len());
                    let spare = self.spare().filter(|_| may_have > 0);
                    let Some(seat) = spare else {
                        return may_have.min(binding.queue.len());
                    };
                    self.bind(seat, key, wanted.pin, now);
                    seat
                }
            };
            if let Some(ticket) = self.take_first(key) {
                self.grant(seat, ticket, actions);
            }
        }
    }

    fn spare(&self) -> Option<Seat> {
        let mut idle = self.members.iter();
        let spare = idle.find(|(_, member)| member.state == WorkerState::Idle)?;
        Some(*spare.0)
    }

    fn bind(&mut self, seat: Seat, key: &BindingKey, pin: Pin, now: Instant) {
        if let Some(member) = self.members.get_mut(&seat) {
            member.binding = Some(key.clone());
            member.owner = Some(key.clone());
            member.pin = pin;
            member.bound_since = now;
        }
        if let Some(binding) = self.bindings.get_mut(key) {
            binding.workers.push(seat);
        }
    }

    fn grant(&mut self, seat: Seat, ticket: Ticket, actions: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&seat) {
            member.state = WorkerState::Busy { ticket };
            actions.push(Action::Grant { ticket, seat });
        }
    }

    fn take_first(&mut self, key: &BindingKey) -> Option<Ticket> {
        let binding = self.bindings.get_mut(key)?;
        let first = binding.queue.pop_front()?;
        if binding.queue.is_empty() {
            self.waiting.remove(key);
        }
        Some(first.wanted.ticket)
    }

    fn count(&self, state: &WorkerState) -> usize {
        let same = |member: &&Member| member.state == *state;
        self.members.values().filter(same).count()
    }

    /// Forks what is missing and what should be warm, as far as there is room.
    fn fork(&mut self, missing: usize, now: Instant, actions: &mut Vec<Action>) {
        let since = self.last_failed_fork.map(|last| now.duration_since(last));
        if since.is_some_and(|since| since < FORK_PAUSE) {
            return;
        }
        let doublings = self.failed_forks.saturating_sub(1).min(16);
        let spare_pause = (FORK_PAUSE * (1 << doublings)).min(SPARE_PAUSE_MAX);
        let no_spares = since.is_some_and(|since| since < spare_pause);
        let spares = if self.bindings.is_empty() || no_spares {
            0
        } else {
            self.limits.spares
        };
        let have = self.count(&WorkerState::Idle) + self.count(&WorkerState::Forking);
        let room = self.limits.workers_max.saturating_sub(self.members.len());
        for _ in 0..(missing + spares).saturating_sub(have).min(room) {
            self.last_seat += 1;
            let seat = Seat(self.last_seat);
            self.members.insert(seat, Member::forking(now));
            actions.push(Action::Fork(seat));
        }
    }

    /// Where workers are scarce, ends idle ones of bindings that want none now.
    fn make_room(&mut self, missing: usize, actions: &mut Vec<Action>) {
        let coming = self.count(&WorkerState::Forking) + self.count(&WorkerState::Draining);
        if missing <= coming || self.members.len() < self.limits.workers_max {
            return;
        }
        let mut idle: Vec<_> = self
            .members
            .iter()
            .filter_map(|(seat, member)| match member.state {
                WorkerState::Bound { since } => Some((member.cached_objects > 0, since, *seat)),
                _ => None,
            })
            .collect();
        idle.sort_unstable();
        for (_, _, seat) in idle.into_iter().take(missing - coming) {
            self.retire(seat, Retirement::Scarce, actions);
        }
    }
}

impl Member {
    fn forking(now: Instant) -> Self {
        Self {
            state: WorkerState::Forking,
            binding: None,
            owner: None,
            pin: None,
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
