//! How the server's own log lines are written.

use std::{
    fmt::{self as text, Debug, Write},
    io,
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt,
    filter::ParseError,
    fmt::{
        self,
        format::{Writer, debug_fn},
        writer::BoxMakeWriter,
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::args::{Args, LogDestination, LogFormat};

/// Starts logging.
///
/// # Errors
/// If the filter cannot be read.
pub(crate) fn start(args: &Args) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&args.log_filter)?;
    let (writer, colors) = match args.log_destination {
        LogDestination::Stdout => (
            BoxMakeWriter::new(io::stdout),
            io::IsTerminal::is_terminal(&io::stdout()),
        ),
        LogDestination::Stderr => (
            BoxMakeWriter::new(io::stderr),
            io::IsTerminal::is_terminal(&io::stderr()),
        ),
    };
    let lines = fmt::layer().with_ansi(colors);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match args.log_format {
        LogFormat::Full => lines
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_writer(writer)
            .boxed(),
        LogFormat::Pretty => lines.pretty().with_writer(writer).boxed(),
        // The innermost span is the last of `spans`.
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Logfmt => tracing_logfmt::builder()
            .layer()
            .with_writer(writer)
            .boxed(),
    };
    // A second start in one process keeps the first's logging.
    drop(
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init(),
    );
    Ok(())
}

/// Writes a field so that it stays on its line, whatever an error's text holds.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> text::Result {
    let mut writer = OnOneLine(writer);
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name => write!(writer, "{}={value:?}", name.trim_start_matches("r#")),
    }
}

/// Escapes what ends a line or does something to a terminal.
struct OnOneLine<'a, 'w>(&'a mut Writer<'w>);

impl Write for OnOneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> text::Result {
        for letter in text.chars() {
            if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
                write!(self.0, "{}", letter.escape_default())?;
            } else {
                self.0.write_char(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_of_several_lines_is_one_line_in_a_plain_log() {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = fmt::layer()
            .with_ansi(false)
            .without_time()
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("run", id = %"a\nb");
            let _entered = span.enter();
            let error = io::Error::other("first\r\nERROR second\x1b[31m\u{2028}");
            tracing::warn!(%error, text = "a \"b\"\n", n = 1, "it failed");
        });
        let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let expected = concat!(
            " WARN run{id=a\\nb}: outrigger_app::telemetry::tests: it failed ",
            "error=first\\r\\nERROR second\\u{1b}[31m\\u{2028} text=\"a \\\"b\\\"\\n\" n=1\n"
        );
        assert_eq!(log, expected);
    }
}
