//! How the server's own log lines are written.

use std::io;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, fmt::writer::BoxMakeWriter,
    layer::SubscriberExt, util::SubscriberInitExt,
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
        LogFormat::Full => lines.with_writer(writer).boxed(),
        LogFormat::Pretty => lines.pretty().with_writer(writer).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_writer(writer).boxed(),
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
