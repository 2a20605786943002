//! What can be said about queries.

use outrigger_model::bytes::ByteSize;

use super::memory::MemoryShare;

/// Arguments about queries.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Queries")]
pub(crate) struct QueryArgs {
    /// Memory for the intermediate results of all queries together, for example 2gb or 20%; one
    /// that needs more fails
    #[arg(
        long,
        visible_alias = "exec-mem-pool-size",
        env = "INFLUXDB3_EXEC_MEM_POOL_BYTES",
        default_value = "20%",
        value_name = "SIZE"
    )]
    exec_mem_pool_bytes: MemoryShare,
}

impl QueryArgs {
    pub(crate) fn exec_mem_pool(&self) -> ByteSize {
        self.exec_mem_pool_bytes.bytes()
    }
}
