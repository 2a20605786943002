//! How a trigger's specification is written.

use std::{fmt, str::FromStr};

use outrigger_catalog::trigger::TriggerEvent;

/// The forms that a specification may have, for messages.
pub const GRAMMAR: &str = "\
expected one of:
  all_tables        rows were written to any table of the database
  table:<name>      rows were written to this table";

/// Forms that are known and have their own, later, version.
const LATER: [&str; 5] = ["every:", "cron:", "schedule:", "request:", "path:"];

/// A valid specification.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TriggerSpec(pub TriggerEvent);

/// A specification that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse trigger from {spec:?}: {reason}; {GRAMMAR}")]
pub struct SpecError {
    spec: String,
    reason: &'static str,
}

impl FromStr for TriggerSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| SpecError {
            spec: text.to_owned(),
            reason,
        };
        let spec = text.trim();
        if let "all_tables" | "all-tables" = spec {
            return Ok(Self(TriggerEvent::AllTablesWalWrite));
        }
        if let Some(table) = spec.strip_prefix("table:") {
            let table_name = table.trim().to_owned();
            if table_name.is_empty() {
                return Err(refuse("table name is empty"));
            }
            return Ok(Self(TriggerEvent::SingleTableWalWrite { table_name }));
        }
        if LATER.iter().any(|prefix| spec.starts_with(prefix)) {
            return Err(refuse(
                "schedules and requests are not supported by this version yet",
            ));
        }
        Err(refuse("it has none of the known forms"))
    }
}

impl fmt::Display for TriggerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TriggerEvent::AllTablesWalWrite => f.write_str("all_tables"),
            TriggerEvent::SingleTableWalWrite { table_name } => write!(f, "table:{table_name}"),
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
    }

    #[test]
    fn a_bad_specification_names_the_mistake_and_the_grammar() {
        check_refused("table:", "table name is empty");
        check_refused("All_Tables", "none of the known forms");
        check_refused("", "none of the known forms");
        check_refused("every:10s", "not supported by this version yet");
    }

    #[track_caller]
    fn check(text: &str, printed: &str) {
        assert_eq!(text.parse::<TriggerSpec>().unwrap().to_string(), printed);
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
