//! `update …`: gives a trigger new source.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
    plugin::{LocalPlugin, replace_from_repository},
};

/// What to update.
#[derive(Debug, Subcommand)]
pub(crate) enum UpdateCommand {
    /// Replace the source of a trigger's plugin
    Trigger(UpdateTrigger),
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
        let Self::Trigger(trigger) = self;
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
    fn a_name_and_a_path_are_needed() {
        let refusal = args::refusal(&["update", "trigger", "-d", "db"]);
        assert!(
            refusal.contains("--trigger-name <TRIGGER_NAME>"),
            "{refusal}"
        );
        assert!(refusal.contains("--path <LOCAL_PATH>"), "{refusal}");
    }
}
