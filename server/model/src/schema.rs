//! Which columns a table has, and how they look in Arrow.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// The name of every table's time column; reserved.
pub const TIME_COLUMN: &str = "time";

/// The most columns of a table, time not counted.
pub const COLUMNS_MAX: usize = 500;

/// What a column holds. Fixed by the first write that names the column.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// A tag: text, part of a point's identity.
    Tag,
    /// A signed integer field.
    Int64,
    /// An unsigned integer field.
    Uint64,
    /// A floating-point field.
    Float64,
    /// A text field.
    Utf8,
    /// A boolean field.
    Bool,
    /// The point's time.
    Time,
}

impl ColumnType {
    /// The Arrow type of such a column.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Tag => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::Int64 => DataType::Int64,
            Self::Uint64 => DataType::UInt64,
            Self::Float64 => DataType::Float64,
            Self::Utf8 => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
        }
    }

    /// The name clients know the type by, as in a schema's metadata and in messages.
    pub fn iox_name(self) -> &'static str {
        match self {
            Self::Tag => "iox::column_type::tag",
            Self::Int64 => "iox::column_type::field::integer",
            Self::Uint64 => "iox::column_type::field::uinteger",
            Self::Float64 => "iox::column_type::field::float",
            Self::Utf8 => "iox::column_type::field::string",
            Self::Bool => "iox::column_type::field::boolean",
            Self::Time => "iox::column_type::timestamp",
        }
    }

    /// The Arrow field of a column of this type.
    pub fn field(self, name: &str) -> Field {
        let metadata =
            HashMap::from([("iox::column::type".to_owned(), self.iox_name().to_owned())]);
        Field::new(name, self.arrow(), self != Self::Time).with_metadata(metadata)
    }
}

/// The columns of a table by name, the time column always among them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TableSchema {
    columns: BTreeMap<String, ColumnType>,
}

impl Default for TableSchema {
    fn default() -> Self {
        Self {
            columns: BTreeMap::from([(TIME_COLUMN.to_owned(), ColumnType::Time)]),
        }
    }
}

impl TableSchema {
    /// The type of a column; `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<ColumnType> {
        self.columns.get(name).copied()
    }

    /// Adds a column; an existing one keeps its type.
    pub fn add(&mut self, name: &str, column: ColumnType) {
        if !self.columns.contains_key(name) {
            self.columns.insert(name.to_owned(), column);
        }
    }

    /// Every column with its type, in alphabetical order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, ColumnType)> {
        self.columns
            .iter()
            .map(|(name, column)| (name.as_str(), *column))
    }

    /// The names of the tags, in alphabetical order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.columns()
            .filter(|(_, column)| *column == ColumnType::Tag)
            .map(|(name, _)| name)
    }

    /// The table as queries see it: all columns in alphabetical order.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<_> = self
            .columns()
            .map(|(name, column)| column.field(name))
            .collect();
        Arc::new(Schema::new(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_alphabetical_with_time_in_its_place() {
        let mut schema = TableSchema::default();
        schema.add("zone", ColumnType::Tag);
        schema.add("host", ColumnType::Tag);
        schema.add("load", ColumnType::Float64);
        schema.add("load", ColumnType::Int64);
        let names: Vec<_> = schema.columns().map(|(name, _)| name).collect();
        assert_eq!(names, ["host", "load", "time", "zone"]);
        assert_eq!(schema.column("load"), Some(ColumnType::Float64));
        assert_eq!(schema.arrow().fields().len(), 4);
    }
}
