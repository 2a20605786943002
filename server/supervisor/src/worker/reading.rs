//! Has a worker stopped reading what its plugin has asked for?
//!
//! Looks are counted, not time: a machine that slept, or a server that was stopped, ends nobody.
//! Neither does a process that is stopped or whose interpreter is held, because that has a meaning
//! of its own (see [`super::liveness`]), and a deadline.

use super::intervals::{PROBE_EVERY, READ_MAX};
use crate::offers::Offer;

/// Watches one invocation.
#[derive(Debug, Default)]
pub(super) struct Reading {
    waiting: Option<Offer>,
    looks: u64,
}

impl Reading {
    /// What waits for the worker at this look, and whether the worker could read: whether it must
    /// end.
    pub(super) fn look(&mut self, oldest: Option<Offer>, can_read: bool) -> bool {
        if oldest != self.waiting {
            (self.waiting, self.looks) = (oldest, 0);
            return false;
        }
        self.looks += u64::from(can_read && oldest.is_some());
        self.looks >= READ_MAX.as_secs() / PROBE_EVERY.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: u64 = READ_MAX.as_secs() / PROBE_EVERY.as_secs();

    fn ends_at(mut look: impl FnMut(&mut Reading, u64) -> bool) -> Option<u64> {
        let mut reading = Reading::default();
        (0..=3 * LOOKS).find(|n| look(&mut reading, *n))
    }

    #[test]
    fn only_who_leaves_the_same_rows_waiting_ends() {
        let rows = |n: u64| Some(Offer::numbered(n));
        assert_eq!(ends_at(|reading, _| reading.look(None, true)), None);
        assert_eq!(ends_at(|reading, n| reading.look(rows(n), true)), None);
        assert_eq!(ends_at(|reading, n| reading.look(rows(n / 3), true)), None);
        let ends = ends_at(|reading, _| reading.look(rows(0), true));
        assert_eq!(ends, Some(LOOKS));
    }

    #[test]
    fn who_cannot_read_does_not() {
        let rows = Some(Offer::numbered(0));
        assert_eq!(ends_at(|reading, _| reading.look(rows, false)), None);
        let ends = ends_at(|reading, n| reading.look(rows, n % 2 == 0));
        assert_eq!(ends, Some(2 * LOOKS));
    }
}
