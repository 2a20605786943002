//! The catalog's content and the rules by which changes alter it.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_model::{
    ids::{DatabaseId, Sequence, TableId, TriggerId},
    names::{DatabaseName, INTERNAL_DATABASE},
    schema::{ColumnType, TableSchema},
};

use crate::{
    CatalogChange, CatalogError,
    image::{CatalogImage, DatabaseImage, TableImage, TriggerImage},
    progress::{EntryRange, Progress},
    trigger::{Pin, Trigger, TriggerDefinition, TriggerEvent},
};

/// A table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its number in the log.
    pub id: TableId,
    /// Its name, unique in its database.
    pub name: String,
    /// Its columns.
    pub schema: TableSchema,
}

/// A database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// Its number in the log.
    pub id: DatabaseId,
    /// Its name.
    pub name: DatabaseName,
    /// Its tables by name.
    pub tables: BTreeMap<String, Arc<Table>>,
    /// Its tables' names by id.
    table_names: BTreeMap<TableId, String>,
    /// Its triggers by name.
    pub triggers: BTreeMap<String, Arc<Trigger>>,
}

impl Database {
    /// The table with that id.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.table_names
            .get(&id)
            .and_then(|name| self.tables.get(name))
    }

    /// The trigger of that name.
    pub fn trigger(&self, name: &str) -> Result<&Arc<Trigger>, CatalogError> {
        self.triggers
            .get(name)
            .ok_or_else(|| CatalogError::NoTrigger {
                database: self.name.to_string(),
                trigger: name.to_owned(),
            })
    }

    fn image(&self) -> DatabaseImage {
        let table = |table: &Arc<Table>| TableImage {
            id: table.id,
            name: table.name.clone(),
            columns: table
                .schema
                .columns()
                .filter(|(_, column)| *column != ColumnType::Time)
                .map(|(name, column)| (name.to_owned(), column))
                .collect(),
        };
        let trigger = |trigger: &Arc<Trigger>| TriggerImage {
            id: trigger.id,
            definition: trigger.definition.clone(),
            since: trigger.since,
            cursor: trigger.progress.cursor(),
            beyond: trigger
                .progress
                .beyond()
                .map(|range| (range.after, range.through))
                .collect(),
        };
        DatabaseImage {
            id: self.id,
            name: self.name.clone(),
            tables: self.tables.values().map(table).collect(),
            triggers: self.triggers.values().map(trigger).collect(),
        }
    }

    fn from_image(image: DatabaseImage) -> Self {
        let table = |image: TableImage| {
            let mut schema = TableSchema::default();
            for (name, column) in &image.columns {
                schema.add(name, *column);
            }
            let (id, name) = (image.id, image.name);
            (name.clone(), Arc::new(Table { id, name, schema }))
        };
        let trigger = |image: TriggerImage| {
            let mut progress = Progress::up_to(image.cursor);
            for (after, through) in image.beyond {
                progress.complete(EntryRange { after, through });
            }
            let trigger = Trigger {
                id: image.id,
                definition: image.definition,
                since: image.since,
                progress,
            };
            (trigger.definition.name.clone(), Arc::new(trigger))
        };
        let tables: BTreeMap<String, Arc<Table>> = image.tables.into_iter().map(table).collect();
        Self {
            id: image.id,
            name: image.name,
            table_names: tables
                .values()
                .map(|table| (table.id, table.name.clone()))
                .collect(),
            tables,
            triggers: image.triggers.into_iter().map(trigger).collect(),
        }
    }
}

/// Everything that exists. Cloning is cheap: the parts are shared until they change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Catalog {
    databases: BTreeMap<DatabaseName, Arc<Database>>,
    names: BTreeMap<DatabaseId, DatabaseName>,
    trigger_homes: BTreeMap<TriggerId, DatabaseId>,
    last_database: DatabaseId,
    last_table: TableId,
    last_trigger: TriggerId,
}

