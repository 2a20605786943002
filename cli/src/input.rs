//! Where a query or lines to write come from: the argument, a file, or stdin.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::Args;

/// The places to look in, in this order.
#[derive(Clone, Debug, Args)]
pub(crate) struct InputArgs {
    /// Read it from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The text itself, as one quoted argument. Without it and --file, stdin is read
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
}

impl InputArgs {
    /// Reads from the first place that was given; `what` names the input in messages.
    pub(crate) fn read(self, what: &str) -> anyhow::Result<Vec<u8>> {
        let mut texts = self.text.into_iter();
        match (texts.next(), texts.next(), self.file) {
            (Some(text), None, _) => Ok(text.into_bytes()),
            (Some(_), Some(_), _) => bail!(
                "ensure that a single {what} string is provided as the final argument, \
                 enclosed in quotes"
            ),
            (None, _, Some(path)) => {
                fs::read(&path).with_context(|| format!("read {}", path.display()))
            }
            (None, _, None) => read_stdin(),
        }
    }
}

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut stdin = io::stdin();
    if stdin.is_terminal() {
        // Two blanks, as scripts know it.
        bail!("No input from stdin detected, no string was passed in,  and no file path was given");
    }
    let mut input = Vec::new();
    stdin.read_to_end(&mut input).context("read stdin")?;
    Ok(input)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_argument_wins_over_the_file() {
        let input = InputArgs {
            file: Some("/nonexistent".into()),
            text: vec!["SELECT 1".to_owned()],
        };
        assert_eq!(input.read("query").expect("the argument"), b"SELECT 1");
    }

    #[test]
    fn a_file_is_read_as_it_is() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"cpu v=1\n").expect("written");
        let input = InputArgs {
            file: Some(file.path().to_owned()),
            text: Vec::new(),
        };
        assert_eq!(input.read("line").expect("the file"), b"cpu v=1\n");
    }

    #[test]
    fn missing_quotes_are_explained() {
        let input = InputArgs {
            file: None,
            text: vec!["cpu".to_owned(), "v=1".to_owned()],
        };
        let error = input.read("protocol line").expect_err("two arguments");
        assert_eq!(
            error.to_string(),
            "ensure that a single protocol line string is provided as the final argument, \
             enclosed in quotes"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let input = InputArgs {
            file: Some("/nonexistent/q.sql".into()),
            text: Vec::new(),
        };
        let error = input.read("query").expect_err("no such file");
        assert_eq!(error.to_string(), "read /nonexistent/q.sql");
    }
}
