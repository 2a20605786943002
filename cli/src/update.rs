//! `update …`: gives a trigger new source, and a database another retention.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
    plugin::{LocalPlugin, replace_from_repository},
};

/// What to update.
#[derive(Debug, Subcommand)]
pub(crate) enum UpdateCommand {
    /// Change how long a database keeps rows
    Database(UpdateDatabase),
    /// Replace the source of a trigger's plugin
    Trigger(UpdateTrigger),
}

/// `update database`.
#[derive(Debug, Args)]
pub(crate) struct UpdateDatabase {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How long rows are kept, such as `30d`; `none` keeps them forever
    #[arg(short, long, value_name = "DURATION", value_parser = parse_retention)]
    retention_period: Option<Retention>,
}

/// A duration as it was typed; `None` means forever.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Retention(Option<String>);

fn parse_retention(text: &str) -> Result<Retention, humantime::DurationError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Retention(None));
    }
    crate::create::parse_retention(text).map(|text| Retention(Some(text)))
}

#[derive(Serialize)]
struct DatabaseRequest<'a> {
    db: &'a str,
    retention_period: Option<String>,
}

impl UpdateDatabase {
    async fn run(self) -> anyhow::Result<()> {
        let Retention(retention_period) = self
            .retention_period
            .context("--retention-period is required for update database")?;
        let db = &self.database.database;
        let request = DatabaseRequest {
            db,
            retention_period,
        };
        Client::new(&self.server)?
            .send_json(Method::PUT, "/api/v3/configure/database", &[], &request)
            .await?;
        say(format_args!("Database {db:?} updated successfully"))
    }
}

/// `update trigger`.
#[derive(Debug, Args)]
pub(crate) struct UpdateTrigger {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The name of the trigger
    #[arg(short, long, value_name = "TRIGGER_NAME")]
    trigger_name: String,
    /// The new source: a file or a directory on this machine, or `gh:…` to have the server
    /// fetch what its plugin repository has now
    #[arg(short, long, value_name = "LOCAL_PATH")]
    path: PathBuf,
}

impl UpdateTrigger {
    /// The path, if it is not of this machine.
    fn repository_path(&self) -> Option<&str> {
        self.path.to_str().filter(|path| path.starts_with("gh:"))
    }
}

impl UpdateCommand {
    /// Updates it and says so.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let trigger = match self {
            Self::Database(database) => return database.run().await,
            Self::Trigger(trigger) => trigger,
        };
        let client = Client::new(&trigger.server)?;
        let (database, name) = (&trigger.database.database, &trigger.trigger_name);
        if let Some(path) = trigger.repository_path() {
            replace_from_repository(&client, database, name, path).await?;
            return say(format_args!("Trigger '{name}' updated successfully"));
        }
        let plugin = LocalPlugin::read(&trigger.path)?;
        plugin.replace(&client, database, name).await?;
        let how = if plugin.is_directory() {
            " (atomic directory replacement)"
        } else {
            ""
        };
        say(format_args!("Trigger '{name}' updated successfully{how}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, tests as args};

    #[test]
    fn the_short_and_the_long_options_are_the_same() {
        for [name, path] in [["-t", "-p"], ["--trigger-name", "--path"]] {
            let arguments = ["update", "trigger", "-d", "db", name, "t", path, "dir/p.py"];
            let Ok(Command::Update(UpdateCommand::Trigger(trigger))) = args::parse(&arguments)
            else {
                panic!("not an update: {arguments:?}");
            };
            assert_eq!(trigger.database.database, "db");
            assert_eq!(trigger.trigger_name, "t");
            assert_eq!(trigger.path, PathBuf::from("dir/p.py"));
        }
    }

    #[test]
    fn rows_are_kept_for_a_duration_or_forever() {
        let retention = |arguments: &[&str]| {
            let arguments = [&["update", "database", "-d", "db"], arguments].concat();
            match args::parse(&arguments) {
                Ok(Command::Update(UpdateCommand::Database(update))) => update.retention_period,
                other => panic!("not an update: {other:?}"),
            }
        };
        let week = Some(Retention(Some("7d".to_owned())));
        assert_eq!(retention(&["-r", "7d"]), week);
        let forever = Some(Retention(None));
        assert_eq!(retention(&["--retention-period", "none"]), forever);
        // What is missing is said with exit code 1.
        assert_eq!(retention(&[]), None);
        args::refusal(&["update", "database", "-d", "db", "-r", "soon"]);
    }

    #[test]
    fn a_name_and_a_path_are_needed() {
        let refusal = args::refusal(&["update", "trigger", "-d", "db"]);
        assert!(
            refusal.contains("--trigger-name <TRIGGER_NAME>"),
            "{refusal}"
        );
        assert!(refusal.contains("--path <LOCAL_PATH>"), "{refusal}");
    }
}
