//! A server's life: configure, bind, compose, serve, wait, shut down in order.

use std::{
    fs, io,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};
use outrigger_log::LogError;
use outrigger_model::{
    error::Report,
    shutdown::{Phase, Shutdown},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{error, info, warn};

use crate::{
    Args,
    compose::{ComposeError, compose},
    config::{Config, PluginsConfig},
    sandbox, telemetry,
};

/// What is added to a signal's number for the exit code of a server that was told twice to end,
/// as shells do.
const SIGNALLED: u8 = 128;

/// How long threads may go on that block when everything else has ended.
const BLOCKING_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("listen on {address}")]
    Bind {
        address: std::net::SocketAddr,
        source: io::Error,
    },
    #[error("write the address into {path}")]
    ListenerFile { path: PathBuf, source: io::Error },
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error("the log failed")]
    Log(#[source] LogError),
}

/// Runs the server until it is told to end. Blocks.
pub fn serve(args: Args) -> ExitCode {
    // What the server has in its memory and its environment is nobody's who runs as its user: not
    // by /proc, not by ptrace, not by a core file. Should it fail, other layers are there.
    let _refused: nix::Result<()> = prctl::set_dumpable(false);
    // Many clients and workers need more than the 1024 that are usual; the higher limit is what the
    // operator lets it have. Where it cannot be had, the lower one holds.
    let _refused: nix::Result<()> = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    let config = match configure(&args) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                say(&format!("Serve command failed: {problem}"));
            }
            return ExitCode::FAILURE;
        }
    };
    // Before there are threads, and before anything is opened.
    if !matches!(config.plugins, PluginsConfig::Disabled)
        && let Err(error) = sandbox::check(config.sandbox, &config.machine)
    {
        say(&format!("Serve command failed: {}", Report(&error)));
        return ExitCode::FAILURE;
    }
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("Serve command failed: start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(Box::pin(run(&config)));
    if let Ok(Ended::AtOnce(signal)) = result {
        // Ending the runtime would take time, and what it drops would complain.
        Box::leak(Box::new(runtime));
        return ExitCode::from(SIGNALLED + signal.number());
    }
    runtime.shutdown_timeout(BLOCKING_MAX);
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %Report(&error), "server ends");
            say(&format!("Serve command failed: {}", Report(&error)));
            ExitCode::FAILURE
        }
    }
}

fn configure(args: &Args) -> Result<Config, Vec<String>> {
    telemetry::start(args).map_err(|error| vec![format!("--log-filter: {error}")])?;
    args.resolve()
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Tells whoever started the server why it does not run.
#[expect(
    clippy::print_stderr,
    reason = "this is for the terminal, beside the log"
)]
fn say(text: &str) {
    eprintln!("{text}");
}

/// How a server has ended that did not fail.
#[derive(Clone, Copy, Debug)]
enum Ended {
    InOrder,
    /// A second signal came before it had.
    AtOnce(Told),
}

/// A signal that ends the server.
#[derive(Clone, Copy, Debug)]
enum Told {
    Interrupt,
    Terminate,
}

impl Told {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The same on every Linux.
    fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

async fn run(config: &Config) -> Result<Ended, ServeError> {
    let started = Instant::now();
    info!(
        node_id = config.node_id,
        version = env!("CARGO_PKG_VERSION"),
        "server starts"
    );
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    // Before the replay, so that a taken port is known at once.
    let bound = TcpListener::bind(config.http_bind).await;
    let failed = |source| ServeError::Bind {
        address: config.http_bind,
        source,
    };
    let listener = bound.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;

    let shutdown = Shutdown::default();
    let composed = tokio::select! {
        composed = compose(config, shutdown.clone()) => composed.map_err(ServeError::from),
        told = signals.next() => {
            info!(signal = told.name(), "told to end before the start was over");
            shutdown.run(config.shutdown_phase_max).await;
            return Ok(Ended::InOrder);
        }
    };
    let server = match composed {
        Ok(server) => server,
        Err(error) => {
            // What has started by now ends in order too.
            shutdown.run(config.shutdown_phase_max).await;
            return Err(error);
        }
    };
    let intake = server.shutdown.gate(Phase::Intake);
    intake
        .tasks()
        .spawn(server.api.serve(listener, intake.clone()));
    if let Some(path) = &config.listener_file {
        fs::write(path, format!("{address}\n")).map_err(|source| ServeError::ListenerFile {
            path: path.clone(),
            source,
        })?;
    }
    info!(%address, "server is ready, startup time: {}ms", started.elapsed().as_millis());

    let result = tokio::select! {
        told = signals.next() => {
            info!(signal = told.name(), "told to end, shutting down");
            Ok(Ended::InOrder)
        }
        failure = server.storage.failed() => Err(ServeError::Log(failure)),
    };
    tokio::select! {
        () = server.shutdown.run(config.shutdown_phase_max) => {}
        told = signals.next() => {
            let names = server.shutdown.under_way().join(", ");
            warn!(signal = told.name(), names, "told to end again, ending at once");
            return result.map(|_| Ended::AtOnce(told));
        }
    }
    server.traces.finish().await;
    info!("server has ended");
    result
}

/// A write went beyond the limit of a file's size; the same on every Linux but MIPS.
const FILE_TOO_LARGE: i32 = 25;

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Would end it too, were it not received: the write fails as it does on a full disk, and that
    /// is dealt with.
    _too_large: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _too_large: signal(SignalKind::from_raw(FILE_TOO_LARGE))?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Terminate,
            _ = self.interrupt.recv() => Told::Interrupt,
        }
    }
}
