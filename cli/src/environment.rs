//! Completes the environment before the arguments are parsed: a `.env` file in the current
//! directory, and the deprecated names of some settings.
//!
//! Changing the environment of a running process is unsound in general and `unsafe` in Rust, so
//! the process replaces itself once with a completed environment instead. The second time
//! nothing is missing and start-up goes on.
//!
//! Not supported in `.env`: values over several lines, and `${…}` substitution.

mod dotenv;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
};

use anyhow::Context as _;

use crate::report;

/// Deprecated names whose present name is the same with `INFLUXDB3_` in front.
const UNPREFIXED: [&str; 20] = [
    "OBJECT_STORE_CONNECTION_LIMIT",
    "OBJECT_STORE_HTTP2_ONLY",
    "OBJECT_STORE_HTTP2_MAX_FRAME_SIZE",
    "OBJECT_STORE_REQUEST_TIMEOUT",
    "OBJECT_STORE_MAX_RETRIES",
    "OBJECT_STORE_RETRY_TIMEOUT",
    "OBJECT_STORE_CACHE_ENDPOINT",
    "OBJECT_STORE_TLS_ALLOW_INSECURE",
    "OBJECT_STORE_TLS_CA",
    "LOG_FILTER",
    "LOG_DESTINATION",
    "LOG_FORMAT",
    "TRACES_EXPORTER",
    "TRACES_EXPORTER_JAEGER_AGENT_HOST",
    "TRACES_EXPORTER_JAEGER_AGENT_PORT",
    "TRACES_EXPORTER_JAEGER_SERVICE_NAME",
    "TRACES_EXPORTER_JAEGER_TRACE_CONTEXT_HEADER_NAME",
    "TRACES_EXPORTER_JAEGER_DEBUG_NAME",
    "TRACES_EXPORTER_JAEGER_TAGS",
    "TRACES_JAEGER_MAX_MSGS_PER_SECOND",
];

/// Deprecated names that were given another one.
const RENAMED: [(&str, &str); 2] = [
    ("INFLUXDB3_NUM_THREADS", "INFLUXDB3_NUM_IO_THREADS"),
    (
        "INFLUXDB3_DATAFUSION_NUM_THREADS",
        "INFLUXDB3_NUM_DATAFUSION_THREADS",
    ),
];

type Variables = BTreeMap<OsString, OsString>;

/// What a complete environment has, and what to tell the user about it.
#[derive(Debug, Default, Eq, PartialEq)]
struct Additions {
    variables: Variables,
    /// Concern the added variables, so they come up in one run only.
    renames: Vec<String>,
    /// Come up in every run; the one that goes on tells the user.
    warnings: Vec<String>,
}

/// Returns when nothing is missing; otherwise starts the program anew in this very process.
pub(crate) fn complete() -> anyhow::Result<()> {
    let dotenv = match fs::read_to_string(".env") {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            warn(&format!("ignoring the .env file: {error}"));
            String::new()
        }
    };
    let present: Variables = env::vars_os().collect();
    let additions = additions(&present, &dotenv);
    for rename in &additions.renames {
        warn(rename);
    }
    if additions.variables.is_empty() {
        for warning in &additions.warnings {
            warn(warning);
        }
        return Ok(());
    }
    let never = replace_process(present.into_iter().chain(additions.variables))?;
    match never {}
}

fn additions(present: &Variables, dotenv: &str) -> Additions {
    let mut additions = Additions::default();
    for entry in dotenv::parse(dotenv) {
        match entry {
            Ok((name, _)) if present.contains_key(OsStr::new(&name)) => {}
            Ok((name, _)) if steers_the_loader(&name) => additions
                .warnings
                .push(format!("ignoring {name} in the .env file")),
            Ok((name, value)) => {
                additions.variables.insert(name.into(), value.into());
            }
            Err(problem) => additions.warnings.push(problem.to_string()),
        }
    }
    let unprefixed = UNPREFIXED.map(|old| (old, format!("INFLUXDB3_{old}")));
    let renamed = RENAMED.map(|(old, new)| (old, new.to_owned()));
    for (old, new) in unprefixed.into_iter().chain(renamed) {
        rename(present, &mut additions, old, &new);
    }
    additions
}

