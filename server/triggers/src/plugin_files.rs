//! `system.plugin_files`: the files behind the triggers of all databases.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use async_trait::async_trait;
use outrigger_catalog::Catalog;
use outrigger_query::{LiveTable, LiveView};
use tokio::task::spawn_blocking;

use crate::{listing::PluginFile, source::PluginDirectory};

/// The table.
#[derive(Debug)]
pub(crate) struct PluginFilesTable(pub(crate) PluginDirectory);

#[async_trait]
impl LiveTable for PluginFilesTable {
    fn name(&self) -> &'static str {
        "plugin_files"
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn is_internal(&self) -> bool {
        true
    }

    async fn rows(&self, view: &LiveView) -> Result<RecordBatch, ArrowError> {
        let (catalog, directory) = (view.catalog.clone(), self.0.clone());
        spawn_blocking(move || rows(&catalog, &directory))
            .await
            .unwrap_or_else(|panicked| Err(ArrowError::ExternalError(Box::new(panicked))))
    }
}

fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![
        text("plugin_name"),
        text("file_name"),
        text("file_path"),
        number("size_bytes"),
        number("last_modified"),
    ]))
}

/// One row per file and trigger. The column `plugin_name` has the trigger's name, as
/// existing clients expect.
fn rows(catalog: &Catalog, directory: &PluginDirectory) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<(&str, PluginFile)> = catalog
        .triggers()
        .flat_map(|(_, trigger)| {
            let definition = &trigger.definition;
            let files = directory.files(&definition.plugin).into_iter();
            files.map(|file| (definition.name.as_str(), file))
        })
        .collect();
    let text = |column: fn(&(&str, PluginFile)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(column)))
    };
    let number = |column: fn(&(&str, PluginFile)) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(column)))
    };
    let columns = vec![
        text(|(trigger, _)| (*trigger).to_owned()),
        text(|(_, file)| file.name.clone()),
        text(|(_, file)| file.path.clone()),
        number(|(_, file)| file.bytes),
        number(|(_, file)| file.modified_ms),
    ];
    RecordBatch::try_new(schema(), columns)
}
