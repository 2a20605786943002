//! Which files does a trigger see?

use outrigger_catalog::{Catalog, trigger::Trigger};
use outrigger_model::ids::{DatabaseId, Sequence, TableId, TriggerId};

use super::AnnouncedFile;
use crate::snapshot::followers;

/// Whose files a trigger sees, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Following<'a> {
    catalog: &'a Catalog,
    database: DatabaseId,
    table: Option<&'a str>,
    pub(super) since: Sequence,
    trigger: &'a Trigger,
}

impl<'a> Following<'a> {
    pub(super) fn of(catalog: &'a Catalog, trigger: TriggerId) -> Option<Self> {
        let (database, trigger) = catalog.trigger_by_id(trigger)?;
        Some(Self {
            catalog,
            database: database.id,
            table: trigger.definition.event.table(),
            since: trigger.since,
            trigger,
        })
    }

    pub(super) fn name_of(&self, file: &AnnouncedFile) -> Option<&'a str> {
        self.name(file.database, file.table)
    }

    /// The name of the table, if it is one of those that are seen. What was deleted meanwhile
    /// is nobody's event any more.
    pub(super) fn name(&self, database: DatabaseId, table: TableId) -> Option<&'a str> {
        if database != self.database {
            return None;
        }
        let database = self.catalog.database_by_id(database)?;
        let table = database.table_by_id(table)?;
        let is_deleted = database.deletion.is_some() || table.deletion.is_some();
        let is_wanted = self.table.is_none_or(|wanted| wanted == table.name);
        (is_wanted && !is_deleted).then_some(table.name.as_str())
    }

    /// Whether the trigger has still to see an entry.
    pub(super) fn lacks(&self, entry: Sequence) -> bool {
        !self.trigger.progress.includes(entry)
    }
}

/// The triggers that follow files.
pub(super) fn followings(catalog: &Catalog) -> impl Iterator<Item = Following<'_>> {
    followers(catalog)
        .filter(|(_, trigger)| trigger.definition.event.is_of_files())
        .filter_map(|(_, trigger)| Following::of(catalog, trigger.id))
}
