//! How a trigger's specification is written.

use std::{fmt, str::FromStr, time::Duration};

use outrigger_catalog::trigger::TriggerEvent;

use crate::expression::{self, CronError};

/// The forms that a specification may have, for messages.
pub const GRAMMAR: &str = "\
expected one of:
  all_tables         rows were written to any table of the database
  table:<name>       rows were written to this table
  parquet:all_tables Parquet files of any table of the database were committed
  parquet:<name>     Parquet files of this table were committed
  every:<duration>   at the multiples of a duration since 1970, for example every:10s or every:1h 30m
  cron:<expression>  5 fields: minute hour day month weekday (0 or 7 is Sunday), where one of two
                     given days is enough, or 6 or 7 fields: second minute hour day month
                     weekday (1 is Sunday) [year], where both must match; or @hourly, @daily,
                     @weekly, @monthly, @yearly; in UTC
  request:<path>     HTTP requests to /api/v3/engine/<path>";

const EVERY_MIN: Duration = Duration::from_millis(1);
/// A year, as humantime counts it.
const EVERY_MAX: Duration = Duration::from_hours(8766);

/// A valid specification.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TriggerSpec(pub TriggerEvent);

/// What kind of trigger it is, in the words of `--restrict-plugin-triggers-to`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TriggerKind {
    /// Fires on writes.
    WalRows,
    /// Fires on files.
    ParquetFiles,
    /// Fires at times.
    Schedule,
    /// Fires on requests.
    Request,
}

impl TriggerKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::WalRows,
        Self::ParquetFiles,
        Self::Schedule,
        Self::Request,
    ];
}

impl From<&TriggerEvent> for TriggerKind {
    fn from(event: &TriggerEvent) -> Self {
        match event {
            TriggerEvent::AllTablesWalWrite | TriggerEvent::SingleTableWalWrite { .. } => {
                Self::WalRows
            }
            TriggerEvent::AllTablesParquetPersist
            | TriggerEvent::SingleTableParquetPersist { .. } => Self::ParquetFiles,
            TriggerEvent::Schedule { .. } | TriggerEvent::Every { .. } => Self::Schedule,
            TriggerEvent::RequestPath { .. } => Self::Request,
        }
    }
}

/// A specification that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse trigger from {spec:?}: {reason}; {GRAMMAR}")]
pub struct SpecError {
    spec: String,
    reason: String,
}

impl SpecError {
    /// What is wrong, without the grammar.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

impl FromStr for TriggerSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).map(Self).map_err(|reason| SpecError {
            spec: text.to_owned(),
            reason,
        })
    }
}

fn parse(spec: &str) -> Result<TriggerEvent, String> {
    if let "all_tables" | "all-tables" = spec {
        return Ok(TriggerEvent::AllTablesWalWrite);
    }
    let Some((keyword, rest)) = spec.split_once(':') else {
        return Err("it has none of the known forms".to_owned());
    };
    let rest = rest.trim();
    match keyword {
        "table" if rest.is_empty() => Err("table name is empty".to_owned()),
        "table" => Ok(TriggerEvent::SingleTableWalWrite {
            table_name: rest.to_owned(),
        }),
        "parquet" => parse_parquet(rest),
        "every" => parse_every(rest),
        "cron" | "schedule" => parse_cron(rest).map_err(|error| error.to_string()),
        "request" | "path" => parse_path(rest),
        _ => Err("it has none of the known forms".to_owned()),
    }
}

fn parse_parquet(table: &str) -> Result<TriggerEvent, String> {
    match table {
        "" => Err("it names no table: parquet:all_tables, or parquet:<name>".to_owned()),
        "all_tables" | "all-tables" => Ok(TriggerEvent::AllTablesParquetPersist),
        table => Ok(TriggerEvent::SingleTableParquetPersist {
            table_name: table.to_owned(),
        }),
    }
}

fn parse_every(text: &str) -> Result<TriggerEvent, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("couldn't parse to duration: {error}"))?;
    if duration < EVERY_MIN {
        return Err("the duration must be at least 1ms".to_owned());
    }
    if duration > EVERY_MAX {
        return Err("don't support every schedules of over 1 year".to_owned());
    }
    Ok(TriggerEvent::Every { duration })
}

