//! How does another server use the supervisor? This one has no database: it runs one plugin
//! file for the events that it is told, and prints what the plugin says, writes and answers.
//!
//! ```text
//! cargo run -p outrigger-supervisor --example run_plugin -- VENV PLUGIN.py schedule request rows
//! ```
//!
//! `VENV` is made, and the plugin host installed into it, if it is not there.

#![expect(clippy::print_stdout, reason = "it is a program for a terminal")]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    error::ArrowError,
};
use async_trait::async_trait;
use futures::stream;
use outrigger_model::{
    bytes::ByteSize,
    clock::{Clock, SystemClock},
    error::ErrorKind,
    shutdown::Gate,
    trace::Trace,
};
use outrigger_sandbox::{GroupLimits, Launcher, Limits, Machine, Mode, Network};
use outrigger_supervisor::{
    Backend, BackendError, BindingKey, Concluded, Config, Confinement, Event, EventFile,
    EventTable, Grants, Invocation, InvocationId, LogLine, Plugin, PoolLimits, PrivateMax,
    QueryRequest, QueryStream, Request, Scope, Source, Supervisor,
    environment::{self, Management, VirtualEnvironment},
};
use tokio_util::sync::CancellationToken;

/// What plugins see of a server that has nothing: each question is answered with its own text.
#[derive(Debug)]
struct Terminal;

#[async_trait]
impl Backend for Terminal {
    async fn query(&self, _: &Scope, asked: QueryRequest) -> Result<QueryStream, BackendError> {
        let text: ArrayRef = Arc::new(StringArray::from(vec![asked.text]));
        let batch = RecordBatch::try_from_iter([("question", text)]);
        let batch = batch.map_err(|error| BackendError {
            kind: ErrorKind::Internal,
            message: error.to_string(),
        })?;
        Ok(QueryStream {
            schema: batch.schema(),
            batches: Box::pin(stream::iter([Ok(batch)])),
        })
    }

    async fn read(
        &self,
        _: &Scope,
        file: &EventFile,
        _: Range<u64>,
    ) -> Result<QueryStream, BackendError> {
        Err(BackendError {
            kind: ErrorKind::NotFound,
            message: format!("there is no file {}", file.path),
        })
    }

    async fn write(
        &self,
        _: &Scope,
        target: Option<String>,
        lines: String,
        _no_sync: bool,
    ) -> Result<(), BackendError> {
        println!("wrote at once to {target:?}: {lines}");
        Ok(())
    }

    async fn log(&self, scope: &Scope, line: LogLine) {
        println!("{} {:?} {}", scope.invocation, line.level, line.text);
    }
}

fn main() -> ExitCode {
    // The supervisor's children begin as this program, before it has any thread.
    if let Some(code) = outrigger_sandbox::launch::program() {
        return code;
    }
    let runtime = tokio::runtime::Runtime::new();
    match runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [location, plugin, events @ ..] = arguments.as_slice() else {
        return Err("usage: run_plugin VENV PLUGIN.py (schedule|request|rows)…".into());
    };
    let run_directory = tempfile::tempdir()?;
    let gate = Gate::default();
    let launcher = Launcher::new()?;
    let config = config(location.into(), run_directory.path(), &launcher, &gate).await?;
    let supervisor = Supervisor::start(config, Arc::new(Terminal), launcher, gate.clone())?;
    let plugin = Arc::new(load(Path::new(plugin))?);
    let clock = SystemClock::default();
    for (number, event) in events.iter().enumerate() {
        let invocation = Invocation {
            id: InvocationId(format!("{event}-{number}").into()),
            attempt: 1,
            timeout: Duration::from_secs(10),
            unwanted: CancellationToken::new(),
            trace: Trace::unrecorded(),
            event: match event.as_str() {
                "schedule" => Event::Schedule {
                    call_time: clock.now(),
                },
                "request" => Event::Request(Request {
                    query: BTreeMap::from([("number".to_owned(), number.to_string())]),
                    ..Request::default()
                }),
                "rows" => Event::Writes(vec![EventTable {
                    name: "squares".to_owned(),
                    batches: vec![squares()?],
                }]),
                other => {
                    return Err(
                        format!("{other:?} is neither schedule nor request nor rows").into(),
                    );
                }
            },
        };
        say(
            event,
            number,
            supervisor.invoke(plugin.clone(), invocation).await,
        );
    }
    gate.close(Duration::from_secs(10)).await;
    Ok(())
}

/// Rows for plugins that want some.
fn squares() -> Result<RecordBatch, ArrowError> {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=3));
    let squares: ArrayRef = Arc::new(Int64Array::from(vec![1, 4, 9]));
    RecordBatch::try_from_iter([("number", numbers), ("square", squares)])
}

fn load(path: &Path) -> io::Result<Plugin> {
    Ok(Plugin {
        binding: BindingKey("example".into()),
        name: path.display().to_string(),
        revision: "1".to_owned(),
        source: Source::SingleFile(fs::read(path)?.into()),
        arguments: None,
        workers_max: 1,
        grants: Grants::default(),
        keeps_files: false,
    })
}

fn say(event: &str, number: usize, concluded: Concluded) {
    match concluded.result {
        Ok(finished) => {
            for (target, lines) in finished.lines {
                println!("{event}-{number} wrote to {target:?}: {lines}");
            }
            if let Some(response) = finished.response {
                let body = String::from_utf8_lossy(&response.body);
                println!("{event}-{number} answered {}: {body}", response.status);
            }
            println!("{event}-{number} finished");
        }
        Err(error) => println!("{event}-{number} failed: {error}"),
    }
}

async fn config(
    location: PathBuf,
    run_directory: &Path,
    launcher: &Launcher,
    gate: &Gate,
) -> Result<Config, Box<dyn Error>> {
    let environment: BTreeMap<_, _> = env::vars_os().collect();
    let directory = env::current_dir()?;
    let confinement = Confinement {
        mode: Mode::Auto,
        machine: Machine::probe(),
        limits: Limits::default(),
        groups: Arc::default(),
        group_limits: GroupLimits::default(),
        read: vec![env::current_dir()?],
        write: Vec::new(),
        network: Network::Outbound,
        secret: vec![run_directory.to_owned()],
        kept: run_directory.join("kept"),
        private_max: PrivateMax {
            bytes: 1 << 30,
            files: 10_000,
        },
        kept_names: &[],
    };
    let settings = environment::Config {
        location: std::path::absolute(location)?,
        management: Management::Server,
        base_python: "python3".into(),
        environment: environment.clone(),
        plugins: directory.clone(),
        run_directory: run_directory.to_owned(),
        install_command: "run_plugin",
        create_max: Duration::from_mins(3),
        install_max: Duration::from_mins(15),
        confinement: confinement.clone(),
    };
    let tasks = gate.tasks().clone();
    Ok(Config {
        virtual_environment: VirtualEnvironment::prepare(settings, launcher.clone(), tasks).await?,
        environment,
        directory,
        run_directory: run_directory.to_owned(),
        host_start_max: Duration::from_mins(1),
        worker_start_max: Duration::from_secs(30),
        load_max: Duration::from_mins(1),
        grace: Duration::from_secs(3),
        lines_bytes_max: ByteSize::mib(64),
        pool: PoolLimits {
            workers_max: 4,
            spares: 0,
            idle_max: Duration::from_mins(5),
            invocations_max: None,
            age_max: None,
            memory_bytes_max: None,
            fair_turn: Duration::from_secs(5),
        },
        confinement,
    })
}
