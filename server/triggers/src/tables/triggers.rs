//! `system.plugin_triggers`: how the triggers are doing. A database sees its own, the
//! server's own database all.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use async_trait::async_trait;
use outrigger_model::clock::Timestamp;
use outrigger_query::{LiveTable, LiveView};
use tokio::task::spawn_blocking;

use super::{
    Column,
    Values::{Number, Seconds, Text, Time, Truth},
    after, age, before,
};
use crate::condition::{Condition, Observer};

/// The table.
#[derive(Debug)]
pub(super) struct TriggersTable(pub(super) Observer);

/// A trigger's condition at a time.
struct Row {
    condition: Condition,
    now: Timestamp,
}

impl Row {
    fn lag_age(&self) -> Option<Duration> {
        let lag = self.condition.lag?;
        Some(
            lag.since
                .map_or(Duration::ZERO, |since| age(self.now, since)),
        )
    }

    /// While it is paused, it is tried when the pause is over, also where nothing waits for that.
    fn next_retry(&self) -> Option<Timestamp> {
        let pause = self.condition.pause.as_ref();
        let resumed = pause.map(|pause| after(self.now, pause.left));
        resumed.max(self.condition.status.next_retry)
    }
}

const COLUMNS: [Column<Row>; 18] = [
    Column::required(
        "database_name",
        Text(|row| Some(row.condition.database.name.to_string())),
    ),
    Column::required(
        "trigger_name",
        Text(|row| Some(row.condition.trigger.definition.name.clone())),
    ),
    Column::required("state", Text(|row| Some(row.condition.state.to_owned()))),
    Column::required("running", Number(|row| Some(row.condition.running as u64))),
    Column::required("waiting", Number(|row| Some(row.condition.waiting as u64))),
    Column::nullable(
        "lag_entries",
        Number(|row| Some(row.condition.lag?.entries)),
    ),
    Column::nullable("lag_rows", Number(|row| Some(row.condition.lag?.rows))),
    Column::nullable("lag_seconds", Seconds(Row::lag_age)),
    Column::required(
        "invocations",
        Number(|row| Some(row.condition.status.invocations)),
    ),
    Column::required(
        "failures",
        Number(|row| Some(row.condition.status.failures)),
    ),
    Column::required(
        "failures_in_a_row",
        Number(|row| Some(row.condition.status.failures_in_a_row)),
    ),
    Column::nullable(
        "last_error",
        Text(|row| row.condition.status.last_error.clone()),
    ),
    Column::nullable("next_retry", Time(Row::next_retry)),
    Column::nullable(
        "paused_since",
        Time(|row| Some(before(row.now, row.condition.pause.as_ref()?.ago))),
    ),
    Column::nullable(
        "paused_reason",
        Text(|row| Some(row.condition.pause.as_ref()?.why.clone())),
    ),
    Column::required(
        "run_async",
        Truth(|row| row.condition.trigger.definition.run_async),
    ),
    Column::nullable(
        "network",
        Text(|row| {
            Some(
                row.condition
                    .trigger
                    .definition
                    .grants
                    .network
                    .as_ref()?
                    .to_string(),
            )
        }),
    ),
    Column::required(
        "allow_subprocess",
        Truth(|row| row.condition.trigger.definition.grants.subprocesses),
    ),
];

#[async_trait]
impl LiveTable for TriggersTable {
    fn name(&self) -> &'static str {
        "plugin_triggers"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(COLUMNS.map(|column| column.field()).to_vec()))
    }

    async fn rows(&self, view: &LiveView) -> Result<RecordBatch, ArrowError> {
        let pool = self.0.board.pool().await;
        let (observer, view) = (self.0.clone(), view.clone());
        let look = move || {
            let shows = |database: &outrigger_catalog::Database| view.shows(database.id);
            let conditions = observer.conditions(&view.catalog, pool.as_ref(), shows);
            let now = observer.storage.clock().now();
            let rows = conditions.into_iter();
            rows.map(|condition| Row { condition, now }).collect()
        };
        let rows: Vec<Row> = spawn_blocking(look)
            .await
            .map_err(|panicked| ArrowError::ExternalError(Box::new(panicked)))?;
        let columns = COLUMNS.iter().map(|column| column.array(&rows));
        RecordBatch::try_new(self.schema(), columns.collect())
    }
}
