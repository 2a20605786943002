//! What does the log say of a trigger's runs, and as whose words?

use outrigger_catalog::trigger::TriggerEvent;
use outrigger_model::trace::TraceContext;
use outrigger_storage::journal::LogLevel;
use outrigger_supervisor::InvocationId;

use super::{Attempt, Runner};
use crate::{account::Subject, voice::Voice};

impl Runner {
    /// Says something about an invocation that is not made.
    pub(crate) async fn log(&self, id: &InvocationId, level: LogLevel, text: String) {
        let line = self.voice_of(id, None).line(level, text);
        self.engine.logger.log(line).await;
    }

    pub(super) async fn say(&self, attempt: &Attempt<'_>, level: LogLevel, text: String) {
        let line = self.voice(attempt).line(level, text);
        self.engine.logger.log(line).await;
    }

    pub(super) fn voice(&self, attempt: &Attempt<'_>) -> Voice {
        self.voice_of(&attempt.occasion.id, Some(attempt.trace.context()))
    }

    fn voice_of(&self, id: &InvocationId, trace: Option<TraceContext>) -> Voice {
        Voice {
            storage: self.engine.storage.clone(),
            trigger: self.trigger.definition.name.clone(),
            kind: self.kind(),
            invocation: id.clone(),
            trace,
        }
    }

    pub(super) fn subject(&self, attempt: &Attempt<'_>) -> Subject {
        let catalog = self.engine.storage.catalog();
        let database = catalog.database_by_id(self.database);
        let mut start_time = self.engine.storage.clock().now();
        let waited = attempt.occasion.waited.as_nanos();
        start_time.0 = start_time
            .0
            .saturating_sub_unsigned(u64::try_from(waited).unwrap_or(0));
        Subject {
            start_time,
            database_name: database.map_or_else(String::new, |found| found.name.to_string()),
            trigger_name: self.trigger.definition.name.clone(),
            invocation_id: attempt.occasion.id.to_string(),
            attempt: attempt.number,
            trace: attempt.trace.context(),
        }
    }

    /// What the log calls the plugin.
    pub(super) fn kind(&self) -> &'static str {
        match self.trigger.definition.event {
            TriggerEvent::AllTablesWalWrite | TriggerEvent::SingleTableWalWrite { .. } => "wal",
            TriggerEvent::AllTablesParquetPersist
            | TriggerEvent::SingleTableParquetPersist { .. } => "parquet",
            TriggerEvent::Schedule { .. } | TriggerEvent::Every { .. } => "schedule",
            TriggerEvent::RequestPath { .. } => "request",
        }
    }
}
