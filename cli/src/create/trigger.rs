//! `create trigger`: ties a plugin to what makes it run.

use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use outrigger_sandbox::{Network, NetworkError};
use outrigger_triggers::spec::{SpecError, TriggerSpec};
use serde::Serialize;

use crate::{
    arguments::{self, Arguments},
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
    plugin::LocalPlugin,
    report,
};

/// `create trigger`.
#[derive(Debug, Args)]
pub(crate) struct CreateTrigger {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The plugin's file or directory in the server's plugin directory, or `gh:…`; with
    /// --upload, on this machine
    #[arg(short, long, value_name = "PATH")]
    path: Option<String>,
    /// Deprecated: use --path
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    plugin_filename: Option<String>,
    /// When to run: `all_tables`, `table:NAME`, `parquet:all_tables`, `parquet:NAME`,
    /// `every:DURATION`, `cron:EXPRESSION` or `request:PATH`
    #[arg(long, value_name = "SPEC", value_parser = parse_spec)]
    trigger_spec: String,
    /// What the plugin gets as its arguments: key=value,key2=value2, or a JSON object, whose
    /// values may hold commas
    #[arg(long, value_name = "KEY=VALUE", value_parser = arguments::parse)]
    trigger_arguments: Vec<Arguments>,
    /// Create the trigger without letting it run
    #[arg(long)]
    disabled: bool,
    /// Put the plugin into the server's plugin directory first
    #[arg(long)]
    upload: bool,
    /// Let several runs overlap
    #[arg(long)]
    run_asynchronous: bool,
    /// What happens when a run fails
    #[arg(long, value_enum, ignore_case = true, default_value = "log")]
    error_behavior: ErrorBehavior,
    /// How long one run may take, for example 30s; the server's own limit otherwise
    #[arg(long, value_name = "DURATION", value_parser = arguments::parse_duration)]
    timeout: Option<String>,
    /// Where a trigger on writes starts: with what comes, or with the oldest that is kept
    #[arg(long, value_enum, ignore_case = true)]
    start: Option<Start>,
    #[command(flatten)]
    grants: GrantArgs,
    /// The name of the new trigger
    #[arg(value_name = "TRIGGER_NAME")]
    name: String,
}

/// What the plugin may do beyond what every plugin may.
#[derive(Debug, Args)]
struct GrantArgs {
    /// What the plugin may connect to: `none`, `outbound` (any TCP address but those of the
    /// link), or `HOST:PORT,…`; what the server says otherwise
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    network: Option<String>,
    /// Let the plugin start processes
    #[arg(long)]
    allow_subprocess: bool,
}

/// Where a trigger on writes starts.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// With what is written from now on
    Now,
    /// With the oldest entry of the log
    Earliest,
}

/// What happens when a run of the plugin fails.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum ErrorBehavior {
    /// Log it and go on
    Log,
    /// Try again
    Retry,
    /// Disable the trigger
    Disable,
}

#[derive(Debug, Serialize)]
struct TriggerRequest {
    db: String,
    plugin_filename: String,
    trigger_name: String,
    trigger_specification: String,
    trigger_settings: TriggerSettings,
    trigger_arguments: Option<Arguments>,
    disabled: bool,
}

#[derive(Debug, Serialize)]
struct TriggerSettings {
    run_async: bool,
    error_behavior: ErrorBehavior,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_subprocess: bool,
}

impl CreateTrigger {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = Client::new(&self.server)?;
        let upload = self.upload;
        let mut request = self.request()?;
        if upload {
            ensure!(
                !request.plugin_filename.starts_with("gh:"),
                "--upload sends files of this machine; the server fetches {} itself, without --upload",
                request.plugin_filename
            );
            let plugin = LocalPlugin::read(Path::new(&request.plugin_filename))?;
            plugin.upload(&client, &request.db).await?;
            request.plugin_filename = plugin.name;
        }
        client
            .post("/api/v3/configure/processing_engine_trigger", &request)
            .await
            .map_err(anyhow::Error::from)
            // The command's own line follows; existing scripts look for this one.
            .inspect_err(|error| {
                report::say(format_args!("Failed to create trigger: {error:#}"));
            })?;
        say(format_args!(
            "Trigger {} created successfully",
            request.trigger_name
        ))
    }

    fn request(self) -> anyhow::Result<TriggerRequest> {
        let plugin_filename = self
            .path
            .or(self.plugin_filename)
            .context("Either --path or --plugin-filename must be provided")?;
        Ok(TriggerRequest {
            db: self.database.database,
            plugin_filename,
            trigger_name: self.name,
            trigger_specification: self.trigger_spec,
            trigger_settings: TriggerSettings {
                run_async: self.run_asynchronous,
                error_behavior: self.error_behavior,
                timeout: self.timeout,
                start: self.start,
                network: self.grants.network,
                allow_subprocess: self.grants.allow_subprocess,
            },
            trigger_arguments: arguments::join(self.trigger_arguments),
            disabled: self.disabled,
        })
    }
}

