//! `test …`: has the server run a plugin once and shows what came of it; nothing is stored.

mod persisted;
mod request;
mod schedule;
mod wal;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use self::{persisted::TestPersisted, request::TestRequest, schedule::TestSchedule, wal::TestWal};
use crate::{
    arguments::{self, Arguments},
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
};

/// What to run the plugin for.
#[derive(Debug, Subcommand)]
pub(crate) enum TestCommand {
    /// As if lines had been written
    #[command(name = "wal_plugin")]
    Wal(Box<TestWal>),
    /// As if Parquet files that there are had just been committed
    #[command(name = "persisted_plugin")]
    Persisted(Box<TestPersisted>),
    /// As if it was the next time of a schedule
    #[command(name = "schedule_plugin")]
    Schedule(Box<TestSchedule>),
    /// As if an HTTP request had come
    #[command(name = "request_plugin")]
    Request(Box<TestRequest>),
}

impl TestCommand {
    /// Runs the plugin and prints what came of it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Wal(test) => test.run().await,
            Self::Persisted(test) => test.run().await,
            Self::Schedule(test) => test.run().await,
            Self::Request(test) => test.run().await,
        }
    }
}

/// What every kind of test takes.
#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// What the plugin gets as its arguments: key=value,key2=value2, or a JSON object, whose
    /// values may hold commas
    #[arg(long, value_name = "KEY=VALUE", value_parser = arguments::parse)]
    input_arguments: Vec<Arguments>,
    /// Tests of a plugin with the same name share its cache
    #[arg(long, value_name = "NAME")]
    cache_name: Option<String>,
    /// How long the run may take, for example 30s; the server's own limit otherwise
    #[arg(long, value_name = "DURATION", value_parser = arguments::parse_duration)]
    timeout: Option<String>,
    /// The plugin's file or directory in the server's plugin directory
    #[arg(value_name = "FILENAME")]
    filename: String,
}

/// A test as it is sent; what is not given, is left out.
#[derive(Debug, Serialize)]
struct TestBody<T> {
    filename: String,
    database: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_arguments: Option<Arguments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(flatten)]
    event: T,
}

impl CommonArgs {
    fn body<T>(self, event: T) -> (ServerArgs, TestBody<T>) {
        let body = TestBody {
            filename: self.filename,
            database: self.database.database,
            cache_name: self.cache_name,
            input_arguments: arguments::join(self.input_arguments),
            timeout: self.timeout,
            event,
        };
        (self.server, body)
    }

    /// Sends the test, prints the whole answer, and fails if it tells of errors.
    async fn run<T: Serialize + Sync>(self, kind: &str, event: T) -> anyhow::Result<()> {
        let (server, body) = self.body(event);
        let path = format!("/api/v3/plugin_test/{kind}");
        let answer = Client::new(&server)?.post(&path, &body).await?;
        let report = answer.json().await?;
        let text = serde_json::to_string_pretty(&report).context("print the answer")?;
        say(format_args!("{text}"))?;
        check(&report)
    }
}

/// Fails with the beginning of the first error, if there are any.
fn check(report: &Value) -> anyhow::Result<()> {
    let errors = report["errors"].as_array();
    let errors = errors.map_or(&[][..], Vec::as_slice);
    let Some(first) = errors.first() else {
        return Ok(());
    };
    let first = first.as_str().unwrap_or_default();
    let line = first.lines().next().unwrap_or_default();
    match errors.len() {
        1 => bail!("the plugin's test has an error: {line}"),
        count => bail!("the plugin's test has {count} errors, the first: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args::{Command, tests as args};

    /// The body of a test that was typed.
    #[track_caller]
    pub(super) fn body(arguments: &[&str]) -> anyhow::Result<Value> {
        let Ok(Command::Test(test)) = args::parse(arguments) else {
            panic!("not a test: {arguments:?}");
        };
        Ok(match test {
            TestCommand::Wal(test) => {
                let event = test.event.read()?;
                serde_json::to_value(test.common.body(event).1)?
            }
            TestCommand::Persisted(test) => serde_json::to_value(test.common.body(test.event).1)?,
            TestCommand::Schedule(test) => serde_json::to_value(test.common.body(test.event).1)?,
            TestCommand::Request(test) => {
                let event = test.event.read()?;
                serde_json::to_value(test.common.body(event).1)?
            }
        })
    }

    #[test]
    fn what_is_given_is_sent_and_nothing_else() {
        let start = ["test", "schedule_plugin", "-d", "db", "p.py"];
        let expected = json!({ "filename": "p.py", "database": "db" });
        assert_eq!(body(&start).unwrap(), expected);
        let more = [
            "--input-arguments",
            r#"{"a": "1,2"}"#,
            "--input-arguments",
            "b=3",
            "--cache-name",
            "mine",
            "--timeout",
            "30s",
            "--schedule",
            "every:10s",
        ];
        let expected = json!({
            "filename": "p.py",
            "database": "db",
            "cache_name": "mine",
            "input_arguments": { "a": "1,2", "b": "3" },
            "timeout": "30s",
            "schedule": "every:10s",
        });
        assert_eq!(body(&[&start[..], &more].concat()).unwrap(), expected);
    }

    #[test]
    fn an_answer_with_errors_is_a_failure() {
        check(&json!({ "errors": [] })).unwrap();
        let error = |errors: Value| check(&json!({ "errors": errors })).unwrap_err().to_string();
        assert_eq!(
            error(json!(["boom\nTraceback"])),
            "the plugin's test has an error: boom"
        );
        assert_eq!(
            error(json!(["a", "b"])),
            "the plugin's test has 2 errors, the first: a"
        );
    }
}
