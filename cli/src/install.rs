//! `install …`: has the server install Python packages for its plugins.
//!
//! Deliberately absent: what can be installed, and where, which the server decides.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{client::Client, connection::ServerArgs};

/// What to install.
#[derive(Debug, Subcommand)]
pub(crate) enum InstallCommand {
    /// Python packages, into the virtual environment of the server's plugins
    Package(InstallPackage),
}

/// `install package`.
#[derive(Debug, Args)]
pub(crate) struct InstallPackage {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    ignored: Ignored,
    /// A requirements file on the server: absolute, or relative to its plugin directory
    #[arg(
        short = 'r',
        long,
        value_name = "PATH",
        conflicts_with = "packages",
        required_unless_present = "packages"
    )]
    requirements: Option<String>,
    /// The packages, as pip names them
    #[arg(value_name = "PACKAGES")]
    packages: Vec<String>,
}

/// Settings of `serve` that scripts pass on. The server has its own.
#[derive(Debug, Args)]
struct Ignored {
    #[arg(long, hide = true)]
    plugin_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    virtual_env_location: Option<PathBuf>,
    #[arg(long, hide = true)]
    package_manager: Option<String>,
    #[arg(long, hide = true)]
    plugin_repo: Option<String>,
    #[arg(long, hide = true)]
    restrict_plugin_triggers_to: Option<String>,
}

impl InstallCommand {
    /// Installs it and, like 3.10, says nothing.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        const ENVIRONMENT: &str = "/api/v3/configure/plugin_environment";
        let Self::Package(package) = self;
        let client = Client::new(&package.server)?;
        let (path, body) = match package.requirements {
            Some(location) => (
                format!("{ENVIRONMENT}/install_requirements"),
                json!({ "requirements_location": location }),
            ),
            None => (
                format!("{ENVIRONMENT}/install_packages"),
                json!({ "packages": package.packages }),
            ),
        };
        client.post(&path, &body).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, tests as args};

    #[track_caller]
    fn install(arguments: &[&str]) -> InstallPackage {
        let arguments = [&["install", "package"], arguments].concat();
        match args::parse(&arguments) {
            Ok(Command::Install(InstallCommand::Package(package))) => package,
            other => panic!("not an installation: {other:?}"),
        }
    }

    #[test]
    fn packages_or_a_file_of_them_are_needed() {
        assert_eq!(install(&["six", "numpy==2"]).packages, ["six", "numpy==2"]);
        for flag in ["-r", "--requirements"] {
            let location = install(&[flag, "r.txt"]).requirements;
            assert_eq!(location.as_deref(), Some("r.txt"));
        }
        args::refusal(&["install", "package"]);
        args::refusal(&["install", "package", "-r", "r.txt", "six"]);
    }

    #[test]
    fn settings_of_the_server_are_accepted() {
        let package = install(&[
            "--plugin-dir",
            "/plugins",
            "--virtual-env-location",
            "/venv",
            "--package-manager",
            "pip",
            "--plugin-repo",
            "https://example.org/",
            "--restrict-plugin-triggers-to",
            "wal",
            "six",
        ]);
        assert_eq!(package.packages, ["six"]);
        assert!(package.ignored.plugin_dir.is_some());
    }
}
