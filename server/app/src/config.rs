//! What the arguments mean together. The only place that reads the environment.

use std::{
    collections::BTreeSet,
    env, fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use outrigger_model::bytes::ByteSize;
use outrigger_sandbox::{GroupLimits, Limits, Machine, Mode};
use outrigger_supervisor::{PoolLimits, PrivateMax, environment::Management};
use outrigger_triggers::{Repository, spec::TriggerKind};

use crate::{
    args::{
        Args, ObjectStoreKind, PackageManager, PluginTriggerKind, Reach, TraceArgs, TracesExporter,
    },
    plugin_environment::{self, Environment},
    remote_store::RemoteStore,
    traces,
};

/// Bytes that may wait for the log before writers do.
const WRITE_BUFFER_BYTES_MAX: ByteSize = ByteSize::mib(256);
/// How long a writer waits for room before it is told to come back.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long it waits for the store to take what it wrote, before it is told so.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How many rows are handed to a plugin at a time.
const TRIGGER_BATCH_ROWS: usize = 100_000;
/// How many bytes of them.
const TRIGGER_BATCH_BYTES: ByteSize = ByteSize::mib(64);
/// How many bytes of lines an invocation may buffer.
const INVOCATION_LINES_BYTES_MAX: ByteSize = ByteSize::mib(64);

/// Everything that is decided before the server starts.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) node_id: String,
    pub(crate) http_bind: SocketAddr,
    pub(crate) max_request_bytes: ByteSize,
    pub(crate) listener_file: Option<PathBuf>,
    pub(crate) store: StoreConfig,
    pub(crate) storage: outrigger_storage::Settings,
    pub(crate) plugins: PluginsConfig,
    pub(crate) repository: Repository,
    /// The kinds of triggers that can be created.
    pub(crate) allowed_triggers: BTreeSet<TriggerKind>,
    pub(crate) packages: Management,
    pub(crate) package_manager: Option<PackageManager>,
    pub(crate) triggers: outrigger_triggers::Config,
    pub(crate) pool: PoolLimits,
    pub(crate) sandbox: Mode,
    pub(crate) machine: Machine,
    pub(crate) limits: Limits,
    /// How much a worker may take together with what it starts.
    pub(crate) group_limits: GroupLimits,
    pub(crate) private_max: PrivateMax,
    /// What plugins may reach of which their triggers say nothing.
    pub(crate) reach: Reach,
    pub(crate) exec_mem_pool: ByteSize,
    pub(crate) lines_bytes_max: ByteSize,
    /// Where spans are sent, if they are.
    pub(crate) traces: Option<traces::Config>,
    /// How long each phase of a shutdown may take.
    pub(crate) shutdown_phase_max: Duration,
}

/// Where data lies.
#[derive(Clone, Debug)]
pub(crate) enum StoreConfig {
    Memory,
    /// In memory, but as slow as a store elsewhere.
    MemoryThrottled,
    File(PathBuf),
    Remote(Box<RemoteStore>),
}

/// Whether plugins run.
#[derive(Clone, Debug)]
pub(crate) enum PluginsConfig {
    Disabled,
    Enabled {
        directory: PathBuf,
        virtual_environment: PathBuf,
        /// Of hosts and workers.
        environment: Environment,
        /// Of what makes the virtual environment and installs into it.
        installers_environment: Environment,
        /// Where triggers keep files of their own, if the operator says so.
        state: Option<PathBuf>,
    },
}

impl PluginsConfig {
    /// Where plugins lie, if any run.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Disabled => None,
            Self::Enabled { directory, .. } => Some(directory),
        }
    }
}