fn parse_cron(text: &str) -> Result<TriggerEvent, CronError> {
    let schedule = expression::normalize(text)?;
    Ok(TriggerEvent::Schedule { schedule })
}

fn parse_path(path: &str) -> Result<TriggerEvent, String> {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return Err("request path is empty".to_owned());
    }
    // Paths are compared as they are sent, and nothing else can be sent.
    if let Some(wrong) = path
        .chars()
        .find(|c| !c.is_ascii_graphic() || "?#".contains(*c))
    {
        return Err(format!(
            "a request path has no {wrong:?}: percent-encode what is no ASCII, blanks, '?' and '#', \
             as in h%C3%BC for hü"
        ));
    }
    Ok(TriggerEvent::RequestPath {
        path: path.to_owned(),
    })
}

impl fmt::Display for TriggerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TriggerEvent::AllTablesWalWrite => f.write_str("all_tables"),
            TriggerEvent::SingleTableWalWrite { table_name } => write!(f, "table:{table_name}"),
            TriggerEvent::AllTablesParquetPersist => f.write_str("parquet:all_tables"),
            TriggerEvent::SingleTableParquetPersist { table_name } => {
                write!(f, "parquet:{table_name}")
            }
            TriggerEvent::Schedule { schedule } => write!(f, "cron:{schedule}"),
            TriggerEvent::Every { duration } => {
                write!(f, "every:{}", humantime::format_duration(*duration))
            }
            TriggerEvent::RequestPath { path } => write!(f, "request:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_one_is_written() {
        check("all_tables", "all_tables");
        check(" all-tables ", "all_tables");
        check("table: cpu ", "table:cpu");
        check("table:with space", "table:with space");
        check("parquet:all_tables", "parquet:all_tables");
        check(" parquet: all-tables ", "parquet:all_tables");
        check("parquet:with space", "parquet:with space");
        check("every:60s", "every:1m");
        check("every:90m", "every:1h 30m");
        check("cron:0 0 6 * * 2-6", "cron:0 0 6 * * 2-6");
        check("schedule:*/5 * * * *", "cron:0 */5 * * * *");
        check("cron:0 9 13 * 5", "cron:0 9 13 * 5");
        check("cron:0 0 ? * sunday", "cron:0 0 0 * * 1");
        check("cron:@daily", "cron:@daily");
        check("request:hooks/in", "request:hooks/in");
        check("path:/hooks", "request:hooks");
        check("request:h%C3%BC/x", "request:h%C3%BC/x");
    }

    #[test]
    fn a_bad_specification_names_the_mistake_and_the_grammar() {
        check_refused("table:", "table name is empty");
        check_refused("All_Tables", "none of the known forms");
        check_refused("", "none of the known forms");
        check_refused("parquet", "none of the known forms");
        check_refused("parquet: ", "it names no table: parquet:all_tables, or");
        check_refused("every:10", "couldn't parse to duration");
        check_refused("every:0s", "at least 1ms");
        check_refused("every:366d", "over 1 year");
        check_refused("request:", "request path is empty");
        for (path, wrong) in [("a b", ' '), ("hü/x", 'ü'), ("a?b", '?'), ("a#b", '#')] {
            let reason = format!("a request path has no {wrong:?}: percent-encode");
            check_refused(&format!("request:{path}"), &reason);
        }
        check_refused("cron:* * *", "3 fields");
        check_refused("cron:0 60 * * * *", "the minute cannot be \"60\"");
        check_refused("cron:@reboot", "there is no \"@reboot\"");
        check_refused("cron:0 0 0 30 2 *", "never");
    }

    #[track_caller]
    fn check(text: &str, printed: &str) {
        let spec = text.parse::<TriggerSpec>().unwrap();
        assert_eq!(spec.to_string(), printed);
        assert_eq!(printed.parse::<TriggerSpec>().unwrap(), spec);
    }

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let error = text.parse::<TriggerSpec>().unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("table:<name>"),
            "{error}"
        );
    }
}
