//! What can be said on the command line of `serve`, and in its environment. Checked
//! only by itself; what it means together is [`crate::config`]'s.

mod confinement;
mod memory;
mod queries;
mod remote_store;
mod storage;
mod traces;
mod workers;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use outrigger_triggers::RepositoryUrl;

pub(crate) use self::{
    confinement::{ConfinementArgs, Reach},
    queries::QueryArgs,
    remote_store::RemoteStoreArgs,
    storage::StorageArgs,
    traces::{TraceArgs, TracesExporter},
    workers::WorkerArgs,
};

/// Arguments of `influxdb3 serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct Args {
    /// Name of this server; the prefix of everything it stores
    #[arg(
        long,
        visible_alias = "host-id",
        env = "INFLUXDB3_NODE_IDENTIFIER_PREFIX",
        value_name = "NAME"
    )]
    pub(crate) node_id: Option<String>,

    /// Take the node id from this environment variable
    #[arg(
        long,
        env = "INFLUXDB3_NODE_IDENTIFIER_FROM_ENV",
        value_name = "VARIABLE",
        conflicts_with = "node_id"
    )]
    pub(crate) node_id_from_env: Option<String>,

    /// Address to listen on; port 0 takes a free one
    #[arg(
        long,
        env = "INFLUXDB3_HTTP_BIND_ADDR",
        default_value = "0.0.0.0:8181",
        value_name = "ADDRESS"
    )]
    pub(crate) http_bind: SocketAddr,

    /// Largest body of a request in bytes
    #[arg(
        long,
        env = "INFLUXDB3_MAX_HTTP_REQUEST_SIZE",
        default_value_t = 10 * 1024 * 1024,
        value_name = "BYTES"
    )]
    pub(crate) max_http_request_size: usize,

    /// Write the address that the server listens on into this file
    #[arg(long, env = "INFLUXDB3_TCP_LISTINER_FILE_PATH", value_name = "FILE")]
    pub(crate) tcp_listener_file_path: Option<PathBuf>,

    /// Start without authentication: whoever reaches the port may do everything
    #[arg(long, env = "INFLUXDB3_START_WITHOUT_AUTH")]
    pub(crate) without_auth: bool,

    /// Where data is stored
    #[arg(
        long,
        env = "INFLUXDB3_OBJECT_STORE",
        default_value = "file",
        ignore_case = true,
        help_heading = "Storage"
    )]
    pub(crate) object_store: ObjectStoreKind,

    #[command(flatten)]
    pub(crate) remote_store: RemoteStoreArgs,

    /// Directory of the file object store [default: ~/.influxdb]
    #[arg(
        long,
        env = "INFLUXDB3_DB_DIR",
        value_name = "DIRECTORY",
        help_heading = "Storage"
    )]
    pub(crate) data_dir: Option<PathBuf>,

    /// How often what was written is made durable; writers wait for it
    #[arg(
        long,
        env = "INFLUXDB3_WAL_FLUSH_INTERVAL",
        default_value = "1s",
        value_parser = humantime::parse_duration,
        value_name = "DURATION",
        help_heading = "Storage"
    )]
    pub(crate) wal_flush_interval: Duration,

    /// Directory of the plugins; without it, no plugin runs
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_DIR",
        value_name = "DIRECTORY",
        help_heading = "Plugins"
    )]
    pub(crate) plugin_dir: Option<PathBuf>,

    /// How long each of the four steps of a shutdown may take
    #[arg(
        long,
        env = "INFLUXDB3_SHUTDOWN_TIMEOUT",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    pub(crate) shutdown_timeout: Duration,

    /// The plugins' virtual environment; made if absent [default: <plugin-dir>/.venv]
    #[arg(
        long,
        env = "VIRTUAL_ENV",
        value_name = "DIRECTORY",
        help_heading = "Plugins"
    )]
    pub(crate) virtual_env_location: Option<PathBuf>,

    /// Where `gh:` plugins are fetched: the URL that their paths are appended to
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_REPO",
        hide_env_values = true,
        default_value = "https://raw.githubusercontent.com/influxdata/influxdb3_plugins/main/",
        value_name = "URL",
        help_heading = "Plugins"
    )]
    pub(crate) plugin_repo: RepositoryUrl,

    /// How long fetching a `gh:` plugin may take
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_REPO_TIMEOUT",
        default_value = "30s",
        value_parser = humantime::parse_duration,
        value_name = "DURATION",
        help_heading = "Plugins"
    )]
    pub(crate) plugin_repo_timeout: Duration,

    /// Create only triggers of these kinds [default: all]
    #[arg(
        long,
        env = "INFLUXDB3_RESTRICT_PLUGIN_TRIGGERS_TO",
        value_delimiter = ',',
        ignore_case = true,
        value_name = "KINDS",
        help_heading = "Plugins"
    )]
    pub(crate) restrict_plugin_triggers_to: Option<Vec<PluginTriggerKind>>,

    /// Who installs Python packages; `pip` and `uv` mean the same as `discover` [default: discover]
    #[arg(
        long,
        env = "INFLUXDB3_PACKAGE_MANAGER",
        ignore_case = true,
        help_heading = "Plugins"
    )]
    pub(crate) package_manager: Option<PackageManager>,

    /// Make no virtual environment and install nothing: use what is there
    #[arg(
        long,
        env = "INFLUXDB3_DISABLE_PACKAGE_MANAGEMENT",
        help_heading = "Plugins"
    )]
    pub(crate) disable_package_management: bool,

    #[command(flatten)]
    pub(crate) storage: StorageArgs,

    #[command(flatten)]
    pub(crate) queries: QueryArgs,

    #[command(flatten)]
    pub(crate) workers: WorkerArgs,

    #[command(flatten)]
    pub(crate) traces: TraceArgs,

    #[command(flatten)]
    pub(crate) confinement: ConfinementArgs,

    /// What is logged, for example `info,outrigger_supervisor=debug`
    #[arg(
        long,
        env = "INFLUXDB3_LOG_FILTER",
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logging"
    )]
    pub(crate) log_filter: String,

    /// How log lines look
    #[arg(
        long,
        env = "INFLUXDB3_LOG_FORMAT",
        default_value = "full",
        ignore_case = true,
        help_heading = "Logging"
    )]
    pub(crate) log_format: LogFormat,

    /// Where log lines go
    #[arg(
        long,
        env = "INFLUXDB3_LOG_DESTINATION",
        default_value = "stdout",
        ignore_case = true,
        help_heading = "Logging"
    )]
    pub(crate) log_destination: LogDestination,
}

/// Kinds of object stores.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ObjectStoreKind {
    /// Nothing outlives the server.
    Memory,
    /// The same, as slow as a store elsewhere: for trying things out.
    MemoryThrottled,
    /// A directory.
    File,
    /// Amazon S3, and what speaks its language.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// Kinds of triggers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PluginTriggerKind {
    /// On writes.
    #[value(alias = "wal_flush")]
    Wal,
    /// On Parquet files.
    Parquet,
    /// At times.
    Schedule,
    /// On requests.
    Request,
}

/// Who installs Python packages.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PackageManager {
    /// The server, with what it finds.
    Discover,
    /// The server, with pip.
    Pip,
    /// Accepted, and means pip.
    Uv,
    /// The operator.
    Disabled,
}

/// Formats of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line each, for people.
    Full,
    /// Several lines each, for people.
    Pretty,
    /// One JSON object each.
    Json,
    /// One line of key=value pairs each.
    Logfmt,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogDestination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
