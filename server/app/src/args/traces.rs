//! What can be said about traces.

use clap::ValueEnum;

/// Arguments about traces. Those of the Jaeger agent are known so that what they stand for can
/// be said where it is asked for.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Tracing")]
pub(crate) struct TraceArgs {
    /// Where spans are sent; ids are in the logs in any case
    #[arg(
        long,
        env = "INFLUXDB3_TRACES_EXPORTER",
        default_value = "none",
        ignore_case = true
    )]
    pub(crate) traces_exporter: TracesExporter,

    /// Receiver of spans, OTLP over gRPC [default: what OpenTelemetry's variables say, or port
    /// 4317 of this machine]
    #[arg(long, env = "INFLUXDB3_TRACES_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) traces_otlp_endpoint: Option<String>,

    /// What the server is called in traces [default: what OpenTelemetry's
    /// variable says, or outrigger]
    #[arg(
        long,
        alias = "traces-exporter-jaeger-service-name",
        env = "INFLUXDB3_TRACES_SERVICE_NAME",
        value_name = "NAME"
    )]
    pub(crate) traces_service_name: Option<String>,

    /// Share of the traces that begin here and are sent, from 0 to 1; of others, whoever began
    /// them decides
    #[arg(
        long,
        env = "INFLUXDB3_TRACES_SAMPLER_RATIO",
        default_value_t = 1.0,
        value_name = "RATIO"
    )]
    pub(crate) traces_sampler_ratio: f64,

    #[command(flatten)]
    _jaeger: JaegerArgs,
}

/// Arguments of InfluxDB 3 Core that are without effect here.
#[derive(Clone, Debug, clap::Args)]
struct JaegerArgs {
    #[arg(long = "traces-exporter-jaeger-agent-host", hide = true)]
    agent_host: Option<String>,
    #[arg(long = "traces-exporter-jaeger-agent-port", hide = true)]
    agent_port: Option<String>,
    #[arg(long = "traces-exporter-jaeger-trace-context-header-name", hide = true)]
    header_name: Option<String>,
    #[arg(long = "traces-jaeger-debug-name", hide = true)]
    debug_name: Option<String>,
    #[arg(long = "traces-jaeger-tags", hide = true)]
    tags: Option<String>,
    #[arg(long = "traces-jaeger-max-msgs-per-second", hide = true)]
    max_msgs_per_second: Option<String>,
}

/// Where spans go.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TracesExporter {
    /// Nowhere.
    None,
    /// To a receiver of OTLP over gRPC.
    Otlp,
    /// To a Jaeger agent: no longer; Jaeger takes OTLP.
    #[value(hide = true)]
    Jaeger,
}
