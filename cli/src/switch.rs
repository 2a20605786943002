//! `enable …` and `disable …`: two positions of the same switch.

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
};

/// What to enable or disable.
#[derive(Debug, Subcommand)]
pub(crate) enum SwitchCommand {
    /// A trigger
    Trigger(SwitchTrigger),
}

/// Which way to turn the switch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Position {
    /// Let it run.
    Enabled,
    /// Keep it from running.
    Disabled,
}

/// `enable trigger` and `disable trigger`.
#[derive(Debug, Args)]
pub(crate) struct SwitchTrigger {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The name of the trigger
    #[arg(value_name = "TRIGGER_NAME")]
    name: String,
}

impl SwitchCommand {
    /// Turns the switch; it may be in that position already.
    pub(crate) async fn run(self, position: Position) -> anyhow::Result<()> {
        let Self::Trigger(trigger) = self;
        let (path, done) = match position {
            Position::Enabled => (
                "/api/v3/configure/processing_engine_trigger/enable",
                "enabled",
            ),
            Position::Disabled => (
                "/api/v3/configure/processing_engine_trigger/disable",
                "disabled",
            ),
        };
        let parameters = [
            ("db", trigger.database.database.as_str()),
            ("trigger_name", trigger.name.as_str()),
        ];
        Client::new(&trigger.server)?
            .call(Method::POST, path, &parameters)
            .await?;
        say(format_args!("Trigger {} {done} successfully", trigger.name))
    }
}