fn rename(present: &Variables, additions: &mut Additions, old: &str, new: &str) {
    let find = |name: &str| {
        let name = OsStr::new(name);
        present.get(name).or_else(|| additions.variables.get(name))
    };
    let Some(value) = find(old).cloned() else {
        return;
    };
    match find(new) {
        None => {
            additions
                .renames
                .push(format!("{old} is deprecated, use {new}"));
            additions.variables.insert(new.into(), value);
        }
        // So it is after the first run, which has said so already.
        Some(same) if *same == value => {}
        Some(_) => additions.warnings.push(format!(
            "{old} is deprecated and ignored, because {new} is set"
        )),
    }
}

/// These would take effect when the process replaces itself, which a file in whatever directory
/// the user happens to be in has no business to do.
fn steers_the_loader(name: &str) -> bool {
    name.starts_with("LD_") || name == "GLIBC_TUNABLES"
}

fn replace_process(
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> anyhow::Result<Infallible> {
    let program = env::current_exe().context("find this program's file")?;
    let program = c_string(program.as_os_str())?;
    let arguments = env::args_os()
        .map(|argument| c_string(&argument))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let environment = environment
        .map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            c_string(&entry)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    nix::unistd::execve(&program, &arguments, &environment)
        .context("start again with the variables of the .env file")
}

fn c_string(text: &OsStr) -> anyhow::Result<CString> {
    CString::new(text.as_bytes()).context("the .env file contains a zero byte")
}

fn warn(text: &str) {
    report::say(format_args!("warning: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[track_caller]
    fn check(present: &[(&str, &str)], dotenv: &str, added: &[(&str, &str)], warnings: &[&str]) {
        let present = variables(present);
        let first = additions(&present, dotenv);
        assert_eq!(first.variables, variables(added));
        let said: Vec<_> = first.renames.iter().chain(&first.warnings).collect();
        assert_eq!(said, warnings);

        let completed = present.into_iter().chain(first.variables).collect();
        let second = additions(&completed, dotenv);
        assert_eq!(second.variables, Variables::new(), "must not start forever");
        assert_eq!(second.renames, Vec::<String>::new(), "must be said once");
        assert_eq!(second.warnings, first.warnings);
    }

    #[test]
    fn a_complete_environment_needs_nothing() {
        check(&[("HOME", "/root")], "", &[], &[]);
    }

    #[test]
    fn variables_that_are_set_win_over_the_file() {
        check(
            &[("INFLUXDB3_HOST_URL", "http://a")],
            "INFLUXDB3_HOST_URL=http://b\nINFLUXDB3_AUTH_TOKEN=t",
            &[("INFLUXDB3_AUTH_TOKEN", "t")],
            &[],
        );
    }

    #[test]
    fn deprecated_names_are_copied_to_the_present_ones() {
        check(
            &[("LOG_FILTER", "debug"), ("INFLUXDB3_NUM_THREADS", "2")],
            "",
            &[
                ("INFLUXDB3_LOG_FILTER", "debug"),
                ("INFLUXDB3_NUM_IO_THREADS", "2"),
            ],
            &[
                "LOG_FILTER is deprecated, use INFLUXDB3_LOG_FILTER",
                "INFLUXDB3_NUM_THREADS is deprecated, use INFLUXDB3_NUM_IO_THREADS",
            ],
        );
    }

    #[test]
    fn the_present_name_wins_over_the_deprecated_one() {
        check(
            &[("LOG_FORMAT", "json"), ("INFLUXDB3_LOG_FORMAT", "full")],
            "",
            &[],
            &["LOG_FORMAT is deprecated and ignored, because INFLUXDB3_LOG_FORMAT is set"],
        );
    }

    #[test]
    fn the_loader_cannot_be_steered_by_the_file() {
        check(
            &[],
            "LD_PRELOAD=./evil.so",
            &[],
            &["ignoring LD_PRELOAD in the .env file"],
        );
    }
}
