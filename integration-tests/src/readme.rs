//! The commands that a README shows, run as they stand there: what it promises is what is tested.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{command_line::Output, process::command, server::Server};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// The README of an example, for a reader with a server.
#[derive(Clone, Debug)]
pub struct Readme {
    commands: Vec<String>,
    /// Where `influxdb3` is found.
    programs: PathBuf,
    variables: Vec<(String, String)>,
}

impl Readme {
    /// Reads the README of `examples/NAME`.
    pub fn new(server: &Server, name: &str) -> Self {
        let path = Path::new(EXAMPLES).join(name).join("README.md");
        let text = fs::read_to_string(path).expect("each example has a README");
        let programs = server.directory().join("bin");
        fs::create_dir_all(&programs).expect("a directory of the story's own");
        // It may be there already, for another README.
        let _exists = symlink(server.binary(), programs.join("influxdb3"));
        Self {
            commands: commands(&text),
            programs,
            variables: vec![("INFLUXDB3_HOST_URL".to_owned(), server.client().url())],
        }
    }

    /// Sets a variable of the reader's shell.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs, in one shell, the commands that contain these; each names one. Returns their output.
    #[track_caller]
    pub fn run(&self, parts: &[&str]) -> String {
        let script: Vec<_> = parts.iter().map(|part| self.command(part)).collect();
        let script = format!("PATH=\"$1:$PATH\"\n{}", script.join("\n"));
        let mut bash = command("bash");
        bash.args(["-euo", "pipefail", "-c", &script, "bash"])
            .arg(&self.programs)
            .current_dir(Path::new(EXAMPLES).join(".."))
            .envs(self.variables.iter().cloned());
        let output = Output::from(bash.output().expect("bash can be started"));
        assert_eq!(output.code, 0, "{script}\n{output:#?}");
        output.stdout
    }

    #[track_caller]
    fn command(&self, part: &str) -> &str {
        let found: Vec<_> = self
            .commands
            .iter()
            .filter(|command| command.contains(part))
            .collect();
        assert_eq!(found.len(), 1, "{part:?} names one command: {found:#?}");
        found[0]
    }
}

/// The commands behind `$ ` in the console blocks. Their output begins where a line neither ends
/// with a backslash or bar nor leaves a quote open.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(first) = line.strip_prefix("$ ") else {
            continue;
        };
        let mut found = first.to_owned();
        while goes_on(&found) {
            found.push('\n');
            found.push_str(lines.next().expect("the command ends"));
        }
        commands.push(found);
    }
    commands
}

fn goes_on(command: &str) -> bool {
    let mut open = None;
    for character in command.chars() {
        match open {
            Some(quote) if quote == character => open = None,
            None if matches!(character, '\'' | '"') => open = Some(character),
            _ => {}
        }
    }
    open.is_some() || command.ends_with(['\\', '|'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_without_their_output() {
        let text = "```console\n$ a 'x\ny' \\\n  b |\n  c\nout 'put\n$ d\n```\n";
        assert_eq!(commands(text), ["a 'x\ny' \\\n  b |\n  c", "d"]);
    }
}
