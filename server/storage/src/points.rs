//! How sorted rows become points: rows with the same tags and time stand together, and per
//! field the last value that is not null wins.

use std::ops::Range;

use arrow::{
    array::{Array, RecordBatch, UInt32Array},
    compute::{concat_batches, take, take_record_batch},
    datatypes::{DataType, Schema},
    error::ArrowError,
    row::{RowConverter, Rows, SortField},
};
use outrigger_model::schema::TIME_COLUMN;

/// The columns that say which point a row is, in the order by which rows are sorted: tags by
/// name, then time. Tags that a part of the rows does not have are null there, so rows that
/// were sorted without them are sorted with them too.
pub fn key_columns(schema: &Schema) -> Vec<usize> {
    let fields = schema.fields();
    let mut tags: Vec<usize> = (0..fields.len())
        .filter(|&column| matches!(fields[column].data_type(), DataType::Dictionary(..)))
        .collect();
    tags.sort_by_key(|&column| fields[column].name());
    let time = (0..fields.len()).filter(|&column| fields[column].name() == TIME_COLUMN);
    tags.extend(time);
    tags
}

/// Sorts rows by tags and time.
pub fn sort_points(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut keys = Keys::new(batch.schema_ref())?;
    let rows = keys.of(batch)?;
    let mut order: Vec<u32> = (0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX)).collect();
    // Stable: of the same point, the later row stays the later.
    order.sort_by(|&one, &two| rows.row(one as usize).cmp(&rows.row(two as usize)));
    take_record_batch(batch, &UInt32Array::from(order))
}

/// Makes comparable keys of rows.
#[derive(Debug)]
pub(crate) struct Keys {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl Keys {
    pub(crate) fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let columns = key_columns(schema);
        let fields = columns.iter().map(|&column| {
            let field = schema.field(column);
            SortField::new(field.data_type().clone())
        });
        let converter = RowConverter::new(fields.collect())?;
        Ok(Self { columns, converter })
    }

    pub(crate) fn of(&mut self, batch: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|&column| batch.column(column).clone())
            .collect();
        self.converter.convert_columns(&columns)
    }
}

/// Joins the rows of each point in a sorted stream. Of the same point, the rows must come in
/// the order in which they were written.
#[derive(Debug)]
pub struct PointMerger {
    keys: Keys,
    /// The rows of the last point: more may follow.
    held: Option<RecordBatch>,
}

impl PointMerger {
    /// For batches with this schema, which must have all tags of the table, and the time.
    pub fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let keys = Keys::new(schema)?;
        Ok(Self { keys, held: None })
    }

    /// Takes the next rows; returns the points that are complete.
    pub fn push(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let all = match self.held.take() {
            None => batch,
            Some(held) => concat_batches(&batch.schema(), [&held, &batch])?,
        };
        let rows = self.keys.of(&all)?;
        let mut starts = vec![0];
        starts.extend((1..all.num_rows()).filter(|&row| rows.row(row) != rows.row(row - 1)));
        let last = starts.pop().unwrap_or(0);
        self.held = Some(all.slice(last, all.num_rows() - last));
        if last == 0 {
            return Ok(None);
        }
        join(&all.slice(0, last), &starts).map(Some)
    }

    /// There are no more rows; returns the last point.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.held.take().map(|held| join(&held, &[0])).transpose()
    }
}

