//! `test persisted_plugin`: as if Parquet files had just been committed.

use clap::Args;
use serde::Serialize;

use super::CommonArgs;

/// `test persisted_plugin`.
#[derive(Debug, Args)]
pub(crate) struct TestPersisted {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    pub(super) event: PersistedArgs,
}

/// Which files, as it is typed and as it is sent.
#[derive(Debug, Args, Serialize)]
pub(super) struct PersistedArgs {
    /// Only files of this table, as for a trigger with parquet:TABLE
    #[arg(long, value_name = "TABLE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    /// How many of the newest, from 1 to 100; one otherwise
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<usize>,
}

impl TestPersisted {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.common.run("persisted", self.event).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::body;
    use crate::args::tests::refusal;

    #[test]
    fn which_files_is_sent_as_it_is_typed() {
        let start = ["test", "persisted_plugin", "-d", "db", "p.py"];
        let expected = json!({ "filename": "p.py", "database": "db" });
        assert_eq!(body(&start).unwrap(), expected);
        let typed = [&start[..], &["--table", "m", "--files", "3"]].concat();
        let expected = json!({ "filename": "p.py", "database": "db", "table": "m", "files": 3 });
        assert_eq!(body(&typed).unwrap(), expected);
        let bad = refusal(&[&start[..], &["--files", "many"]].concat());
        assert!(bad.contains("--files"), "{bad}");
    }
}
