//! How a cron expression is written, and what is wrong with one.
//!
//! Expressions of 6 or 7 fields are the `cron` crate's, with days of the week from 1 for
//! Sunday, as in InfluxDB 3. Expressions of 5 fields are classic crontab and translated.

use std::{collections::BTreeSet, str::FromStr};

use chrono::Utc;
use cron::Schedule;

/// Names of the days; the index is the number in crontab.
const DAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// Expressions that are one word.
const MACROS: [&str; 5] = ["@hourly", "@daily", "@weekly", "@monthly", "@yearly"];

/// The fields of the crate's form: what each is called, and which values it takes.
const FIELDS: [(&str, &str); 7] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of the month", "1-31"),
    ("month", "1-12 or a name such as jan"),
    (
        "day of the week",
        "1-7, where 1 is Sunday, or a name such as mon",
    ),
    ("year", "1970-2100"),
];

/// The values of the day of the week in crontab.
const CLASSIC_WEEKDAYS: &str = "0-7, where 0 and 7 are Sunday, or a name such as mon";

/// Why a cron expression was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CronError {
    /// It has the wrong number of fields.
    #[error("a cron expression has 5, 6 or 7 fields, this one has {0} fields")]
    Fields(usize),
    /// It is one word, but not one that has a meaning.
    #[error("there is no {0:?}: expected {list}", list = MACROS.join(", "))]
    Macro(String),
    /// A field cannot be read.
    #[error(
        "the {field} cannot be {value:?}: expected {allowed}, or *, a list (1,3), an ascending \
         range (1-5) or a step (*/2); L, W and # are not supported"
    )]
    Field {
        /// Which field.
        field: &'static str,
        /// The part of it that is wrong.
        value: String,
        /// Which values it takes.
        allowed: &'static str,
    },
    /// The crate cannot read it as a whole.
    #[error("{0}")]
    Expression(String),
    /// It can be read, but no time matches it.
    #[error("the expression never fires")]
    Never,
}

/// The expression in the form that is stored, checked: a macro, 6 or 7 fields, or 5 fields
/// where no longer form says the same.
pub(crate) fn normalize(text: &str) -> Result<String, CronError> {
    let fields = fields(text);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let expression = match fields[..] {
        [name] if name.starts_with('@') => {
            if !MACROS.contains(&name) {
                return Err(CronError::Macro(name.to_owned()));
            }
            name.to_owned()
        }
        [minute, hour, day, month, weekday] => {
            match &translate([minute, hour, day, month, weekday])?[..] {
                [one] => one.clone(),
                _ => fields.join(" "),
            }
        }
        [_, _, _, _, _, _] | [_, _, _, _, _, _, _] => {
            for (position, field) in fields.iter().enumerate() {
                check_field(position, field)?;
            }
            fields.join(" ")
        }
        _ => return Err(CronError::Fields(fields.len())),
    };
    let fires = |schedule: &Schedule| schedule.upcoming(Utc).next().is_some();
    if !schedules(&expression)?.iter().any(fires) {
        return Err(CronError::Never);
    }
    Ok(expression)
}

/// What a normalized expression means: the times of all of them.
pub(crate) fn schedules(expression: &str) -> Result<Vec<Schedule>, CronError> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    match fields[..] {
        [minute, hour, day, month, weekday] => translate([minute, hour, day, month, weekday])?
            .iter()
            .map(|expression| read(expression))
            .collect(),
        _ => Ok(vec![read(expression)?]),
    }
}

fn read(expression: &str) -> Result<Schedule, CronError> {
    Schedule::from_str(expression).map_err(|error| CronError::Expression(error.to_string()))
}

/// The fields of an expression. A list may have blanks after its commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for part in text.split_whitespace() {
        match fields.last_mut() {
            Some(list) if list.len() > 1 && list.ends_with(',') => list.push_str(part),
            _ => fields.push(part.to_owned()),
        }
    }
    fields
}

/// Crontab's 5 fields in the crate's form. Where both the day of the month and the day of
/// the week are restricted, it is enough that one of them matches: that is two expressions.
fn translate(fields: [&str; 5]) -> Result<Vec<String>, CronError> {
    let plain = fields.map(|field| match field.strip_prefix('?') {
        Some(rest) => format!("*{rest}"),
        None => field.to_owned(),
    });
    for ((position, field), written) in (1..).zip(&plain[..4]).zip(fields) {
        check_field(position, field).map_err(|error| as_written(error, field, written))?;
    }
    let [minute, hour, day, month, weekday] = &plain;
    let [.., written] = fields;
    let weekdays = quartz_weekdays(weekday).map_err(|error| as_written(error, weekday, written))?;
    let with = |day: &str, weekdays: &str| format!("0 {minute} {hour} {day} {month} {weekdays}");
    if day.starts_with('*') || weekday.starts_with('*') {
        return Ok(vec![with(day, &weekdays)]);
    }
    Ok(vec![with(day, "*"), with("*", &weekdays)])
}

/// Names the whole field as its author wrote it, if that is what an error names.
fn as_written(error: CronError, field: &str, written: &str) -> CronError {
    match error {
        CronError::Field {
            field: name,
            value,
            allowed,
        } if value == field => CronError::Field {
            field: name,
            value: written.to_owned(),
            allowed,
        },
        other => other,
    }
}

/// Refuses a field that would be wrong whatever the others are.
fn check_field(position: usize, field: &str) -> Result<(), CronError> {
    let is_read = |field: &str| {
        let fields = (0..FIELDS.len()).map(|other| if other == position { field } else { "*" });
        read(&fields.collect::<Vec<_>>().join(" ")).is_ok()
    };
    if is_read(field) {
        return Ok(());
    }
    let item = field.split(',').find(|item| !is_read(item));
    let (name, allowed) = FIELDS[position];
    Err(CronError::Field {
        field: name,
        value: item.unwrap_or(field).to_owned(),
        allowed,
    })
}

