//! What can be said about how rows leave memory and the log.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    time::Duration,
};

use outrigger_log::replay::TornTail;
use outrigger_model::bytes::ByteSize;
use outrigger_storage::{keeping, snapshot};

use super::memory::MemoryShare;

/// What rows may take of the machine's memory, if nothing is said.
const MEMORY_PERCENT: u8 = 50;
/// But not more than this.
const MEMORY_MAX: ByteSize = ByteSize::mib(256);

/// Arguments about snapshots and deletion.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct StorageArgs {
    /// Span of time of a Parquet file: 1m, 5m or 10m; cannot change after the first snapshot
    #[arg(
        long,
        env = "INFLUXDB3_GEN1_DURATION",
        default_value = "10m",
        value_parser = gen1_duration,
        value_name = "DURATION"
    )]
    gen1_duration: Duration,

    /// After how many log entries a snapshot is made
    #[arg(
        long,
        visible_alias = "wal-files-per-snapshot",
        env = "INFLUXDB3_WAL_SNAPSHOT_SIZE",
        default_value = "600",
        value_name = "NUMBER"
    )]
    wal_snapshot_size: NonZeroU64,

    /// How many writes may wait for the next log entry; more wait 10 s, and are then refused
    #[arg(
        long,
        visible_alias = "wal-max-buffered-writes",
        env = "INFLUXDB3_WAL_MAX_WRITE_BUFFER_SIZE",
        default_value = "100000",
        value_name = "NUMBER"
    )]
    wal_max_write_buffer_size: NonZeroUsize,

    /// Make a snapshot when rows in memory take more than this, for example 512mb or 20%
    /// [default: 50%, at most 256mb]
    #[arg(
        long,
        visible_alias = "force-snapshot-mem-size",
        env = "INFLUXDB3_FORCE_SNAPSHOT_MEM_THRESHOLD",
        value_name = "SIZE"
    )]
    force_snapshot_mem_threshold: Option<MemoryShare>,

    /// How many log entries are kept that snapshots have made needless
    #[arg(
        long,
        env = "INFLUXDB3_NUM_WAL_FILES_TO_KEEP",
        default_value_t = 300,
        value_name = "NUMBER"
    )]
    snapshotted_wal_files_to_keep: u64,

    /// How many log entries a trigger may lag behind before the oldest are removed unseen
    #[arg(
        long,
        env = "INFLUXDB3_TRIGGER_MAX_LAG",
        default_value_t = 100_000,
        value_name = "NUMBER"
    )]
    trigger_max_lag: u64,

    /// How long after its deletion the data of a database or table goes, if nothing else is said
    #[arg(
        long,
        env = "INFLUXDB3_HARD_DELETE_DEFAULT_DURATION",
        default_value = "72h",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    hard_delete_default_duration: Duration,

    /// How long after its data the record of a deleted database or table goes
    #[arg(
        long,
        env = "INFLUXDB3_DELETE_GRACE_PERIOD",
        default_value = "24h",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    delete_grace_period: Duration,

    /// How often files are removed that are older than their database keeps rows
    #[arg(
        long,
        env = "INFLUXDB3_RETENTION_CHECK_INTERVAL",
        default_value = "30m",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    retention_check_interval: Duration,

    /// How much memory joining small files in the background may take, for example 256mb or 5%; 0
    /// joins none
    #[arg(
        long,
        env = "INFLUXDB3_COMPACTION_MEMORY",
        default_value = "128mb",
        value_name = "SIZE"
    )]
    compaction_memory: MemoryShare,

    /// Do not start if the last entry of the log is incomplete; else it is put aside
    #[arg(long, env = "INFLUXDB3_WAL_REPLAY_FAIL_ON_ERROR")]
    wal_replay_fail_on_error: bool,
}

impl StorageArgs {
    pub(crate) fn snapshots(&self) -> snapshot::Config {
        let memory = match &self.force_snapshot_mem_threshold {
            Some(share) => share.bytes(),
            None => MemoryShare::Percent(MEMORY_PERCENT).bytes().min(MEMORY_MAX),
        };
        snapshot::Config {
            window: self.gen1_duration,
            entries: self.wal_snapshot_size,
            memory,
            entries_kept: self.snapshotted_wal_files_to_keep,
            lag_max: self.trigger_max_lag,
            retention_check: self.retention_check_interval,
            compaction_memory: self.compaction_memory.bytes(),
        }
    }

    pub(crate) fn buffered_writes_max(&self) -> usize {
        self.wal_max_write_buffer_size.get()
    }

    pub(crate) fn torn_tail(&self) -> TornTail {
        if self.wal_replay_fail_on_error {
            TornTail::Refuse
        } else {
            TornTail::SetAside
        }
    }

    pub(crate) fn keeping(&self) -> keeping::Config {
        keeping::Config {
            hard_delete_default: self.hard_delete_default_duration,
            grace: self.delete_grace_period,
        }
    }
}

fn gen1_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = [1, 5, 10].map(Duration::from_mins);
    if allowed.contains(&duration) {
        Ok(duration)
    } else {
        Err("it must be 1m, 5m or 10m".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_span_what_influxdb_knows() {
        assert_eq!(gen1_duration("5m"), Ok(Duration::from_mins(5)));
        assert!(gen1_duration("2m").is_err());
    }
}
