//! `delete …`: removes databases and tables, after asking, and triggers.

use std::io::{self, BufRead, Write};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use reqwest::Method;

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
};

/// What to delete.
#[derive(Debug, Subcommand)]
pub(crate) enum DeleteCommand {
    /// Delete a database
    Database(DeleteDatabase),
    /// Delete a table
    Table(DeleteTable),
    /// Delete a trigger; its plugin stays
    Trigger(DeleteTrigger),
}

impl DeleteCommand {
    /// Deletes it and says so.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.run().await,
            Self::Table(table) => table.run().await,
            Self::Trigger(trigger) => trigger.run().await,
        }
    }
}

/// `delete database`.
#[derive(Debug, Args)]
pub(crate) struct DeleteDatabase {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    how: How,
    /// The name of the database
    #[arg(value_name = "NAME", env = "INFLUXDB3_DATABASE_NAME")]
    name: String,
}

/// How something with data is deleted.
#[derive(Debug, Args)]
struct How {
    /// When the data itself is removed: never, now, default, or a time such as
    /// 2030-01-01T00:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_hard_delete)]
    hard_delete: Option<String>,
    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    yes: bool,
}

impl How {
    fn confirm(&self, name: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        confirm(name, &mut io::stdin().lock(), &mut io::stderr())
    }

    fn parameter(&self) -> Option<(&str, &str)> {
        let when = self.hard_delete.as_deref()?;
        Some(("hard_delete_at", when))
    }
}

/// `delete table`.
#[derive(Debug, Args)]
pub(crate) struct DeleteTable {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    how: How,
    /// The name of the table
    #[arg(value_name = "TABLE_NAME")]
    name: String,
}

impl DeleteTable {
    async fn run(self) -> anyhow::Result<()> {
        let client = Client::new(&self.server)?;
        let database = &self.database.database;
        self.how.confirm(&format!("{database}.{}", self.name))?;
        let mut parameters = vec![("db", database.as_str()), ("table", self.name.as_str())];
        parameters.extend(self.how.parameter());
        client
            .call(Method::DELETE, "/api/v3/configure/table", &parameters)
            .await?;
        say(format_args!(
            "Table \"{database}\".\"{}\" deleted successfully",
            self.name
        ))
    }
}

impl DeleteDatabase {
    async fn run(self) -> anyhow::Result<()> {
        let client = Client::new(&self.server)?;
        self.how.confirm(&self.name)?;
        let parameters = self.parameters();
        client
            .call(Method::DELETE, "/api/v3/configure/database", &parameters)
            .await?;
        say(format_args!(
            "Database {:?} deleted successfully",
            self.name
        ))
    }

    fn parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("db", self.name.as_str())];
        parameters.extend(self.how.parameter());
        parameters
    }
}

/// `delete trigger`.
#[derive(Debug, Args)]
pub(crate) struct DeleteTrigger {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Delete the trigger even if it is enabled
    #[arg(long)]
    force: bool,
    /// The name of the trigger
    #[arg(value_name = "TRIGGER_NAME")]
    name: String,
}

impl DeleteTrigger {
    async fn run(self) -> anyhow::Result<()> {
        let parameters = [
            ("db", self.database.database.as_str()),
            ("trigger_name", self.name.as_str()),
            ("force", if self.force { "true" } else { "false" }),
        ];
        Client::new(&self.server)?
            .call(
                Method::DELETE,
                "/api/v3/configure/processing_engine_trigger",
                &parameters,
            )
            .await?;
        say(format_args!("Trigger {} deleted successfully", self.name))
    }
}

/// Catches misspelt words, which must not be sent to a server that might read them otherwise.
/// Whether a time is valid is for the server to say.
fn parse_hard_delete(text: &str) -> Result<String, &'static str> {
    let word = text.to_ascii_lowercase();
    if ["never", "now", "default"].contains(&word.as_str()) {
        return Ok(word);
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err("must be never, now, default, or a time such as 2030-01-01T00:00:00Z")
}

fn confirm(name: &str, input: &mut impl BufRead, prompt: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        prompt,
        "Are you sure you want to delete {name:?}? Enter 'yes' or 'y' to confirm"
    )
    .context("ask for confirmation")?;
    let mut answer = String::new();
    input
        .read_line(&mut answer)
        .context("read the confirmation")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "yes" | "y" => Ok(()),
        _ => bail!("Cannot proceed without confirmation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, tests as args};

    #[track_caller]
    fn check_answer(answer: &str, confirmed: bool) {
        let mut prompt = Vec::new();
        let result = confirm("foo", &mut answer.as_bytes(), &mut prompt);
        assert_eq!(
            String::from_utf8(prompt).expect("text"),
            "Are you sure you want to delete \"foo\"? Enter 'yes' or 'y' to confirm\n"
        );
        match result {
            Ok(()) => assert!(confirmed, "{answer:?}"),
            Err(error) => {
                assert!(!confirmed, "{answer:?}");
                assert_eq!(error.to_string(), "Cannot proceed without confirmation");
            }
        }
    }

    #[test]
    fn only_a_clear_yes_confirms() {
        check_answer("yes\n", true);
        check_answer(" Y \n", true);
        check_answer("no\n", false);
        check_answer("yes please\n", false);
        check_answer("", false);
    }

    #[track_caller]
    fn check_hard_delete(arguments: &[&str], expected: &[(&str, &str)]) {
        let arguments = [&["delete", "database", "-y"], arguments, &["foo"]].concat();
        match args::parse(&arguments) {
            Ok(Command::Delete(DeleteCommand::Database(database))) => {
                assert!(database.how.yes);
                assert_eq!(database.parameters(), expected);
            }
            other => panic!("not a database: {other:?}"),
        }
    }

    #[test]
    fn the_time_of_removal_is_passed_on() {
        check_hard_delete(&[], &[("db", "foo")]);
        check_hard_delete(
            &["--hard-delete", "Now"],
            &[("db", "foo"), ("hard_delete_at", "now")],
        );
        check_hard_delete(
            &["--hard-delete", "2030-01-01T00:00:00+02:00"],
            &[
                ("db", "foo"),
                ("hard_delete_at", "2030-01-01T00:00:00+02:00"),
            ],
        );
    }

    #[test]
    fn a_misspelt_time_of_removal_is_refused() {
        let refusal = args::refusal(&["delete", "database", "--hard-delete", "nwo", "foo"]);
        assert!(refusal.contains("must be never, now, default"), "{refusal}");
    }
}
