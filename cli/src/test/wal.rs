//! `test wal_plugin`: as if lines had been written.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::CommonArgs;

/// `test wal_plugin`.
#[derive(Debug, Args)]
pub(crate) struct TestWal {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    pub(super) event: WalArgs,
}

/// What was written.
#[derive(Debug, Args)]
pub(super) struct WalArgs {
    /// The lines, with timestamps in nanoseconds
    #[arg(long, value_name = "LINES", conflicts_with = "file")]
    lp: Option<String>,
    /// A file on this machine with the lines
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only what a trigger for this table would see
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
}

/// What was written, as it is sent.
#[derive(Debug, Serialize)]
pub(super) struct WalEvent {
    input_lp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
}

impl TestWal {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let event = self.event.read()?;
        self.common.run("wal", event).await
    }
}

impl WalArgs {
    pub(super) fn read(self) -> anyhow::Result<WalEvent> {
        let input_lp = match (self.lp, self.file) {
            (Some(lines), _) => lines,
            (None, file) => {
                let path = file.context("either --lp or --file must be provided")?;
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?
            }
        };
        let table = self.table;
        Ok(WalEvent { input_lp, table })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::tests::body;
    use crate::args::tests::refusal;

    const START: [&str; 5] = ["test", "wal_plugin", "-d", "db", "p.py"];

    #[test]
    fn lines_are_given_or_read_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines.lp");
        fs::write(&path, "m f=1").unwrap();
        let path = path.to_str().unwrap();
        let expected = json!({
            "filename": "p.py", "database": "db", "input_lp": "m f=1", "table": "m",
        });
        for input in [["--lp", "m f=1"], ["--file", path]] {
            let typed = [&START[..], &input, &["--table", "m"]].concat();
            assert_eq!(body(&typed).unwrap(), expected, "{input:?}");
        }
        let error = body(&START).unwrap_err().to_string();
        assert_eq!(error, "either --lp or --file must be provided");
        let missing = body(&[&START[..], &["--file", "/none.lp"]].concat());
        assert_eq!(missing.unwrap_err().to_string(), "read /none.lp");
        let both = refusal(&[&START[..], &["--lp", "x", "--file", "y"]].concat());
        assert!(both.contains("cannot be used with"), "{both}");
    }
}
