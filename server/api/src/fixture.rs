//! An API over an empty storage in memory, for tests.

use std::{fs, num::NonZeroUsize, sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};
use outrigger_log::{commit, replay::TornTail, store::Durability};
use outrigger_model::{bytes::ByteSize, clock::SystemClock, shutdown::Gate, trace::Tracer};
use outrigger_query::QueryEngine;
use outrigger_storage::{Settings, Storage, Stores, keeping, snapshot};
use outrigger_supervisor::environment::Packages;
use outrigger_triggers::{
    Board, DryRunConfig, DryRuns, Gauges, PinnedSources, Plugins, Repository, TriggerService,
    source::PluginDirectory,
};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{Config, Deps, Instance, Metrics};

/// The storage's task and the plugin directory, which end when this is dropped.
pub(crate) struct Running {
    shutdown: CancellationToken,
    _tasks: TaskTracker,
    _plugins: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Everything an API needs; requests may have 1000 bytes, and there is the plugin `p.py`.
pub(crate) async fn deps() -> (Deps, Running) {
    let store = Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
    let stores = Stores::new(store.clone(), "n", Durability::Store);
    let log = commit::Config {
        flush_interval: Duration::from_millis(1),
        buffer_bytes_max: 1 << 20,
        buffer_submissions_max: 1000,
        buffer_wait_max: Duration::from_secs(5),
        durable_wait_max: Duration::from_secs(5),
    };
    let settings = Settings {
        log,
        snapshots: snapshot::Config::default(),
        keeping: keeping::Config::default(),
        torn_tail: TornTail::SetAside,
    };
    let clock = Arc::new(SystemClock::default());
    let (storage, task) = Storage::open(stores, clock, settings).await.unwrap();
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(task.run(shutdown.clone()));
    let limits = outrigger_query::Config {
        exec_mem_pool_bytes: ByteSize::mib(16),
        target_partitions: NonZeroUsize::MIN,
    };
    let plugins = tempfile::tempdir().unwrap();
    fs::write(plugins.path().join("p.py"), "").unwrap();
    let repository = "http://127.0.0.1:1/".parse().unwrap();
    let sources = Plugins {
        directory: PluginDirectory(Some(plugins.path().to_owned())),
        repository: Repository::new(repository, Duration::from_secs(5)),
        pinned: PinnedSources::new(store, "n", Durability::Store),
    };
    let queries = QueryEngine::new(storage.clone(), limits);
    let gauges = Gauges::new(storage.clone(), Board::default());
    let deps = Deps {
        metrics: Arc::new(Metrics::new(&storage, &queries, gauges, Vec::new())),
        queries,
        dry_runs: DryRuns::new(
            storage.clone(),
            sources.clone(),
            None,
            DryRunConfig {
                invocation_timeout: Duration::from_secs(1),
                lines_bytes_max: ByteSize(1000),
            },
            Gate::default(),
        ),
        triggers: TriggerService::new(storage.clone(), sources, Board::default()),
        storage,
        tracer: Tracer::default(),
        packages: Packages::NoPlugins,
        config: Config {
            max_request_bytes: ByteSize(1000),
        },
        instance: Instance {
            cluster_uuid: Uuid::nil(),
            process_id: Uuid::nil(),
            version: "1.2.3".to_owned(),
            revision: "abc".to_owned(),
        },
    };
    let running = Running {
        shutdown,
        _tasks: tasks,
        _plugins: plugins,
    };
    (deps, running)
}