/// Something that keeps the server from starting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ConfigProblem(String);

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Args {
    /// What the arguments mean, or everything that is wrong with them.
    pub(crate) fn resolve(&self) -> Result<Config, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let mut problem = |text: &str| problems.push(ConfigProblem(text.to_owned()));
        if !self.without_auth {
            problem(
                "this version has no authentication yet: to let whoever reaches the port do \
                 everything, start with --without-auth (INFLUXDB3_START_WITHOUT_AUTH=true)",
            );
        }
        let node_id = self.node_id().unwrap_or_else(|text| {
            problem(&text);
            String::new()
        });
        let store = self.store().unwrap_or_else(|text| {
            problem(&text);
            StoreConfig::Memory
        });
        if self.plugin_repo_timeout.is_zero() {
            problem("--plugin-repo-timeout must be longer than 0s");
        }
        if self.wal_flush_interval.is_zero() {
            problem("--wal-flush-interval must be longer than 0s");
        }
        if self.workers.plugin_timeout.is_zero() {
            problem("--plugin-timeout must be longer than 0s");
        }
        self.confinement.problems().for_each(&mut problem);
        let plugins = self.plugins().unwrap_or_else(|text| {
            problem(&text);
            PluginsConfig::Disabled
        });
        let traces = traces_config(&self.traces).unwrap_or_else(|text| {
            problem(&text);
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Config {
            node_id,
            http_bind: self.http_bind,
            max_request_bytes: ByteSize(self.max_http_request_size),
            listener_file: self.tcp_listener_file_path.clone(),
            store,
            storage: self.storage_settings(),
            plugins,
            repository: Repository::new(self.plugin_repo.clone(), self.plugin_repo_timeout),
            allowed_triggers: self.allowed_triggers(),
            packages: self.management(),
            package_manager: self.package_manager,
            triggers: outrigger_triggers::Config {
                batch_rows_max: TRIGGER_BATCH_ROWS,
                batch_bytes_max: TRIGGER_BATCH_BYTES,
                invocation_timeout: self.workers.plugin_timeout,
                concurrency: self.workers.concurrency(),
            },
            pool: self.workers.pool(),
            sandbox: self.confinement.mode(),
            machine: self.confinement.machine(),
            limits: self.confinement.limits(),
            group_limits: self.confinement.group_limits(),
            private_max: self.confinement.private_max(),
            reach: self.confinement.reach(),
            exec_mem_pool: self.queries.exec_mem_pool(),
            lines_bytes_max: INVOCATION_LINES_BYTES_MAX,
            traces,
            shutdown_phase_max: self.shutdown_timeout,
        })
    }

    fn storage_settings(&self) -> outrigger_storage::Settings {
        outrigger_storage::Settings {
            log: outrigger_log::commit::Config {
                flush_interval: self.wal_flush_interval,
                buffer_bytes_max: WRITE_BUFFER_BYTES_MAX.0,
                buffer_submissions_max: self.storage.buffered_writes_max(),
                buffer_wait_max: WRITE_WAIT_MAX,
                durable_wait_max: DURABLE_WAIT_MAX,
            },
            snapshots: self.storage.snapshots(),
            keeping: self.storage.keeping(),
            torn_tail: self.storage.torn_tail(),
        }
    }

    fn node_id(&self) -> Result<String, String> {
        let node_id = match (&self.node_id, &self.node_id_from_env) {
            (Some(node_id), _) => node_id.clone(),
            (None, Some(name)) => variable(name)
                .ok_or_else(|| format!("--node-id-from-env names {name}, which is not set"))?,
            (None, None) => return Err("--node-id or --node-id-from-env is required".to_owned()),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if node_id.is_empty() || node_id.starts_with('.') || !node_id.chars().all(is_plain) {
            return Err(format!(
                "node id {node_id:?} must consist of letters, digits, '-', '_' and '.', and not begin \
                 with '.'"
            ));
        }
        Ok(node_id)
    }

    fn store(&self) -> Result<StoreConfig, String> {
        let remote = |store| StoreConfig::Remote(Box::new(store));
        let directory = match self.object_store {
            ObjectStoreKind::Memory => return Ok(StoreConfig::Memory),
            ObjectStoreKind::MemoryThrottled => return Ok(StoreConfig::MemoryThrottled),
            ObjectStoreKind::File => self.data_dir.clone(),
            ObjectStoreKind::S3 => return self.remote_store.s3().map(remote),
            ObjectStoreKind::Google => return self.remote_store.google().map(remote),
            ObjectStoreKind::Azure => return self.remote_store.azure().map(remote),
        };
        let directory = match directory {
            Some(directory) => directory,
            None => PathBuf::from(
                variable("HOME").ok_or("--data-dir is required where HOME is not set")?,
            )
            .join(".influxdb"),
        };
        absolute(&directory).map(StoreConfig::File)
    }

    fn allowed_triggers(&self) -> BTreeSet<TriggerKind> {
        let Some(kinds) = &self.restrict_plugin_triggers_to else {
            return TriggerKind::ALL.into();
        };
        let kind = |kind: &PluginTriggerKind| match kind {
            PluginTriggerKind::Wal => TriggerKind::WalRows,
            PluginTriggerKind::Parquet => TriggerKind::ParquetFiles,
            PluginTriggerKind::Schedule => TriggerKind::Schedule,
            PluginTriggerKind::Request => TriggerKind::Request,
        };
        kinds.iter().map(kind).collect()
    }

    fn management(&self) -> Management {
        let disabled = self.package_manager == Some(PackageManager::Disabled);
        if disabled || self.disable_package_management {
            Management::Operator
        } else {
            Management::Server
        }
    }

    fn plugins(&self) -> Result<PluginsConfig, String> {
        let Some(directory) = &self.plugin_dir else {
            return Ok(PluginsConfig::Disabled);
        };
        let directory = absolute(directory)?;
        let virtual_environment = match &self.virtual_env_location {
            Some(location) => absolute(location)?,
            None => directory.join(".venv"),
        };
        let everything = ["*".to_owned()];
        let allowed = if self.confinement.whole_environment() {
            Some(&everything[..])
        } else {
            self.confinement.plugin_env.as_deref()
        };
        let state = self.confinement.plugin_state_dir.as_deref();
        Ok(PluginsConfig::Enabled {
            environment: plugin_environment::of_plugins(
                env::vars_os(),
                allowed,
                &directory,
                &virtual_environment,
            ),
            installers_environment: plugin_environment::of_installers(
                env::vars_os(),
                &directory,
                &virtual_environment,
            ),
            state: state.map(absolute).transpose()?,
            directory,
            virtual_environment,
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("path {}: {error}", path.display()))
}

/// Where spans are sent; the names of OpenTelemetry's own variables are understood too.
fn traces_config(args: &TraceArgs) -> Result<Option<traces::Config>, String> {
    match args.traces_exporter {
        TracesExporter::None => return Ok(None),
        TracesExporter::Jaeger => {
            return Err(
                "--traces-exporter jaeger is not supported: Jaeger has given up its agent and \
                 receives OTLP instead; use --traces-exporter otlp with --traces-otlp-endpoint, \
                 for example http://jaeger:4317"
                    .to_owned(),
            );
        }
        TracesExporter::Otlp => {}
    }
    let ratio = args.traces_sampler_ratio;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(format!(
            "--traces-sampler-ratio must be from 0 to 1, not {ratio}"
        ));
    }
    let endpoint = args
        .traces_otlp_endpoint
        .clone()
        .or_else(|| variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
        .unwrap_or_else(|| traces::DEFAULT_ENDPOINT.to_owned());
    let receiver = traces::Receiver::new(&endpoint)
        .map_err(|problem| format!("--traces-otlp-endpoint {endpoint:?}: {problem}"))?;
    let service_name = args
        .traces_service_name
        .clone()
        .or_else(|| variable("OTEL_SERVICE_NAME"))
        .unwrap_or_else(|| traces::DEFAULT_SERVICE_NAME.to_owned());
    Ok(Some(traces::Config {
        receiver,
        service_name,
        ratio,
    }))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the environment is read"
)]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn resolve(arguments: &[&str]) -> Result<Config, Vec<ConfigProblem>> {
        Command::parse_from([&["serve"], arguments].concat())
            .args
            .resolve()
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = resolve(&["--wal-flush-interval", "0s", "--node-id", "a/b"]).unwrap_err();
        let text: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 3, "{text:?}");
        assert!(text[0].contains("--without-auth"));
        assert!(text[1].contains("node id \"a/b\""));
        assert!(text[2].contains("--wal-flush-interval"));
    }

    #[test]
    fn triggers_can_be_restricted_to_some_kinds() {
        let start = ["--without-auth", "--node-id", "n"];
        let allowed = |arguments: &[&str]| -> Vec<TriggerKind> {
            let config = resolve(&[&start, arguments].concat()).unwrap();
            config.allowed_triggers.into_iter().collect()
        };
        assert_eq!(allowed(&[]), TriggerKind::ALL);
        let some = ["--restrict-plugin-triggers-to", "wal_flush,Request"];
        assert_eq!(allowed(&some), [TriggerKind::WalRows, TriggerKind::Request]);
    }

    #[test]
    fn spans_are_sent_where_it_was_said() {
        let start = ["--without-auth", "--node-id", "n", "--traces-exporter"];
        let traces = |arguments: &[&str]| {
            let config = resolve(&[&start, arguments].concat());
            config
                .map(|config| config.traces.map(|traces| traces.service_name))
                .map_err(|problems| problems[0].to_string())
        };
        assert_eq!(traces(&["none"]), Ok(None));
        let named = ["OTLP", "--traces-service-name", "x"];
        assert_eq!(traces(&named), Ok(Some("x".to_owned())));
        let agent = ["jaeger", "--traces-exporter-jaeger-agent-host", "h"];
        let refused = traces(&agent).unwrap_err();
        assert!(refused.contains("use --traces-exporter otlp"), "{refused}");
        for (endpoint, what) in [
            ("localhost:4317", "begin with http://"),
            ("http://", "not a URL"),
            ("https://localhost:4317", "without TLS"),
            ("", "begin with http://"),
        ] {
            let refused = traces(&["otlp", "--traces-otlp-endpoint", endpoint]).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
        for ratio in ["1.1", "NaN", "inf"] {
            let refused = traces(&["otlp", "--traces-sampler-ratio", ratio]).unwrap_err();
            assert!(refused.contains("from 0 to 1"), "{refused}");
        }
    }

    #[test]
    fn a_plugin_directory_brings_its_environment() {
        let config = resolve(&[
            "--without-auth",
            "--node-id",
            "n",
            "--plugin-dir",
            "/plugins",
        ])
        .unwrap();
        let PluginsConfig::Enabled { environment, .. } = config.plugins else {
            panic!("no plugins")
        };
        assert_eq!(environment[OsStr::new("PLUGIN_DIR")], "/plugins");
    }

    #[test]
    fn either_flag_leaves_packages_to_the_operator() {
        let node = ["--without-auth", "--node-id", "n"];
        let management =
            |flags: &[&str]| resolve(&[&node, flags].concat()).map(|config| config.packages);
        assert_eq!(management(&[]), Ok(Management::Server));
        for name in ["discover", "pip", "UV"] {
            let flags = ["--package-manager", name];
            assert_eq!(management(&flags), Ok(Management::Server), "{name}");
        }
        for flags in [
            &["--package-manager", "Disabled"][..],
            &["--disable-package-management"],
            &["--disable-package-management", "--package-manager", "pip"],
        ] {
            assert_eq!(management(flags), Ok(Management::Operator), "{flags:?}");
        }
    }
}
