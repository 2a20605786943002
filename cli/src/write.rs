//! `write`: sends line protocol to a database.

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use flate2::{Compression, write::GzEncoder};
use reqwest::Url;

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs, parse_url},
    input::InputArgs,
    output::say,
};

/// `write`.
#[derive(Debug, Args)]
pub(crate) struct WriteCommand {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The server to write to, if it is not --host
    #[arg(
        long,
        env = "INFLUXDB3_WRITE_HOST_URL",
        value_name = "URL",
        value_parser = parse_url
    )]
    write_host: Option<Url>,
    #[command(flatten)]
    delivery: DeliveryArgs,
    /// The unit of the timestamps; `auto` guesses it from their size
    #[arg(short, long, value_enum, ignore_case = true)]
    precision: Option<Precision>,
    /// Print nothing on success
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    lines: InputArgs,
}

/// How the lines are sent and stored.
#[derive(Debug, Args)]
struct DeliveryArgs {
    /// Store the good lines even if others are bad; this is the default
    #[arg(long)]
    accept_partial: bool,
    /// Do not wait until the lines are on disk
    #[arg(long)]
    no_sync: bool,
    /// Compress the lines on their way to the server
    #[arg(long)]
    gzip: bool,
}

/// The units that timestamps can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Precision {
    /// Guess
    Auto,
    /// Nanoseconds
    Ns,
    /// Microseconds
    Us,
    /// Milliseconds
    Ms,
    /// Seconds
    S,
}

impl Precision {
    /// The API's word for it.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ns => "nanosecond",
            Self::Us => "microsecond",
            Self::Ms => "millisecond",
            Self::S => "second",
        }
    }
}

impl WriteCommand {
    /// Sends everything in one request.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut lines = self.lines.clone().read("protocol line")?;
        if self.delivery.gzip {
            lines = compress(&lines).context("compress the lines")?;
        }
        if let Some(host) = self.write_host.take() {
            self.server.host = host;
        }
        Client::new(&self.server)?
            .post_lines(
                "/api/v3/write_lp",
                &self.parameters(),
                lines,
                self.delivery.gzip,
            )
            .await?;
        if self.quiet {
            return Ok(());
        }
        say(format_args!("success"))
    }

    fn parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("db", self.database.database.as_str())];
        if let Some(precision) = self.precision {
            parameters.push(("precision", precision.name()));
        }
        if self.delivery.accept_partial {
            parameters.push(("accept_partial", "true"));
        }
        if self.delivery.no_sync {
            parameters.push(("no_sync", "true"));
        }
        parameters
    }
}

fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::args::{Command, tests as args};

    #[track_caller]
    fn check(arguments: &[&str], expected: &[(&str, &str)]) {
        let arguments = [&["write", "-d", "db"], arguments, &["cpu v=1"]].concat();
        match args::parse(&arguments) {
            Ok(Command::Write(write)) => assert_eq!(write.parameters(), expected),
            other => panic!("not a write: {other:?}"),
        }
    }

    #[test]
    fn the_options_become_parameters() {
        check(&[], &[("db", "db")]);
        check(&["-p", "ms"], &[("db", "db"), ("precision", "millisecond")]);
        check(
            &["--precision", "S", "--accept-partial", "--no-sync", "-q"],
            &[
                ("db", "db"),
                ("precision", "second"),
                ("accept_partial", "true"),
                ("no_sync", "true"),
            ],
        );
    }

    #[test]
    fn an_unknown_precision_is_refused() {
        let refusal = args::refusal(&["write", "-d", "db", "-p", "minutes", "cpu v=1"]);
        assert!(
            refusal.contains("[possible values: auto, ns, us, ms, s]"),
            "{refusal}"
        );
    }

    #[test]
    fn compressed_lines_can_be_read_back() {
        let compressed = compress(b"cpu v=1").expect("compressed");
        let mut lines = String::new();
        flate2::read::GzDecoder::new(&compressed[..])
            .read_to_string(&mut lines)
            .expect("gzip");
        assert_eq!(lines, "cpu v=1");
    }
}
