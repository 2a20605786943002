//! Which run of a schedule is due next, whatever happens to the clock?
//!
//! The clock that says when a run is due can be set; the other one, which counts how long
//! something took, cannot. Where the first has gone on for longer than the second, it was set
//! forward: the times in between have never been, and there may be a billion of them. Of
//! these, only the last is made up for. (One that is set back is not seen here: see
//! `SystemClock`.)

use std::time::Duration;

use outrigger_model::clock::Timestamp;
use tokio::time::Instant;

use crate::timetable::Timetable;

/// How long to sleep at a time, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_mins(1);
/// Clocks that differ by less may go at different speeds; each time is made up for.
const JUMP_MIN: Duration = Duration::from_secs(10);

/// Goes through a schedule's times.
#[derive(Debug)]
pub(crate) struct Alarm {
    timetable: Timetable,
    /// The last time that was due.
    last: Timestamp,
    /// What both clocks have shown at the last look.
    seen: (Instant, Timestamp),
    /// Times that have never been, oldest first: behind the one, up to the other.
    gaps: Vec<(Timestamp, Timestamp)>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Look {
    /// Run what is due at this time.
    Due(Timestamp),
    /// Look again after so long.
    Wait(Duration),
    /// Nothing will be due any more.
    Never,
}

impl Alarm {
    /// Goes through the times after `time`.
    pub(crate) fn new(timetable: Timetable, now: Instant, time: Timestamp) -> Self {
        Self {
            timetable,
            last: time,
            seen: (now, time),
            gaps: Vec::new(),
        }
    }

    /// By how much the clock was set forward since the last look, if it was.
    pub(crate) fn jump(&mut self, now: Instant, time: Timestamp) -> Option<Duration> {
        let (seen_at, seen) = std::mem::replace(&mut self.seen, (now, time));
        let lasted = i64::try_from(now.duration_since(seen_at).as_nanos()).unwrap_or(i64::MAX);
        let expected = seen.0.saturating_add(lasted);
        let jump = u64::try_from(time.0.saturating_sub(expected)).ok()?;
        let jump = Duration::from_nanos(jump);
        if jump < JUMP_MIN {
            return None;
        }
        self.gaps.push((Timestamp(expected), time));
        Some(jump)
    }

    /// What to do, if it is so late.
    pub(crate) fn look(&mut self, time: Timestamp) -> Look {
        let Some(due) = self.next() else {
            return Look::Never;
        };
        let left = due.0.saturating_sub(time.0);
        if let Ok(left @ 1..) = u64::try_from(left) {
            return Look::Wait(Duration::from_nanos(left).min(SLEEP_MAX));
        }
        self.last = due;
        self.gaps.retain(|(_, end)| *end > due);
        Look::Due(due)
    }

    /// The next time after the last one, or the last one in the gap that it lies in.
    fn next(&self) -> Option<Timestamp> {
        let next = self.timetable.next_after(self.last)?;
        let within = |(begin, end): &&(Timestamp, Timestamp)| *begin < next && next <= *end;
        let Some((_, end)) = self.gaps.iter().find(within) else {
            return Some(next);
        };
        Some(
            self.timetable
                .last_until(*end)
                .map_or(next, |last| last.max(next)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const DAY: i64 = 86_400;

    /// A schedule, and both clocks, in seconds.
    struct Clocks {
        alarm: Alarm,
        began: Instant,
        passed: i64,
        wall: i64,
    }

    impl Clocks {
        fn new(timetable: Timetable, wall: i64) -> Self {
            let began = Instant::now();
            Self {
                alarm: Alarm::new(timetable, began, Timestamp(wall * SECOND)),
                began,
                passed: 0,
                wall,
            }
        }

        fn every(seconds: u64) -> Self {
            Self::new(Timetable::Every(Duration::from_secs(seconds)), 1000)
        }

        /// Lets time pass, then sets the clock forward; how far it is seen to have been set.
        fn pass(&mut self, seconds: i64, jump: i64) -> Option<Duration> {
            self.passed += seconds;
            self.wall += seconds + jump;
            let passed = Duration::from_secs(self.passed.unsigned_abs());
            self.alarm
                .jump(self.began + passed, Timestamp(self.wall * SECOND))
        }

        /// Everything that is due now.
        fn due(&mut self) -> Vec<i64> {
            let mut due = Vec::new();
            while let Look::Due(time) = self.alarm.look(Timestamp(self.wall * SECOND)) {
                due.push(time.0 / SECOND);
            }
            due
        }
    }

    #[test]
    fn every_time_that_has_passed_is_made_up_for() {
        let mut clocks = Clocks::every(10);
        assert_eq!(clocks.pass(25, 0), None);
        assert_eq!(clocks.due(), [1010, 1020]);
        let wait = clocks.alarm.look(Timestamp(1025 * SECOND));
        assert_eq!(wait, Look::Wait(Duration::from_secs(5)));
    }

    #[test]
    fn of_the_times_that_have_never_been_the_last_is_run() {
        let mut clocks = Clocks::every(10);
        let year = 365 * DAY;
        let jump = clocks.pass(25, year);
        assert_eq!(jump, Some(Duration::from_hours(365 * 24)));
        assert_eq!(clocks.due(), [1010, 1020, 1020 + year]);
        assert_eq!(clocks.pass(10, 0), None);
        assert_eq!(clocks.due(), [1030 + year]);
    }

    #[test]
    fn a_run_that_is_due_once_a_day_is_not_lost_in_a_jump() {
        let midnight = Timetable::cron("0 0 0 * * * *").unwrap();
        let mut clocks = Clocks::new(midnight, 10 * DAY - 20);
        clocks.pass(1, 40);
        assert_eq!(clocks.due(), [10 * DAY]);
        clocks.pass(1, 3 * DAY);
        assert_eq!(clocks.due(), [13 * DAY]);
    }

    #[test]
    fn each_of_several_jumps_is_passed_by() {
        let mut clocks = Clocks::every(10);
        clocks.pass(5, 100);
        clocks.pass(30, 100);
        // 1005 to 1105 and 1135 to 1235 have never been.
        assert_eq!(clocks.due(), [1100, 1110, 1120, 1130, 1230]);
        clocks.pass(10, 0);
        assert_eq!(clocks.due(), [1240]);
        assert!(clocks.alarm.gaps.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_delays_and_repeats_nothing() {
        let mut clocks = Clocks::every(10);
        clocks.pass(25, 0);
        assert_eq!(clocks.due(), [1010, 1020]);
        assert_eq!(clocks.pass(1, -500), None);
        assert_eq!(clocks.due(), Vec::<i64>::new());
        clocks.pass(520, 0);
        assert_eq!(clocks.due(), [1030, 1040]);
    }
}
