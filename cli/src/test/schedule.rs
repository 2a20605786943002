//! `test schedule_plugin`: as if it was time.

use clap::Args;
use serde::Serialize;

use super::CommonArgs;

/// `test schedule_plugin`.
#[derive(Debug, Args)]
pub(crate) struct TestSchedule {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    pub(super) event: ScheduleArgs,
}

/// When it is time, as it is typed and as it is sent.
#[derive(Debug, Args, Serialize)]
pub(super) struct ScheduleArgs {
    /// A cron expression or every:DURATION, as in a trigger's specification; the run is for
    /// its next time. Every second otherwise
    #[arg(long, value_name = "SCHEDULE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
}

impl TestSchedule {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.common.run("schedule", self.event).await
    }
}