/// Crontab's days of the week (0 or 7 is Sunday) as a list of the other form's (1 is Sunday).
fn quartz_weekdays(field: &str) -> Result<String, CronError> {
    if field == "*" {
        return Ok(field.to_owned());
    }
    let mut days = BTreeSet::new();
    for item in field.split(',') {
        let item_days = weekdays(item).ok_or_else(|| CronError::Field {
            field: "day of the week",
            value: if item.is_empty() { field } else { item }.to_owned(),
            allowed: CLASSIC_WEEKDAYS,
        })?;
        days.extend(item_days.into_iter().map(|day| day % 7 + 1));
    }
    let days: Vec<String> = days.iter().map(ToString::to_string).collect();
    Ok(days.join(","))
}

/// The days of one item of a list, in crontab's numbers.
fn weekdays(item: &str) -> Option<Vec<usize>> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
        None => (item, 1),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None if range == "*" => (0, 6),
        None if item.contains('/') => (day(range)?, 6),
        None => (day(range)?, day(range)?),
    };
    (first <= last).then(|| (first..=last).step_by(step).collect())
}

fn day(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let is_named = |name: &str| *name == lower || name[..3] == lower;
    // Short forms that the crate knows too.
    let named = match lower.as_str() {
        "tues" => Some(2),
        "thurs" => Some(4),
        _ => DAYS.iter().position(|name| is_named(name)),
    };
    named.or_else(|| text.parse().ok().filter(|day| *day <= 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_weekdays_count_from_sunday_as_0_or_7() {
        for (classic, quartz) in [
            ("0", "1"),
            ("7", "1"),
            ("1-5", "2,3,4,5,6"),
            ("5-7", "1,6,7"),
            ("mon,FRI", "2,6"),
            ("sunday", "1"),
            ("Monday-Thurs", "2,3,4,5"),
            ("*/2", "1,3,5,7"),
            ("1-5/2", "2,4,6"),
        ] {
            assert_eq!(quartz_weekdays(classic).unwrap(), quartz, "{classic}");
        }
        for bad in ["8", "5-1", "x", "", "1/0", "mond", "Mon#2", "6L", "1,,2"] {
            assert!(quartz_weekdays(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stored_form_says_the_same() {
        for (text, stored) in [
            ("*/5 * * * *", "0 */5 * * * *"),
            ("0 0 ? * 1", "0 0 0 * * 2"),
            ("? ? ? ? ?", "0 * * * * *"),
            ("0 0 ?/2 * ?", "0 0 0 */2 * *"),
            // A step of all days restricts no day, as in crontab's manual.
            ("0 0 */2 * 1", "0 0 0 */2 * 2"),
            ("0 9 13 * 5", "0 9 13 * 5"),
            ("0  0 1,15 * mon", "0 0 1,15 * mon"),
            ("0 0 * * Mon, Wed", "0 0 0 * * 2,4"),
            ("0 0 9 ? * Mon, Wed", "0 0 9 ? * Mon,Wed"),
            ("0 0 0 1 1 ? 2099", "0 0 0 1 1 ? 2099"),
            ("@weekly", "@weekly"),
        ] {
            let normalized = normalize(text).unwrap();
            assert_eq!(normalized, stored, "{text}");
            assert_eq!(normalize(&normalized).unwrap(), stored, "{text}");
        }
    }

    #[test]
    fn the_wrong_field_is_named_with_what_it_may_be() {
        for (text, field, value, allowed) in [
            ("a b c d e", "minute", "a", "0-59"),
            (", * * * *", "minute", ",", "0-59"),
            ("60 * * * *", "minute", "60", "0-59"),
            ("1,?7 * * * *", "minute", "?7", "0-59"),
            ("?7 * * * *", "minute", "?7", "0-59"),
            ("0 24 * * *", "hour", "24", "0-23"),
            ("0 0 0 * *", "day of the month", "0", "1-31"),
            ("0 0 15W * *", "day of the month", "15W", "1-31"),
            ("0 0 13 13 5", "month", "13", "1-12"),
            ("0 0 * * 9", "day of the week", "9", "0 and 7 are Sunday"),
            ("0 0 13 * Mon#2", "day of the week", "Mon#2", "0-7"),
            ("0 0 * * 5-1", "day of the week", "5-1", "ascending range"),
            ("60 * * * * *", "second", "60", "0-59"),
            ("0 60 * * * *", "minute", "60", "0-59"),
            ("0 0 0 * * 0", "day of the week", "0", "1 is Sunday"),
            ("0 0 0 * * SAT#1", "day of the week", "SAT#1", "#"),
            ("0 0 0 * * mon,6L", "day of the week", "6L", "L, W and #"),
            ("0 0 0 1* * *", "day of the month", "1*", "1-31"),
            ("0 0 0 1 1 ? 1969", "year", "1969", "1970-2100"),
        ] {
            let error = normalize(text).unwrap_err().to_string();
            let named = format!("the {field} cannot be {value:?}: expected ");
            assert!(
                error.starts_with(&named) && error.contains(allowed),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn what_is_no_expression_is_explained() {
        for (text, part) in [
            ("1 2 3 4", "this one has 4 fields"),
            ("", "this one has 0 fields"),
            ("@reboot", "there is no \"@reboot\": expected @hourly, "),
            ("@midnight", "there is no \"@midnight\""),
            ("@DAILY", "there is no \"@DAILY\""),
            ("0 0 0 30 2 *", "never fires"),
            ("0 0 30 2 *", "never fires"),
            ("0 0 0 1 1 * 2001", "never fires"),
        ] {
            let error = normalize(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
