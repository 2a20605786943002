//! When a source has changed, who still stands by with the earlier one?
//!
//! A worker that has imported a package runs nothing else, so a changed one goes to another worker.
//! That may not load, and then the earlier one goes on, with all that it keeps. So it ends only
//! when the new one has come far enough.

use super::{Action, Member, Pool, Retirement, Seat, WorkerState};

impl Pool {
    /// A worker has returned: ends idle ones of its binding that nobody will come back to.
    pub(super) fn relieve(&mut self, returned: Seat, actions: &mut Vec<Action>) {
        for seat in self.relieved(returned) {
            self.retire(seat, Retirement::SourceChanged, actions);
        }
    }

    fn relieved(&self, returned: Seat) -> Vec<Seat> {
        let member = &self.members[&returned];
        let key = member.binding.as_ref();
        let Some(binding) = key.and_then(|key| self.bindings.get(key)) else {
            return Vec::new();
        };
        let is_in_office = |member: &Member| member.loaded && member.pin == binding.current;
        let mut workers = binding.workers.iter().map(|seat| &self.members[seat]);
        let is_settled = workers.any(is_in_office);
        let goes = |other: &Member| {
            if is_settled {
                return other.pin != binding.current;
            }
            // Nothing is known to be better than it is, unless it has never been any good.
            other.pin != member.pin && !other.loaded
        };
        let idle = |seat: &&Seat| {
            let other = &self.members[*seat];
            matches!(other.state, WorkerState::Bound { .. }) && goes(other)
        };
        binding.workers.iter().filter(idle).copied().collect()
    }
}
