//! `create …`: makes databases; tables and triggers have files of their own.

mod table;
mod trigger;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::{table::CreateTable, trigger::CreateTrigger};
use crate::{client::Client, connection::ServerArgs, output::say};

/// What to create.
#[derive(Debug, Subcommand)]
pub(crate) enum CreateCommand {
    /// Create a database
    Database(CreateDatabase),
    /// Create a table
    Table(CreateTable),
    /// Create a trigger, which runs a plugin
    Trigger(Box<CreateTrigger>),
}

impl CreateCommand {
    /// Creates it and says so.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.run().await,
            Self::Table(table) => table.run().await,
            Self::Trigger(trigger) => trigger.run().await,
        }
    }
}

/// `create database`.
#[derive(Debug, Args)]
pub(crate) struct CreateDatabase {
    #[command(flatten)]
    server: ServerArgs,
    /// How long rows are kept, such as `30d`; without it, forever
    #[arg(long, value_name = "DURATION", value_parser = parse_retention)]
    retention_period: Option<String>,
    /// The name of the new database
    #[arg(value_name = "NAME", env = "INFLUXDB3_DATABASE_NAME")]
    name: String,
}

#[derive(Serialize)]
struct DatabaseRequest<'a> {
    db: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_period: Option<&'a str>,
}

impl CreateDatabase {
    async fn run(self) -> anyhow::Result<()> {
        let request = DatabaseRequest {
            db: &self.name,
            retention_period: self.retention_period.as_deref(),
        };
        Client::new(&self.server)?
            .post("/api/v3/configure/database", &request)
            .await?;
        say(format_args!(
            "Database {:?} created successfully",
            self.name
        ))
    }
}

/// Checks a duration early; the server gets it as it was typed.
pub(crate) fn parse_retention(text: &str) -> Result<String, humantime::DurationError> {
    humantime::parse_duration(text)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::args::tests::{parse, refusal};

    #[test]
    fn a_database_needs_a_name_and_a_valid_duration() {
        parse(&["create", "database", "--retention-period", "1h 30m", "db"]).expect("valid");
        let problem = refusal(&["create", "database", "--retention-period", "soon", "db"]);
        assert!(problem.contains("--retention-period"), "{problem}");
        assert!(refusal(&["create", "database"]).contains("<NAME>"));
    }
}
