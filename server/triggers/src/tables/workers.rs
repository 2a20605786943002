//! `system.plugin_workers`: the worker processes and what they do.
//!
//! A database sees the workers of its own triggers and the spares, which belong to nobody;
//! the server's own database sees all.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use async_trait::async_trait;
use outrigger_model::clock::Timestamp;
use outrigger_query::{LiveTable, LiveView};
use outrigger_supervisor::WorkerStatus;

use super::{
    Column,
    Values::{Number, Seconds, Text, Time},
    before,
};
use crate::{backend::trigger_id, condition::Observer, dry_run::is_dry_run};

/// The table.
#[derive(Debug)]
pub(super) struct WorkersTable(pub(super) Observer);

/// A worker, and whose it is.
struct Row {
    worker: WorkerStatus,
    purpose: Purpose,
    now: Timestamp,
}

enum Purpose {
    Spare,
    DryRun,
    Trigger {
        database: String,
        name: String,
    },
    /// Of a trigger that is gone.
    Orphan,
}

impl Purpose {
    fn label(&self) -> &'static str {
        match self {
            Self::Spare => "spare",
            Self::DryRun => "dry_run",
            Self::Trigger { .. } | Self::Orphan => "trigger",
        }
    }

    fn trigger(&self) -> Option<(&String, &String)> {
        match self {
            Self::Trigger { database, name } => Some((database, name)),
            _ => None,
        }
    }
}

const COLUMNS: [Column<Row>; 12] = [
    Column::nullable(
        "pid",
        Number(|row| Some(row.worker.pid.into()).filter(|pid| *pid > 0)),
    ),
    Column::required("state", Text(|row| Some(row.worker.state.to_owned()))),
    Column::required("purpose", Text(|row| Some(row.purpose.label().to_owned()))),
    Column::nullable(
        "database_name",
        Text(|row| row.purpose.trigger().map(|(database, _)| database.clone())),
    ),
    Column::nullable(
        "trigger_name",
        Text(|row| row.purpose.trigger().map(|(_, name)| name.clone())),
    ),
    Column::required("age_seconds", Seconds(|row| Some(row.worker.age))),
    Column::required("invocations", Number(|row| Some(row.worker.invocations))),
    Column::required(
        "cached_objects",
        Number(|row| Some(row.worker.cached_objects)),
    ),
    Column::required(
        "peak_memory_bytes",
        Number(|row| Some(row.worker.memory_bytes)),
    ),
    Column::nullable(
        "invocation_id",
        Text(|row| Some(row.worker.running.as_ref()?.invocation.to_string())),
    ),
    Column::nullable(
        "running_since",
        Time(|row| Some(before(row.now, row.worker.running.as_ref()?.ago))),
    ),
    Column::nullable(
        "enforcement",
        Text(|row| row.worker.enforcement.as_deref().map(str::to_owned)),
    ),
];

#[async_trait]
impl LiveTable for WorkersTable {
    fn name(&self) -> &'static str {
        "plugin_workers"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(COLUMNS.map(|column| column.field()).to_vec()))
    }

    async fn rows(&self, view: &LiveView) -> Result<RecordBatch, ArrowError> {
        let pool = self.0.board.pool().await.unwrap_or_default();
        let now = self.0.storage.clock().now();
        let workers = pool.workers.into_iter();
        let rows = workers.filter_map(|worker| {
            let purpose = purpose(&worker, view)?;
            Some(Row {
                worker,
                purpose,
                now,
            })
        });
        let rows: Vec<Row> = rows.collect();
        let columns = COLUMNS.iter().map(|column| column.array(&rows));
        RecordBatch::try_new(self.schema(), columns.collect())
    }
}

/// What the worker is for; `None` if the view does not show it.
fn purpose(worker: &WorkerStatus, view: &LiveView) -> Option<Purpose> {
    let Some(binding) = &worker.binding else {
        return Some(Purpose::Spare);
    };
    let is_internal = view.database.is_none();
    if is_dry_run(binding) {
        return is_internal.then_some(Purpose::DryRun);
    }
    let found = trigger_id(binding).and_then(|id| view.catalog.trigger_by_id(id));
    let Some((database, trigger)) = found else {
        return is_internal.then_some(Purpose::Orphan);
    };
    view.shows(database.id).then(|| Purpose::Trigger {
        database: database.name.to_string(),
        name: trigger.definition.name.clone(),
    })
}
