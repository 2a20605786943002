//! Who gets which worker, when is one forked, and when must one go so that another can come?

use tokio::time::Instant;

use super::{
    Action, FORK_PAUSE, Member, Pin, Pool, Retirement, SPARE_PAUSE_MAX, Seat, Ticket, WorkerState,
};
use crate::invocation::BindingKey;

impl Pool {
    pub(super) fn schedule(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut missing = 0;
        for key in self.by_need() {
            missing += self.serve(&key, now, actions);
        }
        self.fork(missing, now, actions);
        self.make_room(missing, actions);
    }

    /// The bindings that wait: first those without any worker, then by how long they have waited.
    pub(super) fn by_need(&self) -> Vec<BindingKey> {
        let mut keys: Vec<_> = self
            .waiting
            .iter()
            .filter_map(|key| {
                let binding = self.bindings.get(key)?;
                let first = binding.queue.front()?;
                let order = (!binding.workers.is_empty(), first.since, first.ticket);
                Some((order, key.clone()))
            })
            .collect();
        keys.sort_unstable_by_key(|(order, _)| *order);
        keys.into_iter().map(|(_, key)| key).collect()
    }

    pub(super) fn someone_starves(&self) -> bool {
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
            let wanted = first.clone();
            let (idle, busy): (Vec<Seat>, Vec<Seat>) = binding
                .workers
                .iter()
                .partition(|seat| matches!(self.members[seat].state, WorkerState::Bound { .. }));
            // Idle ones of another source only stand by.
            let may_have = wanted.workers_max.saturating_sub(busy.len());
            if may_have == 0 {
                return 0;
            }
            let fits = |seat: &Seat| self.members[seat].pin == wanted.pin;
            let seat = if let Some(seat) = idle.into_iter().find(fits) {
                seat
            } else {
                let Some(seat) = self.spare() else {
                    return may_have.min(binding.queue.len());
                };
                self.bind(seat, key, wanted.pin, now);
                seat
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

    pub(super) fn take_first(&mut self, key: &BindingKey) -> Option<Ticket> {
        let binding = self.bindings.get_mut(key)?;
        let first = binding.queue.pop_front()?;
        if binding.queue.is_empty() {
            self.waiting.remove(key);
        }
        Some(first.ticket)
    }

    pub(super) fn count(&self, state: &WorkerState) -> usize {
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