impl Catalog {
    /// All databases of users, by name.
    pub fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.databases.values()
    }

    /// The database of that name.
    pub fn database(&self, name: &str) -> Result<&Arc<Database>, CatalogError> {
        name.parse::<DatabaseName>()
            .ok()
            .and_then(|name| self.databases.get(&name))
            .ok_or_else(|| CatalogError::NoDatabase(name.to_owned()))
    }

    /// The trigger of that name in that database. The server's own database exists, but
    /// has no triggers.
    pub fn trigger(&self, database: &str, name: &str) -> Result<&Arc<Trigger>, CatalogError> {
        if database == INTERNAL_DATABASE {
            return Err(CatalogError::NoTrigger {
                database: database.to_owned(),
                trigger: name.to_owned(),
            });
        }
        self.database(database)?.trigger(name)
    }

    /// The database with that id, unless it was deleted.
    pub fn database_by_id(&self, id: DatabaseId) -> Option<&Arc<Database>> {
        self.names
            .get(&id)
            .and_then(|name| self.databases.get(name))
    }

    /// The trigger with that id, with its database, unless it was deleted.
    pub fn trigger_by_id(&self, id: TriggerId) -> Option<(&Arc<Database>, &Arc<Trigger>)> {
        let database = self.database_by_id(*self.trigger_homes.get(&id)?)?;
        let trigger = database
            .triggers
            .values()
            .find(|trigger| trigger.id == id)?;
        Some((database, trigger))
    }

    /// All triggers, each with its database.
    pub fn triggers(&self) -> impl Iterator<Item = (&Arc<Database>, &Arc<Trigger>)> {
        self.databases.values().flat_map(|database| {
            database
                .triggers
                .values()
                .map(move |trigger| (database, trigger))
        })
    }

    /// The change that creates a database.
    pub fn create_database(&self, name: &str) -> Result<CatalogChange, CatalogError> {
        if name == INTERNAL_DATABASE {
            return Err(CatalogError::Internal);
        }
        let name: DatabaseName = name.parse()?;
        if self.databases.contains_key(&name) {
            return Err(CatalogError::Exists {
                what: "database",
                name: name.into(),
            });
        }
        Ok(CatalogChange::CreateDatabase {
            id: DatabaseId(self.last_database.0 + 1),
            name,
        })
    }

    /// The change that deletes a database.
    pub fn delete_database(&self, name: &str) -> Result<CatalogChange, CatalogError> {
        if name == INTERNAL_DATABASE {
            return Err(CatalogError::Internal);
        }
        Ok(CatalogChange::DeleteDatabase {
            id: self.database(name)?.id,
        })
    }

    /// The change that creates a table, which must not exist.
    pub fn create_table(&self, database: DatabaseId, name: &str) -> CatalogChange {
        CatalogChange::CreateTable {
            database,
            id: TableId(self.last_table.0 + 1),
            name: name.to_owned(),
        }
    }

    /// The change that creates a trigger; with `earliest`, one that begins with the
    /// oldest entry of the log.
    pub fn create_trigger(
        &self,
        database: &str,
        definition: TriggerDefinition,
        earliest: bool,
    ) -> Result<CatalogChange, CatalogError> {
        if database == INTERNAL_DATABASE {
            return Err(CatalogError::Internal);
        }
        let database = self.database(database)?;
        if database.triggers.contains_key(&definition.name) {
            return Err(CatalogError::Exists {
                what: "trigger",
                name: definition.name,
            });
        }
        if let TriggerEvent::RequestPath { path } = &definition.event
            && let Some((owner_database, owner)) = self.request_trigger(path)
        {
            return Err(CatalogError::PathTaken {
                path: path.clone(),
                trigger: owner.definition.name.clone(),
                database: owner_database.name.to_string(),
            });
        }
        let id = TriggerId(self.last_trigger.0 + 1);
        Ok(CatalogChange::CreateTrigger {
            database: database.id,
            id,
            definition,
            earliest,
        })
    }

    /// The trigger that answers requests to `path`.
    pub fn request_trigger(&self, path: &str) -> Option<(&Arc<Database>, &Arc<Trigger>)> {
        self.triggers().find(|(_, trigger)| {
            matches!(&trigger.definition.event, TriggerEvent::RequestPath { path: own } if own == path)
        })
    }

    /// The change that deletes a trigger; an enabled one only by `force`.
    pub fn delete_trigger(
        &self,
        database: &str,
        name: &str,
        force: bool,
    ) -> Result<CatalogChange, CatalogError> {
        let trigger = self.trigger(database, name)?;
        if !trigger.definition.disabled && !force {
            return Err(CatalogError::TriggerRuns(name.to_owned()));
        }
        Ok(CatalogChange::DeleteTrigger { id: trigger.id })
    }

    /// The change that enables or disables a trigger; `None` if it is so already.
    pub fn set_trigger_disabled(
        &self,
        database: &str,
        name: &str,
        disabled: bool,
    ) -> Result<Option<CatalogChange>, CatalogError> {
        let trigger = self.trigger(database, name)?;
        let change = CatalogChange::SetTriggerDisabled {
            id: trigger.id,
            disabled,
        };
        Ok((trigger.definition.disabled != disabled).then_some(change))
    }

    /// The change that has a trigger run what was fetched from the repository; `None` if it
    /// does so already.
    pub fn set_trigger_pin(
        &self,
        database: &str,
        name: &str,
        plugin: String,
        pin: Pin,
    ) -> Result<Option<CatalogChange>, CatalogError> {
        let trigger = self.trigger(database, name)?;
        let (id, definition) = (trigger.id, &trigger.definition);
        let same = definition.plugin == plugin && definition.pin.as_ref() == Some(&pin);
        Ok((!same).then_some(CatalogChange::SetTriggerPin { id, plugin, pin }))
    }

    /// Takes in a change that stands in log entry `sequence`.
    ///
    /// # Errors
    /// If the change names something that does not exist.
    pub fn apply(&mut self, sequence: Sequence, change: CatalogChange) -> Result<(), CatalogError> {
        match change {
            CatalogChange::CreateDatabase { id, name } => self.on_create_database(id, name),
            CatalogChange::DeleteDatabase { id } => self.on_delete_database(id)?,
            CatalogChange::CreateTable { database, id, name } => {
                self.last_table = self.last_table.max(id);
                let table = Table {
                    id,
                    name: name.clone(),
                    schema: TableSchema::default(),
                };
                let database = self.database_mut(database)?;
                database.table_names.insert(id, name.clone());
                database.tables.insert(name, Arc::new(table));
            }
            CatalogChange::AddColumns {
                database,
                table,
                columns,
            } => {
                let schema = &mut self.table_mut(database, table)?.schema;
                for (name, column) in columns {
                    schema.add(&name, column);
                }
            }
            CatalogChange::CreateTrigger {
                database,
                id,
                definition,
                earliest,
            } => {
                self.last_trigger = self.last_trigger.max(id);
                self.trigger_homes.insert(id, database);
                let name = definition.name.clone();
                let cursor = if earliest {
                    Sequence::default()
                } else {
                    sequence
                };
                let trigger = Arc::new(Trigger {
                    id,
                    definition,
                    since: sequence,
                    progress: Progress::up_to(cursor),
                });
                self.database_mut(database)?.triggers.insert(name, trigger);
            }
            CatalogChange::DeleteTrigger { id } => {
                let name = self.trigger_mut(id)?.definition.name.clone();
                let home = self
                    .trigger_homes
                    .remove(&id)
                    .ok_or(unknown("trigger", id.0))?;
                self.database_mut(home)?.triggers.remove(&name);
            }
            CatalogChange::SetTriggerDisabled { id, disabled } => {
                let trigger = self.trigger_mut(id)?;
                trigger.definition.disabled = disabled;
                if !disabled {
                    trigger.start_at(sequence);
                }
            }
            CatalogChange::SetTriggerPin { id, plugin, pin } => {
                let definition = &mut self.trigger_mut(id)?.definition;
                definition.plugin = plugin;
                definition.pin = Some(pin);
            }
        }
        Ok(())
    }

    /// A trigger has dealt with a range of the log. It may be gone: it was deleted
    /// while its last invocation ran.
    pub fn complete(&mut self, id: TriggerId, range: EntryRange) {
        if let Ok(trigger) = self.trigger_mut(id) {
            trigger.progress.complete(range);
        }
    }

    /// All of it, for a snapshot.
    pub fn image(&self) -> CatalogImage {
        let databases = self.databases.values();
        CatalogImage {
            last_database: self.last_database,
            last_table: self.last_table,
            last_trigger: self.last_trigger,
            databases: databases.map(|database| database.image()).collect(),
        }
    }

    /// The catalog that the image was made of.
    pub fn from_image(image: CatalogImage) -> Self {
        let mut catalog = Self {
            last_database: image.last_database,
            last_table: image.last_table,
            last_trigger: image.last_trigger,
            ..Self::default()
        };
        for image in image.databases {
            catalog.names.insert(image.id, image.name.clone());
            let ids = image.triggers.iter().map(|trigger| trigger.id);
            catalog
                .trigger_homes
                .extend(ids.map(|trigger| (trigger, image.id)));
            let name = image.name.clone();
            let database = Arc::new(Database::from_image(image));
            catalog.databases.insert(name, database);
        }
        catalog
    }

    fn on_create_database(&mut self, id: DatabaseId, name: DatabaseName) {
        self.last_database = self.last_database.max(id);
        self.names.insert(id, name.clone());
        let database = Database {
            id,
            name: name.clone(),
            tables: BTreeMap::new(),
            table_names: BTreeMap::new(),
            triggers: BTreeMap::new(),
        };
        self.databases.insert(name, Arc::new(database));
    }

    fn on_delete_database(&mut self, id: DatabaseId) -> Result<(), CatalogError> {
        let name = self.names.remove(&id).ok_or(unknown("database", id.0))?;
        self.databases.remove(&name);
        self.trigger_homes.retain(|_, home| *home != id);
        Ok(())
    }

    fn database_mut(&mut self, id: DatabaseId) -> Result<&mut Database, CatalogError> {
        let name = self.names.get(&id).ok_or(unknown("database", id.0))?;
        let database = self
            .databases
            .get_mut(name)
            .ok_or(unknown("database", id.0))?;
        Ok(Arc::make_mut(database))
    }

    fn table_mut(&mut self, home: DatabaseId, id: TableId) -> Result<&mut Table, CatalogError> {
        let database = self.database_mut(home)?;
        let name = database
            .table_names
            .get(&id)
            .ok_or(unknown("table", id.0))?;
        let table = database
            .tables
            .get_mut(name)
            .ok_or(unknown("table", id.0))?;
        Ok(Arc::make_mut(table))
    }

    fn trigger_mut(&mut self, id: TriggerId) -> Result<&mut Trigger, CatalogError> {
        let home = *self
            .trigger_homes
            .get(&id)
            .ok_or(unknown("trigger", id.0))?;
        self.database_mut(home)?
            .triggers
            .values_mut()
            .find(|trigger| trigger.id == id)
            .map(Arc::make_mut)
            .ok_or(unknown("trigger", id.0))
    }
}

