//! `query`: asks a database and prints the rows.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use reqwest::Url;

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs, parse_url},
    format::Format,
    input::InputArgs,
    output,
};

/// `query`.
#[derive(Debug, Args)]
pub(crate) struct QueryCommand {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The server to query, if it is not --host
    #[arg(
        long,
        env = "INFLUXDB3_QUERY_HOST_URL",
        value_name = "URL",
        value_parser = parse_url
    )]
    query_host: Option<Url>,
    /// The language of the query
    #[arg(short, long, value_enum, ignore_case = true, default_value = "sql")]
    language: Language,
    /// How to print the rows
    #[arg(long, value_enum, ignore_case = true, default_value = "pretty")]
    format: Format,
    /// Store the rows in a file instead of printing them
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    query: InputArgs,
}

/// What queries can be written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Language {
    /// SQL
    Sql,
    /// Not supported yet
    Influxql,
}

impl QueryCommand {
    /// Prints the rows, or stores them.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        if self.language == Language::Influxql {
            bail!("InfluxQL is not supported yet; write the query in SQL");
        }
        let query =
            String::from_utf8(self.query.read("query")?).context("the query is not valid UTF-8")?;
        if let Some(host) = self.query_host {
            self.server.host = host;
        }
        let answer = Client::new(&self.server)?
            .query_sql(&self.database.database, &query, self.format)
            .await?;
        match self.output {
            Some(path) => output::save(answer, &path).await,
            None => output::print(answer).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, tests as args};

    #[track_caller]
    fn parse(arguments: &[&str]) -> QueryCommand {
        let arguments = [&["query"], arguments].concat();
        match args::parse(&arguments) {
            Ok(Command::Query(query)) => query,
            other => panic!("not a query: {other:?}"),
        }
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let short = parse(&["-d", "db", "-l", "SQL", "-o", "out", "-H", "http://a"]);
        let long = parse(&[
            "--database",
            "db",
            "--language",
            "sql",
            "--output",
            "out",
            "--host",
            "http://a",
        ]);
        assert_eq!(format!("{short:?}"), format!("{long:?}"));
    }

    #[test]
    fn a_database_and_known_words_are_needed() {
        assert!(args::refusal(&["query", "SELECT 1"]).contains("--database"));
        let refusal = args::refusal(&["query", "-d", "db", "--format", "xml", "SELECT 1"]);
        assert!(
            refusal.contains("[possible values: pretty, json, jsonl, csv]"),
            "{refusal}"
        );
        assert!(args::refusal(&["query", "-d", "db", "-H", "localhost:1"]).contains("http://"));
    }

    #[tokio::test]
    async fn influxql_is_refused_clearly() {
        let query = parse(&["-d", "db", "-l", "influxql", "SHOW MEASUREMENTS"]);
        let error = query.run().await.expect_err("not supported");
        assert_eq!(
            error.to_string(),
            "InfluxQL is not supported yet; write the query in SQL"
        );
    }
}
