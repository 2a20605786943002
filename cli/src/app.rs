//! TEMPORARY shim with the app crate's signatures; delete once `outrigger_app` has them.

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The name of this node.
    #[arg(long, env = "INFLUXDB3_NODE_IDENTIFIER_PREFIX")]
    pub(crate) node_id: String,
}

pub(crate) fn run_internal_command() -> Option<ExitCode> {
    None
}

pub(crate) fn serve(args: Args) -> ExitCode {
    drop(args.node_id);
    ExitCode::FAILURE
}
