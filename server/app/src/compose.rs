//! Which part is given which: puts the server together.

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use outrigger_api::{Api, Deps, Instance, Metrics};
use outrigger_model::{
    clock::SystemClock,
    shutdown::{Phase, Shutdown},
    trace::Tracer,
};
use outrigger_query::QueryEngine;
use outrigger_sandbox::{Groups, Launcher, Mode};
use outrigger_storage::{OpenError, Storage};
use outrigger_supervisor::{
    Confinement, Supervisor, SupervisorError,
    environment::{self, EnvironmentError, Management, Packages, VirtualEnvironment},
};
use outrigger_triggers::{
    Board, Captures, DryRunConfig, DryRuns, Gauges, ManagerTask, PluginBackend, PluginLogger,
    Plugins, TriggerService, live_tables, source::PluginDirectory,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    args::PackageManager,
    args::Reach,
    config::{Config, PluginsConfig, StoreConfig},
    grants::{self, GrantError, Owner, Place},
    node::{Node, NodeError, NodeLock},
    run_directory::RunDirectory,
    traces::Traces,
};

/// How long making a virtual environment may take.
const CREATE_ENVIRONMENT_MAX: Duration = Duration::from_mins(3);
/// How long installing something into it may take.
const INSTALL_MAX: Duration = Duration::from_mins(15);
/// How long a host may take to load its modules on a slow machine.
const HOST_START_MAX: Duration = Duration::from_mins(1);
/// How long a forked worker may take to connect.
const WORKER_START_MAX: Duration = Duration::from_secs(30);
/// How long compiling a plugin may take, or importing a package with all it needs.
const LOAD_MAX: Duration = Duration::from_mins(5);
/// How long a worker that should end may take.
const GRACE: Duration = Duration::from_secs(3);
/// How long runs may take to be accounted for after their workers were ended.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Why the server could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ComposeError {
    #[error("open the stored data")]
    Node(#[from] NodeError),
    #[error(transparent)]
    Storage(#[from] OpenError),
    #[error(transparent)]
    Grants(#[from] GrantError),
    #[error("start the launching thread")]
    Launcher(#[source] io::Error),
    #[error("make a directory for the workers' socket")]
    RunDirectory(#[source] io::Error),
    #[error("the plugin directory {path} cannot be used")]
    PluginDirectory { path: PathBuf, source: io::Error },
    #[error("prepare the plugins' virtual environment")]
    Environment(#[from] EnvironmentError),
    #[error("start the supervisor")]
    Supervisor(#[from] SupervisorError),
}

/// A server whose parts run, all but its front door.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) api: Api,
    pub(crate) storage: Storage,
    pub(crate) shutdown: Shutdown,
    /// Nobody else uses the stored data while this is held.
    pub(crate) _lock: Option<NodeLock>,
    /// To be finished when everything else has ended.
    pub(crate) traces: Traces,
    // The workers' socket is in it; removed when dropped.
    _run_directory: Option<RunDirectory>,
}

/// Puts the server together and starts its tasks, which end with `shutdown`; also those of a
/// server that could not be put together.
pub(crate) async fn compose(config: &Config, shutdown: Shutdown) -> Result<Server, ComposeError> {
    let traces = Traces::start(config.traces.as_ref(), &config.node_id);
    let mut node = Node::open(&config.store, &config.node_id)?;
    let cluster_uuid = node.cluster_uuid().await?;
    let (storage, journals) = open_storage(config, &mut node, &shutdown).await?;
    let queries = QueryEngine::new(
        storage.clone(),
        outrigger_query::Config {
            exec_mem_pool_bytes: config.exec_mem_pool,
            target_partitions: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        },
    );
    let plugins = Plugins {
        directory: PluginDirectory(config.plugins.directory().map(Path::to_owned)),
        repository: config.repository.clone(),
        pinned: node.pinned_sources(),
    };
    let board = Board::default();
    let queries = queries.with_live_tables(live_tables(&storage, &board, &plugins.directory));
    let parts = Parts {
        config,
        storage: &storage,
        queries: &queries,
        shutdown: &shutdown,
        journals: &journals,
        board: &board,
        plugins: &plugins,
        tracer: traces.tracer(),
    };
    say_package_manager(config.package_manager);
    let Started {
        packages,
        run_directory,
        workers,
    } = parts.start_plugins().await?;
    let dry_runs = DryRuns::new(
        storage.clone(),
        plugins.clone(),
        workers,
        dry_run_config(config),
        shutdown.gate(Phase::Intake).clone(),
    );
    let gauges = Gauges::new(storage.clone(), board.clone());
    let metrics = Metrics::new(&storage, &queries, gauges, traces.collectors());
    let api = Api::new(Deps {
        metrics: Arc::new(metrics),
        storage: storage.clone(),
        queries,
        tracer: traces.tracer().clone(),
        triggers: TriggerService::new(storage.clone(), plugins, board)
            .restricted_to(config.allowed_triggers.clone()),
        dry_runs,
        packages,
        config: outrigger_api::Config {
            max_request_bytes: config.max_request_bytes,
        },
        instance: instance(cluster_uuid),
    });
    Ok(Server {
        api,
        storage,
        shutdown,
        _lock: node.lock(),
        traces,
        _run_directory: run_directory,
    })
}

fn dry_run_config(config: &Config) -> DryRunConfig {
    DryRunConfig {
        invocation_timeout: config.triggers.invocation_timeout,
        lines_bytes_max: config.lines_bytes_max,
    }
}

fn instance(cluster_uuid: Uuid) -> Instance {
    Instance {
        cluster_uuid,
        process_id: Uuid::new_v4(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("OUTRIGGER_REVISION")
            .unwrap_or("unknown")
            .to_owned(),
    }
}

/// What starting the plugins needs.
struct Parts<'a> {
    config: &'a Config,
    storage: &'a Storage,
    queries: &'a QueryEngine,
    shutdown: &'a Shutdown,
    /// What stores log lines and accounts of runs.
    journals: &'a TaskTracker,
    board: &'a Board,
    plugins: &'a Plugins,
    tracer: &'a Tracer,
}

/// What the rest of the server uses of the plugins' side.
struct Started {
    packages: Packages,
    run_directory: Option<RunDirectory>,
    workers: Option<(Supervisor, Captures)>,
}

/// Where a server has what plugins must not change.
#[derive(Clone, Debug)]
struct Places {
    data: Option<PathBuf>,
    /// The private directories that outlive workers.
    kept: PathBuf,
    run: PathBuf,
    plugins: PathBuf,
}

impl Parts<'_> {
    /// Starts everything that plugins need; without a plugin directory, nothing.
    async fn start_plugins(&self) -> Result<Started, ComposeError> {
        let PluginsConfig::Enabled {
            directory,
            virtual_environment,
            environment,
            installers_environment,
            state,
        } = &self.config.plugins
        else {
            let triggers = self.storage.catalog().triggers().count();
            if triggers > 0 {
                warn!(
                    triggers,
                    "triggers don't run: the server has no --plugin-dir"
                );
            }
            return Ok(Started {
                packages: self.packages(None),
                run_directory: None,
                workers: None,
            });
        };
        let unusable = |source| ComposeError::PluginDirectory {
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        // Before anything else runs in the server's group.
        let groups = Arc::new(self.groups());
        let launcher = Launcher::new().map_err(ComposeError::Launcher)?;
        let run_directory =
            RunDirectory::make(&std::env::temp_dir()).map_err(ComposeError::RunDirectory)?;
        let places = self.places(state.as_deref(), directory, run_directory.path());
        let reach = self.reach(&places, virtual_environment)?;
        let confinement = self.confinement(&places, reach, groups);
        let settings = environment::Config {
            location: virtual_environment.clone(),
            management: self.config.packages,
            base_python: "python3".into(),
            environment: installers_environment.clone(),
            plugins: directory.clone(),
            run_directory: run_directory.path().to_owned(),
            install_command: "influxdb3 install package",
            create_max: CREATE_ENVIRONMENT_MAX,
            install_max: INSTALL_MAX,
            confinement: confinement.clone(),
        };
        let virtual_environment = self.prepare(settings, &launcher).await?;
        let packages = self.packages(Some(&virtual_environment));
        let mut environment = environment.clone();
        environment.insert("TMPDIR".into(), run_directory.temporary().into());
        let config = outrigger_supervisor::Config {
            virtual_environment,
            environment,
            directory: directory.clone(),
            run_directory: run_directory.path().to_owned(),
            host_start_max: HOST_START_MAX,
            worker_start_max: WORKER_START_MAX,
            load_max: LOAD_MAX,
            grace: GRACE,
            lines_bytes_max: self.config.lines_bytes_max,
            pool: self.config.pool.clone(),
            confinement,
        };
        let workers = self.start_triggers(config, launcher)?;
        Ok(Started {
            packages,
            run_directory: Some(run_directory),
            workers: Some(workers),
        })
    }

    fn groups(&self) -> Groups {
        match self.config.sandbox {
            Mode::Off => Groups::none("the sandbox is off"),
            Mode::Auto | Mode::Strict => Groups::make(&self.config.machine),
        }
    }

    /// Where the server has what.
    fn places(&self, state: Option<&Path>, plugins: &Path, run: &Path) -> Places {
        let data = match &self.config.store {
            StoreConfig::File(directory) => Some(directory.join(&self.config.node_id)),
            StoreConfig::Memory | StoreConfig::MemoryThrottled | StoreConfig::Remote(_) => None,
        };
        // Without a store, nothing outlives the server.
        let default = data.as_deref().unwrap_or(run).join("plugin-state");
        Places {
            kept: state.map_or(default, Path::to_owned),
            data,
            run: run.to_owned(),
            plugins: plugins.to_owned(),
        }
    }

    /// What all plugins may reach beside what they need.
    fn reach(&self, places: &Places, packages: &Path) -> Result<Reach, GrantError> {
        let reach = self.config.reach.clone();
        if self.config.sandbox == Mode::Off {
            return Ok(reach);
        }
        let place = |what, path: &Path, owner| Place {
            what,
            path: path.to_owned(),
            owner,
        };
        let data = places.data.as_deref();
        let mut own: Vec<_> = data
            .map(|data| place("the server's data", data, Owner::Secret))
            .into_iter()
            .collect();
        own.extend([
            place(
                "the triggers' private directories",
                &places.kept,
                Owner::Secret,
            ),
            place(
                "what the server needs while it runs",
                &places.run,
                Owner::Secret,
            ),
            place("the virtual environment", packages, Owner::Shared),
            place("the plugin directory", &places.plugins, Owner::Operator),
        ]);
        grants::settle(reach, &own)
    }

    fn confinement(&self, places: &Places, reach: Reach, groups: Arc<Groups>) -> Confinement {
        let Places {
            data,
            kept,
            run,
            plugins,
        } = places.clone();
        Confinement {
            mode: self.config.sandbox,
            machine: self.config.machine.clone(),
            limits: self.config.limits.clone(),
            groups,
            group_limits: self.config.group_limits,
            read: [vec![plugins], reach.read].concat(),
            write: reach.write,
            network: reach.network,
            secret: data.into_iter().chain([kept.clone(), run]).collect(),
            kept,
            private_max: self.config.private_max,
            kept_names: &["PLUGIN_DIR", "INFLUXDB3_PLUGIN_DIR"],
        }
    }

    fn packages(&self, environment: Option<&VirtualEnvironment>) -> Packages {
        match (self.config.packages, environment) {
            (Management::Operator, _) => Packages::Disabled,
            (Management::Server, Some(environment)) => Packages::Managed(environment.clone()),
            (Management::Server, None) => Packages::NoPlugins,
        }
    }

    async fn prepare(
        &self,
        settings: environment::Config,
        launcher: &Launcher,
    ) -> Result<VirtualEnvironment, EnvironmentError> {
        // Installations are finished like invocations when the server ends.
        let tasks = self.shutdown.gate(Phase::Invocations).tasks().clone();
        VirtualEnvironment::prepare(settings, launcher.clone(), tasks).await
    }

    fn start_triggers(
        &self,
        config: outrigger_supervisor::Config,
        launcher: Launcher,
    ) -> Result<(Supervisor, Captures), ComposeError> {
        let workers = self.shutdown.gate(Phase::Workers);
        let (logger, task) = PluginLogger::new(self.storage.clone());
        let log = self.shutdown.gate(Phase::Log);
        self.journals.spawn(task.run(log.token().clone()));
        let captures = Captures::default();
        let backend = PluginBackend::new(
            self.storage.clone(),
            self.queries.clone(),
            logger.clone(),
            captures.clone(),
        );
        let supervisor = Supervisor::start(config, Arc::new(backend), launcher, workers.clone())?;
        let manager = ManagerTask::new(
            self.storage.clone(),
            supervisor.clone(),
            self.plugins.clone(),
            logger,
            self.board.clone(),
            (self.config.triggers.clone(), self.tracer.clone()),
        );
        let invocations = self.shutdown.gate(Phase::Invocations);
        invocations.tasks().spawn(manager.run(invocations.clone()));
        Ok((supervisor, captures))
    }
}

/// Opens the storage, which ends last; and where what stores something in it until then is spawned.
async fn open_storage(
    config: &Config,
    node: &mut Node,
    shutdown: &Shutdown,
) -> Result<(Storage, TaskTracker), OpenError> {
    let clock = Arc::new(SystemClock::default());
    let (storage, task) = Storage::open(node.stores(), clock, config.storage.clone()).await?;
    let (journals, stored) = (TaskTracker::new(), CancellationToken::new());
    let log = shutdown.gate(Phase::Log).tasks();
    log.spawn(task.run(stored.clone()));
    log.spawn(end_log(shutdown.clone(), journals.clone(), stored));
    Ok((storage, journals))
}

/// Once the log is to end, first has stored what is still to be said of how the workers ended.
async fn end_log(shutdown: Shutdown, journals: TaskTracker, stored: CancellationToken) {
    shutdown.gate(Phase::Log).token().cancelled().await;
    // Whoever was left behind because a plugin did not end knows by now how it has.
    let late = async {
        shutdown.gate(Phase::Intake).tasks().wait().await;
        shutdown.gate(Phase::Invocations).tasks().wait().await;
    };
    if timeout(LAST_WORDS_MAX, late).await.is_err() {
        debug!("some runs have not ended yet");
    }
    journals.close();
    journals.wait().await;
    stored.cancel();
}

/// An operator who has asked for something else than what happens is told so.
fn say_package_manager(asked: Option<PackageManager>) {
    match asked {
        None => {}
        Some(PackageManager::Uv) => {
            warn!("--package-manager uv means pip: this server installs packages with pip");
        }
        Some(PackageManager::Discover | PackageManager::Pip | PackageManager::Disabled) => info!(
            "--package-manager is deprecated: leave it out, or use --disable-package-management"
        ),
    }
}