fn unknown(what: &'static str, id: u32) -> CatalogError {
    CatalogError::UnknownId { what, id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{grants::Grants, trigger::ErrorBehavior};

    #[test]
    fn a_database_is_created_once_and_its_name_can_be_used_again_after_deletion() {
        let mut catalog = with_database("db");
        assert!(matches!(
            catalog.create_database("db"),
            Err(CatalogError::Exists { .. })
        ));
        let delete = catalog.delete_database("db").unwrap();
        catalog.apply(Sequence(2), delete).unwrap();
        let CatalogChange::CreateDatabase { id, .. } = catalog.create_database("db").unwrap()
        else {
            panic!("not a database")
        };
        assert_eq!(id, DatabaseId(2), "ids are never used again");
    }

    #[test]
    fn columns_are_added_to_their_table() {
        let mut catalog = with_database("db");
        let create = catalog.create_table(DatabaseId(1), "cpu");
        catalog.apply(Sequence(2), create).unwrap();
        let columns = vec![("host".to_owned(), ColumnType::Tag)];
        let (database, table) = (DatabaseId(1), TableId(1));
        let add = CatalogChange::AddColumns {
            database,
            table,
            columns,
        };
        catalog.apply(Sequence(2), add).unwrap();
        let table = &catalog.database("db").unwrap().tables["cpu"];
        assert_eq!(table.schema.column("host"), Some(ColumnType::Tag));
    }

    #[test]
    fn a_trigger_starts_where_it_was_created_and_where_it_was_enabled() {
        let mut catalog = with_trigger("db", "t");
        assert_eq!(cursor(&catalog), Sequence(2));
        catalog.complete(TriggerId(1), range(2, 5));
        catalog.complete(TriggerId(1), range(0, 4));
        assert_eq!(cursor(&catalog), Sequence(5));
        for (sequence, disabled) in [(6, true), (9, false)] {
            let change = catalog
                .set_trigger_disabled("db", "t", disabled)
                .unwrap()
                .unwrap();
            catalog.apply(Sequence(sequence), change).unwrap();
        }
        assert_eq!(cursor(&catalog), Sequence(9));
        let (_, trigger) = catalog.trigger_by_id(TriggerId(1)).unwrap();
        assert_eq!(trigger.since, Sequence(9));
        assert_eq!(
            catalog.set_trigger_disabled("db", "t", false).unwrap(),
            None
        );
    }

    #[test]
    fn an_enabled_trigger_is_deleted_only_by_force() {
        let mut catalog = with_trigger("db", "t");
        let refused = catalog.delete_trigger("db", "t", false);
        assert!(matches!(refused, Err(CatalogError::TriggerRuns(_))));
        let change = catalog.delete_trigger("db", "t", true).unwrap();
        catalog.apply(Sequence(3), change).unwrap();
        assert_eq!(catalog.triggers().count(), 0);
        catalog.complete(TriggerId(1), range(0, 4));
    }

    #[test]
    fn a_pin_changes_what_runs_and_not_where_it_is() {
        let mut catalog = with_trigger("db", "t");
        let pin = Pin {
            sha256: "00ff".to_owned(),
            bytes: 3,
        };
        let set = |catalog: &Catalog| {
            let plugin = "gh:a/b.py".to_owned();
            catalog.set_trigger_pin("db", "t", plugin, pin.clone())
        };
        let change = set(&catalog).unwrap().unwrap();
        catalog.apply(Sequence(7), change).unwrap();
        let trigger = catalog.trigger("db", "t").unwrap();
        assert_eq!(trigger.definition.pin.as_ref(), Some(&pin));
        assert_eq!(trigger.progress.cursor(), Sequence(2));
        assert_eq!(set(&catalog).unwrap(), None);
    }

    #[test]
    fn the_servers_own_database_has_no_triggers() {
        let catalog = with_trigger("db", "t");
        let definition = catalog.trigger("db", "t").unwrap().definition.clone();
        let created = catalog.create_trigger(INTERNAL_DATABASE, definition, false);
        assert!(matches!(created, Err(CatalogError::Internal)));
        let deleted = catalog.delete_trigger(INTERNAL_DATABASE, "t", true);
        assert!(matches!(deleted, Err(CatalogError::NoTrigger { .. })));
    }

    fn with_database(name: &str) -> Catalog {
        let mut catalog = Catalog::default();
        let create = catalog.create_database(name).unwrap();
        catalog.apply(Sequence(1), create).unwrap();
        catalog
    }

    fn with_trigger(database: &str, name: &str) -> Catalog {
        let mut catalog = with_database(database);
        let definition = TriggerDefinition {
            name: name.to_owned(),
            plugin: "p.py".to_owned(),
            pin: None,
            event: TriggerEvent::AllTablesWalWrite,
            arguments: None,
            error_behavior: ErrorBehavior::Log,
            disabled: false,
            timeout: None,
            run_async: false,
            grants: Grants::default(),
        };
        let create = catalog.create_trigger(database, definition, false).unwrap();
        catalog.apply(Sequence(2), create).unwrap();
        catalog
    }

    fn cursor(catalog: &Catalog) -> Sequence {
        let (_, trigger) = catalog.trigger_by_id(TriggerId(1)).unwrap();
        trigger.progress.cursor()
    }

    fn range(after: u64, through: u64) -> EntryRange {
        EntryRange {
            after: Sequence(after),
            through: Sequence(through),
        }
    }
}
