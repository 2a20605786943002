//! What of the log does a trigger want, and which event is made of it: rows, or files?

use outrigger_catalog::trigger::Trigger;
use outrigger_log::LogError;
use outrigger_model::{
    clock::Timestamp,
    ids::{DatabaseId, Sequence, TriggerId},
};
use outrigger_storage::{
    CommittedFile,
    feed::{Feed, Filter, TableBatch},
};
use outrigger_supervisor::{Event, EventFile, EventTable};

use crate::{manager::Config, origin::Origin};

/// So many files are in one event, unless one log entry has more.
const FILES_MAX: usize = 1000;

/// What a trigger wants.
#[derive(Debug)]
pub(crate) enum Interest {
    /// Rows that were written.
    Rows(Filter),
    /// Files that were committed.
    Files(TriggerId),
}

/// What there is for it in some entries.
#[derive(Debug)]
pub(crate) struct Found {
    /// Every entry up to this one has been looked at.
    pub(crate) through: Sequence,
    /// The first and the last entry of the event.
    pub(crate) entries: (Sequence, Sequence),
    /// None if there is nothing.
    pub(crate) event: Option<(Event, Origin)>,
}

impl Interest {
    pub(crate) fn of(trigger: &Trigger, database: DatabaseId, config: &Config) -> Self {
        let event = &trigger.definition.event;
        if event.is_of_files() {
            return Self::Files(trigger.id);
        }
        Self::Rows(Filter {
            database,
            table: event.table().map(str::to_owned),
            rows_max: config.batch_rows_max,
            bytes_max: config.batch_bytes_max.0,
        })
    }

    /// What there is in the next entries behind `after`.
    pub(crate) async fn look(
        &self,
        feed: &Feed,
        after: Sequence,
        until: Option<Sequence>,
    ) -> Result<Found, LogError> {
        let (through, entries, event) = match self {
            Self::Rows(filter) => {
                let found = feed.read(after, until, filter).await?;
                let origin = Origin::from(found.origins);
                let tables = found.tables.into_iter().map(event_table);
                let event =
                    (found.entries.is_some()).then(|| (Event::Writes(tables.collect()), origin));
                (found.through, found.entries, event)
            }
            Self::Files(trigger) => {
                let found = feed.files(*trigger, (after, until), FILES_MAX);
                let event = event_of_files(found.files);
                let event = event.map(|event| (event, Origin::default()));
                (found.through, found.entries, event)
            }
        };
        Ok(Found {
            through,
            entries: entries.unwrap_or((through, through)),
            event,
        })
    }
}

fn event_table(table: TableBatch) -> EventTable {
    EventTable {
        name: table.name,
        batches: table.batches,
    }
}

/// The event that these files are, if there are any.
pub(crate) fn event_of_files(files: Vec<CommittedFile>) -> Option<Event> {
    let files = files.into_iter().map(|committed| EventFile {
        table: committed.table,
        path: committed.file.path,
        size_bytes: committed.file.size_bytes,
        rows: committed.file.row_count,
        min_time: Timestamp(committed.file.min_time),
        max_time: Timestamp(committed.file.max_time),
        reason: committed.reason.as_str(),
        replaces: committed.replaces,
        keeps: committed.keeps,
    });
    let files: Vec<EventFile> = files.collect();
    (!files.is_empty()).then_some(Event::Files(files))
}
