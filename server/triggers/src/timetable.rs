//! When a schedule fires.

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use cron::Schedule;
use outrigger_model::clock::Timestamp;

use crate::expression::{self, CronError};

/// Times at which something happens, in UTC.
#[derive(Clone, Debug)]
pub(crate) enum Timetable {
    /// Those of a cron expression: of each of these.
    Cron(Vec<Schedule>),
    /// The multiples of a duration since the Unix epoch.
    Every(Duration),
}

impl Timetable {
    /// The times of a normalized expression.
    pub(crate) fn cron(expression: &str) -> Result<Self, CronError> {
        expression::schedules(expression).map(Self::Cron)
    }

    /// The first time after `now`; `None` if there is none.
    pub(crate) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(schedules) => {
                let next = |schedule: &Schedule| schedule.after(&at(now)).next();
                let next = schedules.iter().filter_map(next).min()?;
                next.timestamp_nanos_opt().map(Timestamp)
            }
            Self::Every(period) => {
                let period = i64::try_from(period.as_nanos()).ok()?;
                let ticks = now.0.div_euclid(period).checked_add(1)?;
                ticks.checked_mul(period).map(Timestamp)
            }
        }
    }

    /// The last time up to `now`; `None` if there is none.
    pub(crate) fn last_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(schedules) => {
                // The iterator gives what is before its time.
                let behind = at(Timestamp(now.0.checked_add(1)?));
                let last = |schedule: &Schedule| schedule.after(&behind).next_back();
                let last = schedules.iter().filter_map(last).max()?;
                last.timestamp_nanos_opt().map(Timestamp)
            }
            Self::Every(period) => {
                let period = i64::try_from(period.as_nanos()).ok()?;
                now.0.div_euclid(period).checked_mul(period).map(Timestamp)
            }
        }
    }
}

/// A time as people read it.
pub(crate) fn at(time: Timestamp) -> DateTime<Utc> {
    Utc.timestamp_nanos(time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thursday, 2026-01-01 00:00:00 UTC.
    const NEW_YEAR: i64 = 1_767_225_600;

    #[test]
    fn the_next_times_are_right() {
        check("0 0 * * 1", "2026-01-05 00:00:00 UTC");
        check("0 0 0 * * 2", "2026-01-05 00:00:00 UTC");
        check("*/5 * * * *", "2026-01-01 00:05:00 UTC");
        check("30 0 0 1 * *", "2026-01-01 00:00:30 UTC");
        check("@hourly", "2026-01-01 01:00:00 UTC");
        check("0 0 ? * sunday", "2026-01-04 00:00:00 UTC");
        check("0 0 30 2 1", "2026-02-02 00:00:00 UTC");
        check("0 0 0 2 * 6", "2026-01-02 00:00:00 UTC");
        check("0 0 0 13 * 6", "2026-02-13 00:00:00 UTC");
        check("0 0 0 29 2 * 2028", "2028-02-29 00:00:00 UTC");
    }

    #[test]
    fn every_is_aligned_to_the_epoch() {
        let every = Timetable::Every(Duration::from_mins(7));
        let next = every
            .next_after(Timestamp(NEW_YEAR * 1_000_000_000))
            .unwrap();
        assert_eq!(next.0 % (7 * 60 * 1_000_000_000), 0);
        assert_eq!(
            every.next_after(next).unwrap().0 - next.0,
            7 * 60 * 1_000_000_000
        );
    }

    #[test]
    fn the_last_time_is_the_one_before_the_next() {
        let every = Timetable::Every(Duration::from_mins(7));
        let cron = |text| Timetable::cron(&expression::normalize(text).unwrap()).unwrap();
        for timetable in [
            every,
            cron("*/7 * * * *"),
            cron("0 9 13 * 5"),
            cron("@hourly"),
        ] {
            let mut now = Timestamp(NEW_YEAR * 1_000_000_000);
            for _ in 0..20 {
                let next = timetable.next_after(now).unwrap();
                let last = |nanos| timetable.last_until(Timestamp(next.0 + nanos)).unwrap();
                assert_eq!((last(0), last(1)), (next, next), "{timetable:?}");
                assert!(last(-1) < next && last(-1).0 <= now.0, "{timetable:?}");
                now = next;
            }
        }
    }

    #[test]
    fn in_crontab_one_of_two_given_days_is_enough() {
        let normalized = expression::normalize("0 9 13 * 5").unwrap();
        let timetable = Timetable::cron(&normalized).unwrap();
        let mut now = Timestamp(NEW_YEAR * 1_000_000_000);
        let mut times = Vec::new();
        for _ in 0..7 {
            now = timetable.next_after(now).unwrap();
            times.push(at(now).format("%a %d %b %H:%M").to_string());
        }
        let expected = [
            "Fri 02 Jan 09:00",
            "Fri 09 Jan 09:00",
            "Tue 13 Jan 09:00",
            "Fri 16 Jan 09:00",
            "Fri 23 Jan 09:00",
            "Fri 30 Jan 09:00",
            "Fri 06 Feb 09:00",
        ];
        assert_eq!(times, expected);
    }

    #[track_caller]
    fn check(expression: &str, expected: &str) {
        let normalized = expression::normalize(expression).unwrap();
        let timetable = Timetable::cron(&normalized).unwrap();
        let next = timetable
            .next_after(Timestamp(NEW_YEAR * 1_000_000_000))
            .unwrap();
        assert_eq!(at(next).to_string(), expected);
    }
}
