//! What only a real process shows: exit codes, stderr, and the completed environment.
//!
//! Whatever needs a server is in `integration-tests`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Nobody listens there: the port is that of a service from before the web.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Runs the program in a directory, with nothing but these variables in its environment.
fn influxdb3(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "the CLI is what is tested")]
    Command::new(env!("CARGO_BIN_EXE_influxdb3"))
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[track_caller]
fn check(output: &Output, code: i32, stderr: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text, stderr);
    assert!(output.stdout.is_empty());
}

fn unreachable(verb: &str, host: &str) -> String {
    format!(
        "{verb} command failed: could not connect to {host}: Connection refused (os error 111)\n\
         hint: start a server with `influxdb3 serve`, or name another one with --host \
         or in INFLUXDB3_HOST_URL\n"
    )
}

#[test]
fn a_failed_command_exits_with_1_and_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = influxdb3(
        directory.path(),
        &[],
        &["show", "databases", "--host", NOWHERE],
    );
    check(&output, 1, &unreachable("Show", "http://127.0.0.1:1/"));
}

#[test]
fn bad_arguments_exit_with_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = influxdb3(directory.path(), &[], &["frobnicate"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Usage: influxdb3"), "{stderr}");
}

#[test]
fn help_exits_with_0_on_stdout() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = influxdb3(directory.path(), &[], &["create", "trigger", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("--trigger-arguments"), "{stdout}");
}

#[test]
fn the_dotenv_file_completes_the_environment() {
    let directory = tempfile::tempdir().expect("a directory");
    let dotenv = "INFLUXDB3_HOST_URL=http://127.0.0.2:1\nINFLUXDB3_DATABASE_NAME=db\nnonsense\n";
    fs::write(directory.path().join(".env"), dotenv).expect("written");
    let warning = "warning: ignoring line 3 of the .env file\n";

    let output = influxdb3(directory.path(), &[], &["query", "SELECT 1"]);
    let failure = unreachable("Query", "http://127.0.0.2:1/");
    check(&output, 1, &format!("{warning}{failure}"));

    let output = influxdb3(
        directory.path(),
        &[("INFLUXDB3_HOST_URL", NOWHERE)],
        &["query", "SELECT 1"],
    );
    let failure = unreachable("Query", "http://127.0.0.1:1/");
    check(&output, 1, &format!("{warning}{failure}"));
}

#[test]
fn nothing_to_read_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = influxdb3(
        directory.path(),
        &[],
        &["write", "-d", "db", "--file", "missing.lp"],
    );
    let failure = "Write command failed: read missing.lp: No such file or directory (os error 2)\n";
    check(&output, 1, failure);
}