/// Makes one row of each group of rows; the groups begin at `starts`.
fn join(batch: &RecordBatch, starts: &[usize]) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    if starts.len() == rows {
        return Ok(batch.clone());
    }
    let ends = starts.iter().skip(1).copied().chain([rows]);
    let groups: Vec<Range<usize>> = starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| start..end)
        .collect();
    let columns = batch.columns().iter().map(|column| {
        let last = |group: &Range<usize>| {
            let mut valid = group.clone().rev().filter(|&row| column.is_valid(row));
            valid.next().and_then(|row| u32::try_from(row).ok())
        };
        let last: UInt32Array = groups.iter().map(last).collect();
        take(column, &last, None)
    });
    RecordBatch::try_new(batch.schema(), columns.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use arrow::{
        array::{
            ArrayRef, AsArray, DictionaryArray, Float64Array, Int64Array, TimestampNanosecondArray,
        },
        datatypes::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType},
    };
    use outrigger_model::schema::{ColumnType, TableSchema};
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// A point's tags and time; its fields.
    type Key = (Option<String>, Option<String>, i64);
    type Fields = (Option<f64>, Option<i64>);

    fn schema() -> arrow::datatypes::SchemaRef {
        let mut schema = TableSchema::default();
        for (name, column) in [
            ("f", ColumnType::Float64),
            ("n", ColumnType::Int64),
            ("s", ColumnType::Tag),
            ("t", ColumnType::Tag),
        ] {
            schema.add(name, column);
        }
        schema.arrow()
    }

    fn batch(rows: &[(Key, Fields)]) -> RecordBatch {
        let tag = |value: fn(&Key) -> Option<&str>| -> ArrayRef {
            let values = rows.iter().map(|(key, _)| value(key));
            Arc::new(values.collect::<DictionaryArray<Int32Type>>())
        };
        let times = rows.iter().map(|((_, _, time), _)| *time);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|(_, (f, _))| *f).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|(_, (_, n))| *n).collect::<Int64Array>()),
            tag(|(s, _, _)| s.as_deref()),
            tag(|(_, t, _)| t.as_deref()),
            Arc::new(TimestampNanosecondArray::from_iter_values(times)),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn rows_of(batch: &RecordBatch) -> Vec<(Key, Fields)> {
        let text = |column: usize, row: usize| {
            let tags = batch.column(column).as_dictionary::<Int32Type>();
            let values = tags.values().as_string::<i32>();
            tags.key(row).map(|key| values.value(key).to_owned())
        };
        let f = batch.column(0).as_primitive::<Float64Type>();
        let n = batch.column(1).as_primitive::<Int64Type>();
        let times = batch.column(4).as_primitive::<TimestampNanosecondType>();
        (0..batch.num_rows())
            .map(|row| {
                let f = f.is_valid(row).then(|| f.value(row));
                let n = n.is_valid(row).then(|| n.value(row));
                ((text(2, row), text(3, row), times.value(row)), (f, n))
            })
            .collect()
    }

    fn random_rows(random: &mut StdRng, count: usize) -> Vec<(Key, Fields)> {
        let tag = |random: &mut StdRng| match random.random_range(0..4) {
            0 => None,
            value => Some(format!("v{value}")),
        };
        (0..count)
            .map(|_| {
                let key = (tag(random), tag(random), random.random_range(0..3));
                let f = random.random_bool(0.5).then(|| random.random());
                let n = random.random_bool(0.5).then(|| random.random());
                (key, (f, n))
            })
            .collect()
    }

    /// Several sources, sorted each, merged, cut into batches at random: against a plain map.
    #[test]
    fn the_last_value_of_each_field_wins_whatever_the_batches() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut model, mut all) = (BTreeMap::<Key, Fields>::new(), Vec::new());
            for _ in 0..random.random_range(1..5) {
                let count = random.random_range(0..40);
                let rows = random_rows(&mut random, count);
                for (key, (f, n)) in &rows {
                    let point = model.entry(key.clone()).or_default();
                    *point = (f.or(point.0), n.or(point.1));
                }
                all.extend(rows);
            }
            let sorted = sort_points(&batch(&all)).unwrap();
            let mut merger = PointMerger::new(&schema()).unwrap();
            let (mut merged, mut from) = (Vec::new(), 0);
            while from < sorted.num_rows() {
                let length = random.random_range(1..9).min(sorted.num_rows() - from);
                let points = merger.push(sorted.slice(from, length)).unwrap();
                merged.extend(points.iter().flat_map(rows_of));
                from += length;
            }
            merged.extend(merger.finish().unwrap().iter().flat_map(rows_of));
            let expected: Vec<_> = model.into_iter().collect();
            assert_eq!(merged, expected, "seed {seed}");
        }
    }
}
