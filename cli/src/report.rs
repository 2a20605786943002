//! How failures reach the user: the text on stderr and the exit code.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use crate::{client::ClientError, output::OutputError};

/// Clap's own text for bad arguments, help and version.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // There is nobody left to tell when even this cannot be printed.
    drop(error.print());
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// A failure before any command was known.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    say(format_args!("{error:#}"));
    ExitCode::FAILURE
}

/// A command that failed. A reader that went away, as in `… | head`, is not a failure.
pub(crate) fn command_failure(verb: &str, error: &anyhow::Error) -> ExitCode {
    if matches!(error.downcast_ref(), Some(OutputError::ReaderGone)) {
        return ExitCode::SUCCESS;
    }
    say(format_args!("{}", message(verb, error)));
    ExitCode::FAILURE
}

fn message(verb: &str, error: &anyhow::Error) -> String {
    let hint = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ClientError>()?.hint());
    match hint {
        Some(hint) => format!("{verb} command failed: {error:#}\nhint: {hint}"),
        None => format!("{verb} command failed: {error:#}"),
    }
}

/// Prints something on stderr that is not a result.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    // There is nobody left to tell when even this cannot be printed.
    drop(writeln!(io::stderr(), "{text}"));
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn a_failure_names_the_verb_and_every_cause_on_one_line() {
        let error = anyhow!("no such file").context("read lines.lp");
        assert_eq!(
            message("Write", &error),
            "Write command failed: read lines.lp: no such file"
        );
    }

    #[test]
    fn a_missing_token_is_hinted_at() {
        let refused: Result<(), _> = Err(ClientError::from_answer(
            StatusCode::UNAUTHORIZED,
            br#"{"error": "the request was not authenticated"}"#,
        ));
        let error = refused.context("list tables").expect_err("refused");
        assert_eq!(
            message("Show", &error),
            "Show command failed: list tables: server responded with error [401 Unauthorized]: \
             the request was not authenticated\n\
             hint: pass a valid token with --token or in INFLUXDB3_AUTH_TOKEN"
        );
    }
}
