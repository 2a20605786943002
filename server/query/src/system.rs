//! What the tables of the schema `system` show.

mod catalog;
mod files;
mod journals;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{SchemaProvider, TableProvider},
    error::Result,
};
use outrigger_catalog::{Database, trigger::Trigger};
use outrigger_model::names::INTERNAL_DATABASE;
use outrigger_storage::{Snapshot, journal::JournalTable};

use crate::{
    live::{LiveTable, LiveView},
    rows::RowsTable,
};

const LOGS: &str = "processing_engine_logs";
const TRIGGERS: &str = "processing_engine_triggers";
const ARGUMENTS: &str = "processing_engine_trigger_arguments";
const INVOCATIONS: &str = "plugin_invocations";
const FILES: &str = "parquet_files";
const DATABASES: &str = "databases";
const TABLES: &str = "tables";

/// The system tables of one database. Logs are the server's, the same in every database;
/// invocations are a database's own, and all of them are in the server's.
#[derive(Debug)]
pub(crate) struct SystemTables {
    snapshot: Arc<Snapshot>,
    // None for the server's own database, which has no triggers.
    database: Option<Arc<Database>>,
    is_internal: bool,
    live: Arc<[Arc<dyn LiveTable>]>,
}

impl SystemTables {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        database: &str,
        live: Arc<[Arc<dyn LiveTable>]>,
    ) -> Self {
        let is_internal = database == INTERNAL_DATABASE;
        let database = snapshot.catalog().database(database).ok().cloned();
        Self {
            snapshot,
            database,
            is_internal,
            live,
        }
    }

    /// The live tables that the database has.
    fn live(&self) -> impl Iterator<Item = &Arc<dyn LiveTable>> {
        let all = self.live.iter();
        all.filter(|table| self.is_internal || !table.is_internal())
    }

    /// The tables that the database has.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        let live = self.live().map(|table| table.name());
        let internal = [DATABASES, TABLES].into_iter();
        [LOGS, ARGUMENTS, TRIGGERS, INVOCATIONS, FILES]
            .into_iter()
            .chain(internal.filter(|_| self.is_internal))
            .chain(live)
    }

    fn make(&self, name: &str) -> Option<RowsTable> {
        match name {
            LOGS => Some(self.journal(JournalTable::PluginLogs, None)),
            INVOCATIONS => {
                let own = self
                    .database
                    .as_ref()
                    .map(|database| database.name.to_string());
                Some(self.journal(JournalTable::PluginInvocations, own))
            }
            FILES => Some(self.of_snapshot(files::schema(), files::rows)),
            DATABASES if self.is_internal => {
                Some(self.of_snapshot(catalog::database_schema(), catalog::databases))
            }
            TABLES if self.is_internal => {
                Some(self.of_snapshot(catalog::table_schema(), catalog::tables))
            }
            TRIGGERS => Some(self.about_triggers(trigger_schema(), trigger_rows)),
            ARGUMENTS => Some(self.about_triggers(argument_schema(), argument_rows)),
            _ => {
                let table = self.live().find(|table| table.name() == name)?;
                Some(RowsTable::live(table.clone(), self.view()))
            }
        }
    }

    fn of_snapshot(
        &self,
        schema: SchemaRef,
        rows: fn(&Snapshot) -> Result<RecordBatch, ArrowError>,
    ) -> RowsTable {
        let snapshot = self.snapshot.clone();
        RowsTable::new(schema, move || Ok(vec![rows(&snapshot)?]))
    }

    fn journal(&self, table: JournalTable, database: Option<String>) -> RowsTable {
        let snapshot = self.snapshot.clone();
        RowsTable::new(table.schema(), move || {
            let rows = journals::rows(&snapshot, table, database.as_deref())?;
            Ok(vec![rows])
        })
    }

    fn view(&self) -> LiveView {
        LiveView {
            catalog: self.snapshot.catalog().clone(),
            database: self.database.as_ref().map(|database| database.id),
        }
    }

    fn about_triggers(
        &self,
        schema: SchemaRef,
        columns: fn(&[&Trigger]) -> Vec<ArrayRef>,
    ) -> RowsTable {
        let database = self.database.clone();
        RowsTable::new(schema.clone(), move || {
            let triggers = database.iter().flat_map(|database| &database.triggers);
            let triggers: Vec<&Trigger> = triggers.map(|(_, trigger)| trigger.as_ref()).collect();
            Ok(vec![RecordBatch::try_new(
                schema.clone(),
                columns(&triggers),
            )?])
        })
    }
}

#[async_trait]
impl SchemaProvider for SystemTables {
    fn table_names(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = self.make(name);
        Ok(table.map(|table| Arc::new(table) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }
}

fn trigger_schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("trigger_name"),
        text("plugin_filename"),
        text("trigger_specification"),
        Field::new("disabled", DataType::Boolean, false),
        text("error_behavior"),
    ]))
}

fn trigger_rows(triggers: &[&Trigger]) -> Vec<ArrayRef> {
    let definitions = || triggers.iter().map(|trigger| &trigger.definition);
    let specifications: Vec<String> = definitions()
        .map(|definition| {
            serde_json::to_string(&definition.event).expect("names are always valid JSON")
        })
        .collect();
    let disabled: Vec<bool> = definitions()
        .map(|definition| definition.disabled)
        .collect();
    vec![
        text_column(definitions().map(|definition| definition.name.as_str())),
        text_column(definitions().map(|definition| definition.plugin.as_str())),
        text_column(specifications.iter().map(String::as_str)),
        Arc::new(BooleanArray::from(disabled)),
        text_column(definitions().map(|definition| definition.error_behavior.as_str())),
    ]
}

fn argument_schema() -> SchemaRef {
    let columns = ["trigger_name", "argument_key", "argument_value"];
    let field = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(columns.map(field).to_vec()))
}

fn argument_rows(triggers: &[&Trigger]) -> Vec<ArrayRef> {
    let rows: Vec<[&str; 3]> = triggers
        .iter()
        .flat_map(|trigger| {
            let definition = &trigger.definition;
            let arguments = definition.arguments.iter().flatten();
            arguments.map(|(key, value)| [definition.name.as_str(), key.as_str(), value.as_str()])
        })
        .collect();
    let column = |index: usize| text_column(rows.iter().map(|row| row[index]));
    (0..3).map(column).collect()
}

fn text_column<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}
