//! How databases and tables leave the catalog, step by step.

use std::sync::Arc;

use outrigger_model::{
    ids::{DatabaseId, TableId},
    names::DatabaseName,
};

use super::{Catalog, unknown};
use crate::{CatalogError, deletion::Deletion};

impl Catalog {
    pub(super) fn on_soft_delete_database(
        &mut self,
        id: DatabaseId,
        name: DatabaseName,
        hard: Option<i64>,
    ) -> Result<(), CatalogError> {
        let before = self.names.get(&id).ok_or(unknown("database", id.0))?;
        let mut database = self
            .databases
            .remove(before)
            .ok_or(unknown("database", id.0))?;
        let changed = Arc::make_mut(&mut database);
        changed.name = name.clone();
        changed.deletion = Some(Deletion {
            hard,
            purged: false,
        });
        for trigger in changed.triggers.values_mut() {
            Arc::make_mut(trigger).definition.disabled = true;
        }
        self.names.insert(id, name.clone());
        self.databases.insert(name, database);
        Ok(())
    }

    pub(super) fn on_purge_database(&mut self, id: DatabaseId) -> Result<(), CatalogError> {
        let database = self.database_mut(id)?;
        database.tables.clear();
        database.table_names.clear();
        database.triggers.clear();
        let hard = database.deletion.and_then(|deletion| deletion.hard);
        database.deletion = Some(Deletion { hard, purged: true });
        self.trigger_homes.retain(|_, home| *home != id);
        Ok(())
    }

    pub(super) fn on_soft_delete_table(
        &mut self,
        database: DatabaseId,
        id: TableId,
        name: String,
        hard: Option<i64>,
    ) -> Result<(), CatalogError> {
        let database = self.database_mut(database)?;
        let before = database.table_names.get(&id);
        let mut table = before
            .and_then(|before| database.tables.remove(before))
            .ok_or(unknown("table", id.0))?;
        let changed = Arc::make_mut(&mut table);
        changed.name.clone_from(&name);
        changed.deletion = Some(Deletion {
            hard,
            purged: false,
        });
        database.table_names.insert(id, name.clone());
        database.tables.insert(name, table);
        Ok(())
    }

    pub(super) fn on_delete_database(&mut self, id: DatabaseId) -> Result<(), CatalogError> {
        let name = self.names.remove(&id).ok_or(unknown("database", id.0))?;
        self.databases.remove(&name);
        self.trigger_homes.retain(|_, home| *home != id);
        Ok(())
    }

    pub(super) fn on_purge_table(
        &mut self,
        database: DatabaseId,
        id: TableId,
    ) -> Result<(), CatalogError> {
        let deletion = &mut self.table_mut(database, id)?.deletion;
        let hard = deletion.and_then(|deletion| deletion.hard);
        *deletion = Some(Deletion { hard, purged: true });
        Ok(())
    }

    pub(super) fn on_delete_table(
        &mut self,
        database: DatabaseId,
        id: TableId,
    ) -> Result<(), CatalogError> {
        let name = self.table_mut(database, id)?.name.clone();
        let database = self.database_mut(database)?;
        database.table_names.remove(&id);
        database.tables.remove(&name);
        Ok(())
    }
}
