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

mod relief;
mod retirement;
mod turns;
mod words;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::{
    retirement::Retirement,
    words::{Action, Event, Member, Pin, Refusal, Seat, Ticket, Wanted, WorkerState},
};
use super::intensity::{Intensity, Pause};
use crate::{config::PoolLimits, invocation::BindingKey};

/// How long no worker is forked after one could not be.
const FORK_PAUSE: Duration = Duration::from_secs(1);
/// How long at most no spare is: twice as long after each failure.
const SPARE_PAUSE_MAX: Duration = Duration::from_mins(1);

/// A plugin's claim to workers.
#[derive(Clone, Debug, Default)]
struct Binding {
    queue: VecDeque<Wanted>,
    workers: Vec<Seat>,
    /// What the invocation that came last wants to run.
    current: Pin,
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
                loaded,
            } => {
                if let Some(member) = self.members.get_mut(&seat) {
                    member.cached_objects = cached_objects;
                    member.memory_bytes = memory_bytes;
                    member.loaded |= loaded;
                    self.on_returned(seat, now, &mut actions);
                }
            }
            Event::Ended { seat, why } => self.on_ended(seat, why, now, &mut actions),
            Event::Bounced { seat, wanted } => {
                self.on_ending(seat);
                self.enqueue_again(wanted, now, &mut actions);
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
        binding.current.clone_from(&wanted.pin);
        binding.queue.push_back(wanted);
    }

    /// A worker runs nothing any more, though it has not ended yet.
    fn on_ending(&mut self, seat: Seat) {
        if let Some(member) = self.members.get_mut(&seat) {
            member.state = WorkerState::Draining;
            let binding = member.binding.take();
            self.leave(seat, binding.as_ref());
        }
    }

    /// What was granted waits again, in the place that it had, unless its plugin may not run
    /// any more.
    fn enqueue_again(&mut self, wanted: Wanted, now: Instant, actions: &mut Vec<Action>) {
        let ticket = wanted.ticket;
        let Some(binding) = self.bindings.get_mut(&wanted.binding) else {
            let why = Refusal::Released;
            return actions.push(Action::Refuse { ticket, why });
        };
        if let Some(pause) = binding.intensity.pause(now) {
            let why = Refusal::Paused(pause.clone());
            return actions.push(Action::Refuse { ticket, why });
        }
        self.waiting.insert(wanted.binding.clone());
        let place = binding
            .queue
            .partition_point(|other| other.since < wanted.since);
        binding.queue.insert(place, wanted);
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
            return self.retire(seat, why, actions);
        }
        self.relieve(seat, actions);
    }

    fn on_ended(
        &mut self,
        seat: Seat,
        why: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        // Also of one that had been asked to end, or was ending.
        let key = self.remove(seat).and_then(|member| member.owner);
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
        for Wanted { ticket, .. } in binding.queue.drain(..) {
            let why = Refusal::Paused(pause.clone());
            actions.push(Action::Refuse { ticket, why });
        }
    }

    fn on_released(&mut self, key: &BindingKey, actions: &mut Vec<Action>) {
        let Some(binding) = self.bindings.remove(key) else {
            return;
        };
        self.waiting.remove(key);
        for Wanted { ticket, .. } in binding.queue {
            let why = Refusal::Released;
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
        if self.members.contains_key(&seat) {
            self.on_ending(seat);
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
}
