//! How points become columns: collects the points of one table into a record batch.

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
        StringDictionaryBuilder, TimestampNanosecondArray, UInt64Builder,
    },
    datatypes::{Int32Type, Schema},
};

use crate::{
    line_protocol::{Point, Value},
    schema::{ColumnType, TIME_COLUMN},
};

/// Collects points of one table; every column keeps the type of its first value.
#[derive(Debug, Default)]
pub struct RowsBuilder {
    columns: Vec<(String, ColumnBuilder)>,
    by_name: HashMap<String, usize>,
    times: Vec<i64>,
}

impl RowsBuilder {
    /// Appends a point whose values fit the columns so far (the caller has
    /// checked it against the table's schema).
    pub fn push(&mut self, point: &Point<'_>) {
        let row = self.times.len();
        for (name, value) in point.values() {
            let index = self.by_name.get(name).copied().unwrap_or_else(|| {
                self.columns
                    .push((name.to_owned(), ColumnBuilder::new(value.column_type())));
                self.by_name.insert(name.to_owned(), self.columns.len() - 1);
                self.columns.len() - 1
            });
            self.columns[index].1.append(row, &value);
        }
        self.times.push(point.time_ns);
    }

    /// How many values, nulls included, the columns would have with this point too.
    pub fn cells_with(&self, point: &Point<'_>) -> usize {
        let new = point
            .values()
            .filter(|(name, _)| !self.by_name.contains_key(*name))
            .count();
        (self.columns.len() + new) * (self.times.len() + 1)
    }

    /// The number of points so far.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// The points as columns: tags, then fields, each in the order they first
    /// came, then time. A value that a point did not have is null.
    pub fn finish(self) -> RecordBatch {
        let rows = self.times.len();
        let (tags, fields): (Vec<_>, Vec<_>) = self
            .columns
            .into_iter()
            .partition(|(_, column)| column.column_type() == ColumnType::Tag);
        let mut schema = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (name, column) in tags.into_iter().chain(fields) {
            schema.push(column.column_type().field(&name));
            arrays.push(column.finish(rows));
        }
        schema.push(ColumnType::Time.field(TIME_COLUMN));
        arrays.push(Arc::new(TimestampNanosecondArray::from(self.times)));
        RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays)
            .expect("every column was filled to the same length with its own type")
    }
}

enum ColumnBuilder {
    Tag(StringDictionaryBuilder<Int32Type>),
    Int64(Int64Builder),
    Uint64(UInt64Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Bool(BooleanBuilder),
}

impl fmt::Debug for ColumnBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column_type().fmt(f)
    }
}

/// Does the same with whichever builder it is.
macro_rules! each {
    ($self:expr, $builder:ident => $body:expr) => {
        match $self {
            ColumnBuilder::Tag($builder) => $body,
            ColumnBuilder::Int64($builder) => $body,
            ColumnBuilder::Uint64($builder) => $body,
            ColumnBuilder::Float64($builder) => $body,
            ColumnBuilder::Utf8($builder) => $body,
            ColumnBuilder::Bool($builder) => $body,
        }
    };
}

impl ColumnBuilder {
    fn new(column: ColumnType) -> Self {
        match column {
            ColumnType::Tag => Self::Tag(StringDictionaryBuilder::new()),
            ColumnType::Int64 | ColumnType::Time => Self::Int64(Int64Builder::new()),
            ColumnType::Uint64 => Self::Uint64(UInt64Builder::new()),
            ColumnType::Float64 => Self::Float64(Float64Builder::new()),
            ColumnType::Utf8 => Self::Utf8(StringBuilder::new()),
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
        }
    }

    fn column_type(&self) -> ColumnType {
        match self {
            Self::Tag(_) => ColumnType::Tag,
            Self::Int64(_) => ColumnType::Int64,
            Self::Uint64(_) => ColumnType::Uint64,
            Self::Float64(_) => ColumnType::Float64,
            Self::Utf8(_) => ColumnType::Utf8,
            Self::Bool(_) => ColumnType::Bool,
        }
    }

    fn pad(&mut self, rows: usize) {
        use arrow::array::ArrayBuilder;
        each!(self, builder => while builder.len() < rows { builder.append_null(); });
    }

    fn append(&mut self, row: usize, value: &Value<'_>) {
        self.pad(row);
        match (self, value) {
            (Self::Tag(builder), Value::Tag(value)) => builder.append_value(value),
            (Self::Int64(builder), Value::Int64(value)) => builder.append_value(*value),
            (Self::Uint64(builder), Value::Uint64(value)) => builder.append_value(*value),
            (Self::Float64(builder), Value::Float64(value)) => builder.append_value(*value),
            (Self::Utf8(builder), Value::Utf8(value)) => builder.append_value(value),
            (Self::Bool(builder), Value::Bool(value)) => builder.append_value(*value),
            (column, value) => unreachable!(
                "a {value:?} for a column of type {:?} passed the schema check",
                column.column_type()
            ),
        }
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        each!(&mut self, builder => Arc::new(builder.finish()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::{
        clock::Timestamp,
        line_protocol::{Precision, parse},
    };

    #[test]
    fn sparse_points_become_full_columns() {
        let mut rows = RowsBuilder::default();
        let text = "m,host=a n=1i 1\nm f=0.5 2\nm,host=b,dc=x n=3i,s=\"t\",u=4u,b=true 3";
        for point in parse(text, Precision::Nanosecond, Timestamp(0)) {
            rows.push(&point.unwrap());
        }
        let batch = rows.finish();
        let names: Vec<_> = batch
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["host", "dc", "n", "f", "s", "u", "b", "time"]);
        assert_eq!(batch.num_rows(), 3);
        assert_eq!(batch.column(0).null_count(), 1);
        assert_eq!(batch.column(6).null_count(), 2);
        assert_eq!(batch.column(7).null_count(), 0);
    }
}
