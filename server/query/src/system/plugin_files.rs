//! `system.plugin_files`: the files behind the triggers of all databases.
//!
//! Where they lie is known above this crate, so the table asks through a trait.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use outrigger_catalog::Catalog;

/// A file of a plugin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginFile {
    /// Its name; in a directory, its path there.
    pub name: String,
    /// Its absolute path.
    pub path: String,
    /// Its size.
    pub bytes: i64,
    /// When it was last modified, in milliseconds since the epoch.
    pub modified_ms: i64,
}

/// Knows the files of plugins.
pub trait PluginFiles: fmt::Debug + Send + Sync {
    /// The files of a plugin as it is now. May take time.
    fn files(&self, plugin: &str) -> Vec<PluginFile>;
}

pub(super) fn schema() -> SchemaRef {
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
pub(super) fn rows(catalog: &Catalog, files: &dyn PluginFiles) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<(&str, PluginFile)> = catalog
        .triggers()
        .flat_map(|(_, trigger)| {
            let definition = &trigger.definition;
            let files = files.files(&definition.plugin).into_iter();
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
