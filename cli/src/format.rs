//! In which forms rows can be printed.

use clap::ValueEnum;

/// How rows are printed. The server formats them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    #[default]
    Pretty,
    /// One array of objects
    Json,
    /// One object per line
    #[value(alias = "json_lines")]
    Jsonl,
    /// A header and one row per line
    Csv,
}

impl Format {
    /// The API's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}
