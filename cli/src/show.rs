//! `show …`: lists databases and plugin files; retention, system tables and the sandbox have files
//! of their own.

mod retention;
mod sandbox;
mod system;

use clap::{Args, Subcommand};
use reqwest::Method;

use self::{retention::ShowRetention, sandbox::ShowSandbox, system::ShowSystem};
use crate::{client::Client, connection::ServerArgs, format::Format, output};

/// What to show.
#[derive(Debug, Subcommand)]
pub(crate) enum ShowCommand {
    /// List the databases
    Databases(ShowDatabases),
    /// List the files of the triggers' plugins
    Plugins(ShowPlugins),
    /// Show how long databases keep rows
    Retention(ShowRetention),
    /// Show what a database's system tables say
    #[command(visible_alias = "s")]
    System(ShowSystem),
    /// Try out what confines plugins on this machine, without a server
    Sandbox(ShowSandbox),
}

impl ShowCommand {
    /// Prints it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Databases(databases) => databases.run().await,
            Self::Plugins(plugins) => plugins.run().await,
            Self::Retention(retention) => retention.run().await,
            Self::System(system) => system.run().await,
            Self::Sandbox(sandbox) => sandbox.run(),
        }
    }
}

/// `show databases`.
#[derive(Debug, Args)]
pub(crate) struct ShowDatabases {
    #[command(flatten)]
    server: ServerArgs,
    /// Include deleted databases
    #[arg(long)]
    show_deleted: bool,
    /// How to print the rows
    #[arg(long, value_enum, ignore_case = true, default_value = "pretty")]
    format: Format,
}

impl ShowDatabases {
    async fn run(self) -> anyhow::Result<()> {
        let parameters = [
            ("format", self.format.name()),
            (
                "show_deleted",
                if self.show_deleted { "true" } else { "false" },
            ),
        ];
        let answer = Client::new(&self.server)?
            .call(Method::GET, "/api/v3/configure/database", &parameters)
            .await?;
        output::print(answer).await
    }
}

/// `show plugins`: one row per file and trigger, of all databases.
#[derive(Debug, Args)]
pub(crate) struct ShowPlugins {
    #[command(flatten)]
    server: ServerArgs,
    /// How to print the rows
    #[arg(long, value_enum, ignore_case = true, default_value = "pretty")]
    format: Format,
}

impl ShowPlugins {
    async fn run(self) -> anyhow::Result<()> {
        const FILES: &str = "SELECT * FROM system.plugin_files ORDER BY plugin_name, file_path";
        let answer = Client::new(&self.server)?
            .query_sql("_internal", FILES, self.format)
            .await?;
        output::print(answer).await
    }
}
