//! The binary as a client program: a command line in, texts and an exit code out.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output as RawOutput, Stdio},
};

use crate::process::command;

/// Runs client commands against one server.
#[derive(Clone, Debug)]
pub struct CommandLine {
    binary: PathBuf,
    directory: PathBuf,
    variables: Vec<(String, String)>,
}

/// What a command left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl CommandLine {
    /// Commands that run in `directory` and find the server at `url`.
    pub(crate) fn new(binary: &Path, directory: &Path, url: &str) -> Self {
        Self {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            variables: vec![("INFLUXDB3_HOST_URL".to_owned(), url.to_owned())],
        }
    }

    /// Commands of a binary without any server.
    pub fn without_server(binary: impl Into<PathBuf>, directory: &Path) -> Self {
        Self {
            binary: binary.into(),
            directory: directory.to_owned(),
            variables: Vec::new(),
        }
    }

    /// Runs a command.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, None)
    }

    /// Runs a command that reads `input`.
    pub fn run_with_input(&self, arguments: &[&str], input: Option<&str>) -> Output {
        let mut command = command(&self.binary);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .envs(self.variables.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().expect("the binary can be started");
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin
                .write_all(input.as_bytes())
                .expect("the command reads its input");
        }
        let output = child.wait_with_output();
        Output::from(output.expect("the command's output can be read"))
    }

    /// Runs a command that must succeed and print exactly this on stdout.
    #[track_caller]
    pub fn check(&self, arguments: &[&str], stdout: &str) {
        let output = self.run(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, stdout, "{arguments:?}");
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn success(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        output.stdout
    }

    /// Runs a command that must fail with this exit code and a complaint that contains `part`.
    #[track_caller]
    pub fn check_refused(&self, arguments: &[&str], code: i32, part: &str) {
        let output = self.run(arguments);
        assert_eq!(output.code, code, "{arguments:?}: {output:?}");
        assert!(
            output.stderr.contains(part),
            "{arguments:?}: expected {part:?} in {output:?}"
        );
    }
}

impl From<RawOutput> for Output {
    fn from(output: RawOutput) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