/// Checks a specification before anything is sent, and returns it in its normal form.
///
/// The grammar belongs to the server's trigger crate; this is the one place that calls it.
fn parse_spec(text: &str) -> Result<String, SpecError> {
    text.parse::<TriggerSpec>().map(|spec| spec.to_string())
}

/// Checks a network before anything is sent.
fn parse_network(text: &str) -> Result<String, NetworkError> {
    text.parse::<Network>().map(|network| network.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        args::{Command, tests as args},
        create::CreateCommand,
    };

    const START: [&str; 6] = [
        "create",
        "trigger",
        "-d",
        "db",
        "--trigger-spec",
        "all_tables",
    ];

    #[track_caller]
    fn request(arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let arguments = [&START[..], arguments, &["t"]].concat();
        let Ok(Command::Create(CreateCommand::Trigger(trigger))) = args::parse(&arguments) else {
            panic!("not a trigger: {arguments:?}");
        };
        Ok(serde_json::to_value(trigger.request()?)?)
    }

    #[track_caller]
    fn refusal(arguments: &[&str]) -> String {
        args::refusal(&[&START[..], arguments, &["t"]].concat())
    }

    #[test]
    fn the_defaults_are_all_sent() {
        let expected = json!({
            "db": "db",
            "plugin_filename": "double.py",
            "trigger_name": "t",
            "trigger_specification": "all_tables",
            "trigger_settings": { "run_async": false, "error_behavior": "log" },
            "trigger_arguments": null,
            "disabled": false,
        });
        for flag in ["--path", "-p", "--plugin-filename"] {
            let request = request(&[flag, "double.py"]).expect("complete");
            assert_eq!(request, expected, "{flag}");
        }
    }

    #[test]
    fn every_option_is_sent() {
        let request = request(&[
            "--path",
            "gh:influxdata/x/x.py",
            "--trigger-arguments",
            "a=1,b=x=y,c=",
            "--disabled",
            "--run-asynchronous",
            "--error-behavior",
            "Retry",
            "--network",
            "api.example.com:443,10.0.0.1:80",
            "--allow-subprocess",
        ])
        .expect("complete");
        assert_eq!(
            request["trigger_arguments"],
            json!({ "a": "1", "b": "x=y", "c": "" })
        );
        assert_eq!(request["disabled"], json!(true));
        assert_eq!(
            request["trigger_settings"],
            json!({
                "run_async": true, "error_behavior": "retry", "allow_subprocess": true,
                "network": "api.example.com:443,10.0.0.1:80",
            })
        );
    }

    #[test]
    fn an_upload_is_asked_for() {
        let upload = |arguments: &[&str]| {
            let arguments = [&START[..], &["-p", "a.py"], arguments, &["t"]].concat();
            let Ok(Command::Create(CreateCommand::Trigger(trigger))) = args::parse(&arguments)
            else {
                panic!("not a trigger: {arguments:?}");
            };
            trigger.upload
        };
        assert!(upload(&["--upload"]));
        assert!(!upload(&[]));
    }

    #[test]
    fn a_plugin_is_needed() {
        let error = request(&[]).expect_err("no plugin");
        assert_eq!(
            error.to_string(),
            "Either --path or --plugin-filename must be provided"
        );
    }

    #[test]
    fn one_plugin_is_enough() {
        let refusal = refusal(&["-p", "a.py", "--plugin-filename", "a.py"]);
        assert!(refusal.contains("cannot be used with"), "{refusal}");
    }

    #[test]
    fn arguments_need_an_equals_sign() {
        let refusal = refusal(&["-p", "a.py", "--trigger-arguments", "a=1,b"]);
        assert!(
            refusal.contains("must be formatted as \"key=value\""),
            "{refusal}"
        );
    }

    #[test]
    fn a_network_is_checked() {
        let refusal = refusal(&["-p", "a.py", "--network", "internet"]);
        assert!(refusal.contains("none, outbound, or a list"), "{refusal}");
    }

    #[test]
    fn a_specification_is_needed() {
        let refusal = args::refusal(&["create", "trigger", "-d", "db", "-p", "a.py", "t"]);
        assert!(refusal.contains("--trigger-spec <SPEC>"), "{refusal}");
    }
}
