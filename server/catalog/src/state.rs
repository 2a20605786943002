//! The catalog's content and the rules by which changes alter it.

mod removal;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use outrigger_model::{
    ids::{DatabaseId, Sequence, TableId, TriggerId},
    names::{DatabaseName, INTERNAL_DATABASE},
    schema::{COLUMNS_MAX, ColumnType, TIME_COLUMN, TableSchema},
};

use crate::{
    CatalogChange, CatalogError,
    deletion::Deletion,
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
    /// Whether it is deleted: then it can only be read, if at all.
    pub deletion: Option<Deletion>,
}

/// A database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// Its number in the log.
    pub id: DatabaseId,
    /// Its name.
    pub name: DatabaseName,
    /// How long its rows can be seen; forever if `None`.
    pub retention: Option<Duration>,
    /// Whether it is deleted: then it can only be read, if at all.
    pub deletion: Option<Deletion>,
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
            deletion: table.deletion,
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
            retention: self.retention,
            deletion: self.deletion,
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
            let table = Table {
                id: image.id,
                name: image.name,
                schema,
                deletion: image.deletion,
            };
            (table.name.clone(), Arc::new(table))
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
            retention: image.retention,
            deletion: image.deletion,
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
    /// All databases of users, by name; those that are deleted too.
    pub fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.databases.values()
    }

    /// The database of that name, which may be deleted.
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
        self.live_database(database)?.trigger(name)
    }

    /// The database with that id, unless it is gone.
    pub fn database_by_id(&self, id: DatabaseId) -> Option<&Arc<Database>> {
        self.names
            .get(&id)
            .and_then(|name| self.databases.get(name))
    }

    /// The trigger with that id, with its database, unless it is gone.
    pub fn trigger_by_id(&self, id: TriggerId) -> Option<(&Arc<Database>, &Arc<Trigger>)> {
        let database = self.database_by_id(*self.trigger_homes.get(&id)?)?;
        let trigger = database
            .triggers
            .values()
            .find(|trigger| trigger.id == id)?;
        Some((database, trigger))
    }

    /// All triggers, each with its database; those of deleted databases are disabled.
    pub fn triggers(&self) -> impl Iterator<Item = (&Arc<Database>, &Arc<Trigger>)> {
        self.databases.values().flat_map(|database| {
            database
                .triggers
                .values()
                .map(move |trigger| (database, trigger))
        })
    }

    /// The change that creates a database, whose rows can be seen so long.
    pub fn create_database(
        &self,
        name: &str,
        retention: Option<Duration>,
    ) -> Result<CatalogChange, CatalogError> {
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
            retention,
        })
    }

    /// The change after which the rows of a database can be seen so long; `None` if it is so
    /// already.
    pub fn set_retention(
        &self,
        name: &str,
        retention: Option<Duration>,
    ) -> Result<Option<CatalogChange>, CatalogError> {
        if name == INTERNAL_DATABASE {
            return Err(CatalogError::Internal);
        }
        let database = self.live_database(name)?;
        let id = database.id;
        let change = CatalogChange::SetRetention { id, retention };
        Ok((database.retention != retention).then_some(change))
    }

    /// The change that creates a table, which must not exist.
    pub fn create_table(&self, database: DatabaseId, name: &str) -> CatalogChange {
        CatalogChange::CreateTable {
            database,
            id: TableId(self.last_table.0 + 1),
            name: name.to_owned(),
        }
    }

    /// The changes that create a table with columns, and its database if need be.
    pub fn create_table_with(
        &self,
        database: &str,
        name: &str,
        columns: Vec<(String, ColumnType)>,
    ) -> Result<Vec<CatalogChange>, CatalogError> {
        check_columns(name, &columns)?;
        let mut changes = Vec::new();
        let database = if self.database(database).is_ok() {
            let database = self.live_database(database)?;
            if database.tables.contains_key(name) {
                return Err(CatalogError::Exists {
                    what: "table",
                    name: name.to_owned(),
                });
            }
            database.id
        } else {
            changes.push(self.create_database(database, None)?);
            DatabaseId(self.last_database.0 + 1)
        };
        changes.push(self.create_table(database, name));
        if !columns.is_empty() {
            changes.push(CatalogChange::AddColumns {
                database,
                table: TableId(self.last_table.0 + 1),
                columns,
            });
        }
        Ok(changes)
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
        let database = self.live_database(database)?;
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
        self.triggers().find(|(database, trigger)| {
            database.deletion.is_none() && matches!(&trigger.definition.event, TriggerEvent::RequestPath { path: own } if own == path)
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
            CatalogChange::CreateDatabase {
                id,
                name,
                retention,
            } => self.on_create_database(id, name, retention),
            CatalogChange::SetRetention { id, retention } => {
                self.database_mut(id)?.retention = retention;
            }
            CatalogChange::SoftDeleteDatabase { id, name, hard } => {
                self.on_soft_delete_database(id, name, hard)?;
            }
            CatalogChange::PurgeDatabase { id } => self.on_purge_database(id)?,
            CatalogChange::DeleteDatabase { id } => self.on_delete_database(id)?,
            CatalogChange::SoftDeleteTable {
                database,
                id,
                name,
                hard,
            } => self.on_soft_delete_table(database, id, name, hard)?,
            CatalogChange::PurgeTable { database, id } => self.on_purge_table(database, id)?,
            CatalogChange::DeleteTable { database, id } => self.on_delete_table(database, id)?,
            CatalogChange::CreateTable { database, id, name } => {
                self.on_create_table(database, id, name)?;
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
                let since = (sequence, earliest);
                self.on_create_trigger(database, id, definition, since)?;
            }
            CatalogChange::DeleteTrigger { id } => self.on_delete_trigger(id)?,
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

    fn on_create_database(
        &mut self,
        id: DatabaseId,
        name: DatabaseName,
        retention: Option<Duration>,
    ) {
        self.last_database = self.last_database.max(id);
        self.names.insert(id, name.clone());
        let database = Database {
            id,
            name: name.clone(),
            retention,
            deletion: None,
            tables: BTreeMap::new(),
            table_names: BTreeMap::new(),
            triggers: BTreeMap::new(),
        };
        self.databases.insert(name, Arc::new(database));
    }

    fn on_create_table(
        &mut self,
        database: DatabaseId,
        id: TableId,
        name: String,
    ) -> Result<(), CatalogError> {
        self.last_table = self.last_table.max(id);
        let table = Table {
            id,
            name: name.clone(),
            schema: TableSchema::default(),
            deletion: None,
        };
        let database = self.database_mut(database)?;
        database.table_names.insert(id, name.clone());
        database.tables.insert(name, Arc::new(table));
        Ok(())
    }

    fn on_create_trigger(
        &mut self,
        database: DatabaseId,
        id: TriggerId,
        definition: TriggerDefinition,
        (since, earliest): (Sequence, bool),
    ) -> Result<(), CatalogError> {
        self.last_trigger = self.last_trigger.max(id);
        self.trigger_homes.insert(id, database);
        let name = definition.name.clone();
        let cursor = if earliest { Sequence::default() } else { since };
        let trigger = Arc::new(Trigger {
            id,
            definition,
            since,
            progress: Progress::up_to(cursor),
        });
        self.database_mut(database)?.triggers.insert(name, trigger);
        Ok(())
    }

    fn on_delete_trigger(&mut self, id: TriggerId) -> Result<(), CatalogError> {
        let name = self.trigger_mut(id)?.definition.name.clone();
        let home = self
            .trigger_homes
            .remove(&id)
            .ok_or(unknown("trigger", id.0))?;
        self.database_mut(home)?.triggers.remove(&name);
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

/// Whether a table can be made of such columns.
fn check_columns(name: &str, columns: &[(String, ColumnType)]) -> Result<(), CatalogError> {
    let refuse = |text: String| Err(CatalogError::Columns(text));
    if name.is_empty() {
        return refuse("table name cannot be empty".to_owned());
    }
    if columns.len() > COLUMNS_MAX {
        return Err(CatalogError::TooManyColumns);
    }
    let mut seen = HashSet::new();
    for (column, _) in columns {
        if column.is_empty() {
            return refuse("the name of a tag or field cannot be empty".to_owned());
        }
        if column == TIME_COLUMN {
            return refuse(format!(
                "{TIME_COLUMN:?} cannot be a tag or field: every table has that column"
            ));
        }
        if !seen.insert(column) {
            return refuse(format!("the column {column:?} is named twice"));
        }
    }
    Ok(())
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
            catalog.create_database("db", None),
            Err(CatalogError::Exists { .. })
        ));
        let id = DatabaseId(1);
        let delete = CatalogChange::DeleteDatabase { id };
        catalog.apply(Sequence(2), delete).unwrap();
        let CatalogChange::CreateDatabase { id, .. } = catalog.create_database("db", None).unwrap()
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
        let create = catalog.create_database(name, None).unwrap();
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
