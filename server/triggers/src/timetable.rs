//! When a schedule fires.
//!
//! Expressions of 6 or 7 fields are the `cron` crate's, with days of the week from 1 for
//! Sunday, as in InfluxDB 3. Expressions of 5 fields are classic crontab and translated.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use chrono::{DateTime, TimeZone, Utc};
use cron::Schedule;
use outrigger_model::clock::Timestamp;

/// Names of the days as crontab writes them; the index is its number.
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Times at which something happens, in UTC.
#[derive(Clone, Debug)]
pub enum Timetable {
    /// Of a cron expression.
    Cron(Box<Schedule>),
    /// The multiples of a duration since the Unix epoch.
    Every(Duration),
}

/// Why a cron expression was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// It has the wrong number of fields.
    #[error("a cron expression has 5, 6 or 7 fields, this one has {0} fields")]
    Fields(usize),
    /// A field of the classic form cannot be read.
    #[error("cannot read the day of the week {0:?}")]
    Weekday(String),
    /// The classic form means "or", the longer form "and".
    #[error(
        "crontab runs if the day of the month or the day of the week matches; that needs two \
         triggers, or 6 fields, where both must match"
    )]
    BothDays,
    /// The crate cannot read it.
    #[error("{0}")]
    Expression(String),
    /// It can be read, but no time matches it.
    #[error("the expression never fires")]
    Never,
}

impl Timetable {
    /// The expression in the form that is stored: 6 or 7 fields, or a macro.
    pub fn normalize_cron(text: &str) -> Result<String, CronError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let expression = match fields.as_slice() {
            [name] if name.starts_with('@') => (*name).to_owned(),
            [minute, hour, day, month, weekday] => {
                if *day != "*" && *weekday != "*" {
                    return Err(CronError::BothDays);
                }
                let weekday = quartz_weekdays(weekday)?;
                format!("0 {minute} {hour} {day} {month} {weekday}")
            }
            [_, _, _, _, _, _] | [_, _, _, _, _, _, _] => fields.join(" "),
            _ => return Err(CronError::Fields(fields.len())),
        };
        let Self::Cron(schedule) = Self::cron(&expression)? else {
            unreachable!("it is cron")
        };
        if schedule.upcoming(Utc).next().is_none() {
            return Err(CronError::Never);
        }
        Ok(expression)
    }

    /// The times of a normalized expression.
    pub fn cron(expression: &str) -> Result<Self, CronError> {
        let schedule = Schedule::from_str(expression)
            .map_err(|error| CronError::Expression(error.to_string()))?;
        Ok(Self::Cron(Box::new(schedule)))
    }

    /// The first time after `now`; `None` if there is none.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(schedule) => {
                let next = schedule.after(&at(now)).next()?;
                next.timestamp_nanos_opt().map(Timestamp)
            }
            Self::Every(period) => {
                let period = i64::try_from(period.as_nanos()).ok()?;
                let ticks = now.0.div_euclid(period).checked_add(1)?;
                ticks.checked_mul(period).map(Timestamp)
            }
        }
    }
}

/// A time as people read it.
pub(crate) fn at(time: Timestamp) -> DateTime<Utc> {
    Utc.timestamp_nanos(time.0)
}

/// Crontab's days of the week (0 or 7 is Sunday) as a list of the other form's (1 is Sunday).
fn quartz_weekdays(field: &str) -> Result<String, CronError> {
    if field == "*" {
        return Ok(field.to_owned());
    }
    let refuse = || CronError::Weekday(field.to_owned());
    let mut days = BTreeSet::new();
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)),
            None => (item, Some(1)),
        };
        let step: usize = step.ok_or_else(refuse)?;
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (day(first), day(last)),
            None if range == "*" => (Some(0), Some(6)),
            None if item.contains('/') => (day(range), Some(6)),
            None => (day(range), day(range)),
        };
        let (first, last) = (first.ok_or_else(refuse)?, last.ok_or_else(refuse)?);
        if first > last {
            return Err(refuse());
        }
        days.extend((first..=last).step_by(step).map(|day| day % 7 + 1));
    }
    let days: Vec<String> = days.iter().map(ToString::to_string).collect();
    Ok(days.join(","))
}

fn day(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let named = DAYS.iter().position(|name| *name == lower);
    named.or_else(|| text.parse().ok().filter(|day| *day <= 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thursday, 2026-01-01 00:00:00 UTC.
    const NEW_YEAR: i64 = 1_767_225_600;

    #[test]
    fn classic_weekdays_count_from_sunday_as_0_or_7() {
        for (classic, quartz) in [
            ("0", "1"),
            ("7", "1"),
            ("1-5", "2,3,4,5,6"),
            ("5-7", "1,6,7"),
            ("mon,FRI", "2,6"),
            ("*/2", "1,3,5,7"),
            ("1-5/2", "2,4,6"),
        ] {
            assert_eq!(quartz_weekdays(classic).unwrap(), quartz, "{classic}");
        }
        for bad in ["8", "5-1", "x", "", "1/0"] {
            assert!(quartz_weekdays(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_times_are_right() {
        check("0 0 * * 1", "2026-01-05 00:00:00 UTC");
        check("0 0 0 * * 2", "2026-01-05 00:00:00 UTC");
        check("*/5 * * * *", "2026-01-01 00:05:00 UTC");
        check("30 0 0 1 * *", "2026-01-01 00:00:30 UTC");
        check("@hourly", "2026-01-01 01:00:00 UTC");
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
    fn what_is_wrong_is_named() {
        let refused = |text: &str| Timetable::normalize_cron(text).unwrap_err();
        assert!(matches!(refused("1 2 3 4"), CronError::Fields(4)));
        assert!(matches!(refused("0 0 1 * 1"), CronError::BothDays));
        assert!(matches!(refused("0 0 * * 9"), CronError::Weekday(_)));
        assert!(matches!(refused("0 0 0 30 2 *"), CronError::Never));
        assert!(matches!(refused("0 0 0 * * 0"), CronError::Expression(_)));
        assert!(matches!(refused("0 0 0 1 1 * 2001"), CronError::Never));
    }

    #[track_caller]
    fn check(expression: &str, expected: &str) {
        let normalized = Timetable::normalize_cron(expression).unwrap();
        let timetable = Timetable::cron(&normalized).unwrap();
        let next = timetable
            .next_after(Timestamp(NEW_YEAR * 1_000_000_000))
            .unwrap();
        assert_eq!(at(next).to_string(), expected);
    }
}
