//! Which commands exist at the top level, and which options every one of them has.

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::{
    create::CreateCommand, delete::DeleteCommand, install::InstallCommand, query::QueryCommand,
    show::ShowCommand, switch::SwitchCommand, test::TestCommand, update::UpdateCommand,
    write::WriteCommand,
};

/// A time-series database whose Python plugins run in processes of their own
#[derive(Debug, Parser)]
#[command(
    name = "influxdb3",
    version,
    disable_help_flag = true,
    disable_help_subcommand = true,
    after_help = "Without a command, `influxdb3` starts a server with default settings."
)]
pub(crate) struct Cli {
    /// Print help
    #[arg(short = 'h', long = "help", global = true, display_order = 1000, action = ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print detailed help
    #[arg(long = "help-all", global = true, display_order = 1000, action = ArgAction::HelpLong)]
    help_all: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Box<ServeCommand>),
    /// Query a database
    #[command(visible_alias = "q")]
    Query(QueryCommand),
    /// Write line protocol to a database
    #[command(visible_alias = "w")]
    Write(WriteCommand),
    /// Create a database, a table or a trigger
    #[command(subcommand)]
    Create(CreateCommand),
    /// Show databases, retention, plugin files, system tables or the sandbox
    #[command(subcommand)]
    Show(ShowCommand),
    /// Delete a database, a table or a trigger
    #[command(subcommand)]
    Delete(DeleteCommand),
    /// Update a database or a trigger
    #[command(subcommand)]
    Update(UpdateCommand),
    /// Try a plugin out: run it once and store nothing
    #[command(subcommand)]
    Test(TestCommand),
    /// Install Python packages for plugins
    #[command(subcommand)]
    Install(InstallCommand),
    /// Enable a trigger
    #[command(subcommand)]
    Enable(SwitchCommand),
    /// Disable a trigger
    #[command(subcommand)]
    Disable(SwitchCommand),
}

impl Command {
    /// The word that failure messages start with.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Serve(_) => "Serve",
            Self::Query(_) => "Query",
            Self::Write(_) => "Write",
            Self::Create(_) => "Create",
            Self::Show(_) => "Show",
            Self::Delete(_) => "Delete",
            Self::Update(_) => "Update",
            Self::Test(_) => "Test",
            Self::Install(_) => "Install",
            Self::Enable(_) => "Enable",
            Self::Disable(_) => "Disable",
        }
    }
}

/// `serve`: everything about it belongs to the server.
#[derive(Debug, Args)]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    pub(crate) args: outrigger_app::Args,
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    /// Parses a command line, without the program's name.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
        let program = std::iter::once("influxdb3");
        Cli::try_parse_from(program.chain(arguments.iter().copied()))
            .map(|cli| cli.command.expect("these tests name a command"))
    }

    /// Parses a command line that must be refused, and returns the message.
    #[track_caller]
    pub(crate) fn refusal(arguments: &[&str]) -> String {
        let error = parse(arguments).expect_err("the arguments must be refused");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_works_at_every_level_without_required_arguments() {
        for arguments in [
            &["-h"][..],
            &["--help"],
            &["--help-all"],
            &["serve", "-h"],
            &["create", "--help-all"],
            &["create", "trigger", "-h"],
            &["show", "system", "-d", "db", "table", "--help"],
        ] {
            let error = parse(arguments).expect_err("help is an early exit");
            assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{arguments:?}");
            assert_eq!(error.exit_code(), 0);
        }
    }

    #[test]
    fn there_is_a_version_and_no_help_command() {
        let version = parse(&["-V"]).expect_err("the version is an early exit");
        assert_eq!(version.kind(), ErrorKind::DisplayVersion);
        assert!(version.to_string().starts_with("influxdb3 "), "{version}");
        refusal(&["help"]);
    }

    #[test]
    fn the_short_aliases_are_the_same_commands() {
        let alias = |arguments: &[&str]| parse(arguments).expect("an alias").verb();
        assert_eq!(alias(&["q", "-d", "db", "SELECT 1"]), "Query");
        assert_eq!(alias(&["w", "-d", "db", "cpu v=1"]), "Write");
        assert_eq!(alias(&["show", "s", "-d", "db", "table-list"]), "Show");
    }
}
