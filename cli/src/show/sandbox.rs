//! `show sandbox`: what would confine plugins on this machine, and what would not? Tried out here
//! and now, by this program; no server is asked.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;
use outrigger_sandbox::{
    Allowed, Attempt, LayerReport, Machine, Policy, State, Tier, Trial, system_calls,
};

use crate::output;

/// `show sandbox`.
#[derive(Debug, Args)]
pub(crate) struct ShowSandbox {
    /// List everything that was tried
    #[arg(long)]
    attempts: bool,
    /// List the system calls that plugins can make, and why each
    #[arg(long)]
    system_calls: bool,
}

impl ShowSandbox {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let machine = Machine::probe();
        let trial = Trial::run(&machine).context("try the sandbox out")?;
        let mut text = summary(&trial);
        if self.attempts {
            text.push_str("\nTried out in processes under the layers of each:\n");
            for attempt in &trial.attempts {
                text.push_str(&tried(attempt));
            }
        }
        if self.system_calls {
            text.push_str("\nSystem calls; all others do not exist for a plugin:\n");
            for call in system_calls(&Policy::default(), &machine) {
                let allowed = match call.allowed {
                    Allowed::Always => "allowed",
                    Allowed::Partly => "in part",
                    Allowed::Pretended => "does nothing",
                    Allowed::Refused(_) => "refused",
                };
                // Writing into a string does not fail.
                let _: std::fmt::Result =
                    writeln!(text, "  {:<24} {allowed:<13} {}", call.name, call.why);
            }
        }
        output::say(format_args!("{}", text.trim_end()))
    }
}

fn summary(trial: &Trial) -> String {
    let tier = trial.tier();
    let mut text = format!("tier: {} ({})\n", tier.name(), meaning(tier));
    let strict = trial.strict();
    let said = match &strict {
        Ok(()) => "--sandbox strict: starts here\n".to_owned(),
        Err(reason) => format!("--sandbox strict: refuses to start here: {reason}\n"),
    };
    text.push_str(&said);
    text.push_str("\nLayers of a worker:\n");
    text.push_str(&layers(&trial.layers));
    for (program, reports) in &trial.programs {
        let _: std::fmt::Result = writeln!(text, "\nLayers of {program}:");
        text.push_str(&layers(reports));
    }
    let broken: Vec<_> = trial
        .attempts
        .iter()
        .filter(|tried| !tried.holds())
        .collect();
    let count = trial.attempts.len();
    if broken.is_empty() {
        let _: std::fmt::Result = writeln!(text, "\nAll {count} attempts ended as they should.");
    } else {
        let number = broken.len();
        let _: std::fmt::Result = writeln!(
            text,
            "\n{number} of {count} attempts did not end as they should:"
        );
        for attempt in broken {
            text.push_str(&tried(attempt));
        }
    }
    text
}

fn layers(reports: &[LayerReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let state = match &report.state {
            State::Enforced => "enforced".to_owned(),
            State::Degraded(why) => format!("degraded: {why}"),
            State::Off => "off".to_owned(),
        };
        // Writing into a string does not fail.
        let _: std::fmt::Result = writeln!(text, "  {:<18} {state}", report.layer.name());
    }
    text
}

fn tried(attempt: &Attempt) -> String {
    let verdict = if attempt.holds() { "ok" } else { "NOT OK" };
    let outcome = match &attempt.refusal {
        None => "possible".to_owned(),
        Some(why) => format!("refused: {why}"),
    };
    let Attempt {
        who, what, layer, ..
    } = attempt;
    format!("  {verdict:<6} {who}: {what}: {outcome} ({layer})\n")
}

const fn meaning(tier: Tier) -> &'static str {
    match tier {
        Tier::A => {
            "files, signals, system calls and connections are confined, with namespaces of their own"
        }
        Tier::B => "files, signals, system calls and connections are confined",
        Tier::C => "files, signals and system calls are confined; connections are not",
        Tier::None => "plugins can do what the server's user can",
    }
}
