//! Why a query has no answer, and whose fault it is.

use std::{error::Error, fmt};

use arrow::error::ArrowError;
use datafusion::{error::DataFusionError, parquet::errors::ParquetError};
use outrigger_model::error::ErrorKind;

use crate::{ParamError, file};

/// A query that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// There is no such database.
    #[error("database not found: {0}")]
    DatabaseNotFound(String),
    /// The text is not a query that can be answered here.
    #[error("error while planning query")]
    Plan(#[source] EngineError),
    /// A value for a placeholder cannot be used.
    #[error("parameter {name:?}")]
    Parameter {
        /// The placeholder's.
        name: String,
        /// Why not.
        source: ParamError,
    },
    /// The query began, and failed.
    #[error("error while executing query")]
    Execution(#[source] EngineError),
    /// A file could not be read.
    #[error("read the file")]
    File(#[source] ParquetError),
    /// The result could not be written in the format that was asked for.
    #[error("format the result of the query")]
    Format(#[source] ArrowError),
}

impl QueryError {
    pub(crate) fn plan(error: DataFusionError) -> Self {
        Self::Plan(EngineError(error))
    }

    pub(crate) fn execution(error: DataFusionError) -> Self {
        Self::Execution(EngineError(error))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DatabaseNotFound(_) => ErrorKind::NotFound,
            Self::Parameter { .. } => ErrorKind::Invalid,
            Self::Plan(error) | Self::Execution(error) => error.kind(),
            Self::File(error) => file::kind(error),
            Self::Format(_) => ErrorKind::Internal,
        }
    }
}

/// What the query engine said. Prints the innermost message only: the layers around it
/// name optimiser rules, which help nobody who wrote a query.
#[derive(Debug)]
pub struct EngineError(DataFusionError);

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        Self(error)
    }
}

impl EngineError {
    fn kind(&self) -> ErrorKind {
        match self.0.find_root() {
            DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
            // DataFusion calls it an execution error when a function got an argument
            // that it can do nothing with.
            DataFusionError::Plan(_)
            | DataFusionError::SQL(..)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Execution(_) => ErrorKind::Invalid,
            DataFusionError::ArrowError(error, _) => arrow_kind(error),
            _ => ErrorKind::Internal,
        }
    }
}

fn arrow_kind(error: &ArrowError) -> ErrorKind {
    match error {
        ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::InvalidArgumentError(_)
        | ArrowError::NotYetImplemented(_) => ErrorKind::Invalid,
        ArrowError::MemoryError(_) => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.find_root() {
            DataFusionError::SQL(error, _) => error.fmt(f),
            DataFusionError::ResourcesExhausted(text) => write!(
                f,
                "{text}: the queries that run need more memory together than --exec-mem-pool-bytes \
                 allows; ask for less (a shorter time, fewer groups, a LIMIT), try again when others \
                 have ended, or raise the setting"
            ),
            root => f.write_str(&root.strip_backtrace()),
        }
    }
}

impl Error for EngineError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_decides_and_is_printed() {
        let exhausted = DataFusionError::ResourcesExhausted("too much".to_owned());
        let error = QueryError::execution(exhausted.context("rule x"));
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let text = outrigger_model::error::Report(&error).to_string();
        assert!(text.contains("too much: the queries that run"), "{text}");
        assert!(!text.contains("rule x"), "{text}");
        check(
            DataFusionError::from(ArrowError::DivideByZero),
            ErrorKind::Invalid,
        );
        check(
            DataFusionError::Internal("bug".to_owned()),
            ErrorKind::Internal,
        );
        check(DataFusionError::Plan("no".to_owned()), ErrorKind::Invalid);
    }

    #[track_caller]
    fn check(error: DataFusionError, kind: ErrorKind) {
        assert_eq!(QueryError::execution(error).kind(), kind);
    }
}
