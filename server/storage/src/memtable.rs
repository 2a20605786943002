//! The rows of one table that are in memory.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{
        Array, ArrayData, ArrayRef, DictionaryArray, RecordBatch, StringArray,
        TimestampNanosecondArray,
    },
    compute::concat_batches,
    datatypes::{DataType, Int32Type, SchemaRef},
    error::ArrowError,
};
use outrigger_model::schema::TIME_COLUMN;

use crate::merge::{conform, last_write_wins, union_schema};

/// Small chunks are joined up to this many rows, and bytes: text columns have 32-bit offsets.
const CHUNK_ROWS_MAX: usize = 64 * 1024;
const CHUNK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Rows in the order they were written.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    chunks: Arc<Vec<RecordBatch>>,
    // The first so many chunks are about to become files, and don't change any more.
    frozen: usize,
    // How many rows there ever were.
    appended: u64,
    // Hashes of (tags, time) of every row: tells when two rows may be the same point.
    keys: HashSet<u64>,
    may_overlap: bool,
    merged: Arc<OnceLock<RecordBatch>>,
}

/// The rows as they were at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    chunks: Arc<Vec<RecordBatch>>,
    appended: u64,
    may_overlap: bool,
    merged: Arc<OnceLock<RecordBatch>>,
}

impl Memtable {
    /// Appends points, which may replace fields of earlier ones.
    pub(crate) fn insert_points(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        for key in point_keys(&batch) {
            self.may_overlap |= !self.keys.insert(key);
        }
        self.append(batch)
    }

    /// Appends rows that are never merged.
    pub(crate) fn append(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        self.merged = Arc::default();
        self.appended += batch.num_rows() as u64;
        let chunks = Arc::make_mut(&mut self.chunks);
        chunks.push(batch);
        // As in a log-structured merge tree: chunks grow geometrically, so that
        // many tiny writes don't make many tiny chunks.
        while let [.., previous, last] = &chunks[self.frozen..] {
            let rows = previous.num_rows() + last.num_rows();
            let bytes = slice_bytes(previous) + slice_bytes(last);
            let grown = previous.num_rows() > 2 * last.num_rows();
            if grown || rows > CHUNK_ROWS_MAX || bytes > CHUNK_BYTES_MAX {
                break;
            }
            let schema = union_schema([previous, last].into_iter());
            let joined = concat_batches(
                &schema,
                &[conform(previous, &schema)?, conform(last, &schema)?],
            )?;
            chunks.truncate(chunks.len() - 2);
            chunks.push(joined);
        }
        Ok(())
    }

    /// Drops the oldest chunks as long as at least `rows_max` rows are left.
    pub(crate) fn forget_beyond(&mut self, rows_max: usize) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut rows: usize = chunks.iter().map(RecordBatch::num_rows).sum();
        let mut dropped = 0;
        for chunk in chunks.iter() {
            rows -= chunk.num_rows();
            if rows < rows_max {
                break;
            }
            dropped += 1;
        }
        chunks.drain(..dropped);
    }

    /// All rows that there are are about to become files; they stay until that is done.
    pub(crate) fn freeze(&mut self) -> Rows {
        self.frozen = self.chunks.len();
        self.rows()
    }

    /// The frozen rows are in files: forgets them.
    pub(crate) fn forget_frozen(&mut self) {
        let rest: Vec<RecordBatch> = self.chunks[self.frozen..].to_vec();
        self.frozen = 0;
        self.merged = Arc::default();
        self.keys = HashSet::new();
        self.may_overlap = false;
        for key in rest.iter().flat_map(point_keys) {
            self.may_overlap |= !self.keys.insert(key);
        }
        self.chunks = Arc::new(rest);
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many bytes of memory it takes beside its rows.
    pub(crate) fn index_bytes(&self) -> usize {
        self.keys.capacity() * (size_of::<u64>() + 1)
    }

    pub(crate) fn rows(&self) -> Rows {
        Rows {
            chunks: self.chunks.clone(),
            appended: self.appended,
            may_overlap: self.may_overlap,
            merged: self.merged.clone(),
        }
    }
}

impl Rows {
    /// The rows as they were written, in parts.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &RecordBatch> {
        self.chunks.iter()
    }

    /// Which rows these are, of all that there ever were, unless points were merged.
    pub(crate) fn numbers(&self) -> Range<u64> {
        let rows: usize = self.chunks().map(RecordBatch::num_rows).sum();
        self.appended.saturating_sub(rows as u64)..self.appended
    }

    /// The rows from this number on, as they were written, in parts.
    pub(crate) fn since(&self, first: u64) -> impl Iterator<Item = RecordBatch> {
        let mut number = self.numbers().start;
        self.chunks().filter_map(move |chunk| {
            let rows = chunk.num_rows();
            let skipped = usize::try_from(first.saturating_sub(number)).unwrap_or(rows);
            number += rows as u64;
            (skipped < rows).then(|| chunk.slice(skipped, rows - skipped))
        })
    }

    /// How many bytes of memory they take.
    pub(crate) fn held_bytes(&self) -> usize {
        let chunks = self.chunks.iter().chain(self.merged.get());
        chunks.map(held_bytes).sum()
    }

    /// The rows with the columns of `schema`, each point once.
    pub(crate) fn batches(&self, schema: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
        let conformed = self.chunks.iter().map(|chunk| conform(chunk, schema));
        if !self.may_overlap {
            return conformed.collect();
        }
        if let Some(merged) = self.merged.get() {
            return Ok(vec![conform(merged, schema)?]);
        }
        let merged = last_write_wins(schema, &conformed.collect::<Result<Vec<_>, _>>()?)?;
        Ok(vec![self.merged.get_or_init(|| merged).clone()])
    }
}

/// How many bytes the values of a batch take, without what its buffers hold besides.
pub(crate) fn slice_bytes(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    batch.columns().iter().map(bytes).sum()
}

/// What an array and a batch take beside their values: found by measuring what thousands of
/// batches of one row take, for which it is most of it.
const COLUMN_BYTES: usize = 512;
const BATCH_BYTES: usize = 512;

/// How many bytes of memory a batch takes, if nobody else has its buffers.
pub(crate) fn held_bytes(batch: &RecordBatch) -> usize {
    // Columns that were read together share one allocation.
    let mut allocations = BTreeMap::new();
    for column in batch.columns() {
        add_allocations(&column.to_data(), &mut allocations);
    }
    let values: usize = allocations.values().sum();
    values + BATCH_BYTES + batch.num_columns() * COLUMN_BYTES
}

fn add_allocations(data: &ArrayData, allocations: &mut BTreeMap<usize, usize>) {
    let nulls = data.nulls().map(arrow::buffer::NullBuffer::buffer);
    for buffer in data.buffers().iter().chain(nulls) {
        allocations.insert(buffer.data_ptr().as_ptr().addr(), buffer.capacity());
    }
    for child in data.child_data() {
        add_allocations(child, allocations);
    }
}

/// A hash of the tags and time of every row. Tags that a row does not have
/// count nothing, so the same point has the same hash in batches with different columns.
fn point_keys(batch: &RecordBatch) -> Vec<u64> {
    let mut keys = vec![0u64; batch.num_rows()];
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if let Some(tags) = column.as_any().downcast_ref::<DictionaryArray<Int32Type>>() {
            let Some(values) = tags.values().as_any().downcast_ref::<StringArray>() else {
                continue;
            };
            let hashes: Vec<u64> = values
                .iter()
                .map(|value| hash(&(field.name(), value)))
                .collect();
            for (row, key) in tags.keys_iter().enumerate() {
                keys[row] ^= key.map_or(0, |key| hashes[key]);
            }
        } else if field.name() == TIME_COLUMN
            && matches!(field.data_type(), DataType::Timestamp(..))
            && let Some(times) = column.as_any().downcast_ref::<TimestampNanosecondArray>()
        {
            for (row, time) in times.values().iter().enumerate() {
                keys[row] = keys[row].wrapping_add(hash(time));
            }
        }
    }
    keys
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use outrigger_model::{
        clock::Timestamp,
        columns::RowsBuilder,
        line_protocol::{Precision, parse},
        schema::{ColumnType, TableSchema},
    };

    use super::*;

    #[test]
    fn the_last_value_of_each_field_wins() {
        let mut table = Memtable::default();
        insert(&mut table, "m,t=a f=1,g=1 1\nm,t=b f=2 1");
        insert(&mut table, "m,t=a f=3 1\nm f=9 1");
        let shown = show(&table);
        let expected = [
            "+-----+-----+---+-------------------------------+",
            "| f   | g   | t | time                          |",
            "+-----+-----+---+-------------------------------+",
            "| 3.0 | 1.0 | a | 1970-01-01T00:00:00.000000001 |",
            "| 2.0 |     | b | 1970-01-01T00:00:00.000000001 |",
            "| 9.0 |     |   | 1970-01-01T00:00:00.000000001 |",
            "+-----+-----+---+-------------------------------+",
        ];
        assert_eq!(shown, expected.join("\n"));
    }

    #[test]
    fn frozen_rows_stay_until_they_are_forgotten() {
        let mut table = Memtable::default();
        insert(&mut table, "m,t=a f=1,g=1 1");
        insert(&mut table, "m,t=a g=2 1");
        let frozen = table.freeze();
        insert(&mut table, "m,t=a f=3 1\nm,t=b f=4 1");
        insert(&mut table, "m,t=c f=5 1");
        let rows = |rows: &Rows| {
            let batches = rows.batches(&schema()).unwrap();
            batches.iter().map(RecordBatch::num_rows).sum::<usize>()
        };
        assert_eq!((rows(&frozen), rows(&table.rows())), (1, 3));
        table.forget_frozen();
        assert!(!table.may_overlap && table.keys.len() == 3);
        assert_eq!((rows(&frozen), rows(&table.rows())), (1, 3));
        insert(&mut table, "m,t=c f=6 1");
        assert!(table.may_overlap);
        table.freeze();
        table.forget_frozen();
        assert!(table.is_empty() && table.index_bytes() == 0);
    }

    #[test]
    fn rows_have_numbers() {
        let mut table = Memtable::default();
        for time in 0..100 {
            insert(&mut table, &format!("m f=1 {time}"));
        }
        table.forget_beyond(10);
        let rows = table.rows();
        let numbers = rows.numbers();
        assert!(numbers.start > 0 && numbers.end == 100, "{numbers:?}");
        for first in 0..=100 {
            let count: usize = rows.since(first).map(|batch| batch.num_rows()).sum();
            assert_eq!(count as u64, 100 - first.max(numbers.start), "{first}");
        }
        let last = rows.since(99).next().unwrap();
        assert_eq!(
            last,
            rows.chunks().last().unwrap().slice(last_row(&rows), 1)
        );
    }

    fn last_row(rows: &Rows) -> usize {
        rows.chunks().last().unwrap().num_rows() - 1
    }

    #[test]
    fn many_tiny_writes_make_few_chunks() {
        let mut table = Memtable::default();
        for time in 0..1000 {
            insert(&mut table, &format!("m,t=t{} f=1 {time}", time % 7));
        }
        assert!(!table.may_overlap);
        assert!(table.chunks.len() < 12, "{} chunks", table.chunks.len());
        let rows: usize = table.chunks.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 1000);
    }

    #[test]
    fn what_a_batch_takes_is_more_than_its_values() {
        let mut table = Memtable::default();
        insert(&mut table, "m,t=a f=1,g=2 1");
        let batch = &table.chunks[0];
        assert!(held_bytes(batch) > 4 * COLUMN_BYTES + slice_bytes(batch));
        // A part of it keeps all of it.
        let lines: Vec<_> = (0..10_000).map(|time| format!("m f=1 {time}")).collect();
        let mut large = Memtable::default();
        insert(&mut large, &lines.join("\n"));
        let part = large.chunks[0].slice(0, 1);
        assert!(held_bytes(&part) > 100_000 && slice_bytes(&part) < 1_000);
        assert!(large.rows().held_bytes() > 10_000 * 8 * 2);
        assert!(large.index_bytes() > 10_000 * 8);
    }

    #[test]
    fn a_view_does_not_change_under_its_reader() {
        let mut table = Memtable::default();
        insert(&mut table, "m f=1 1");
        let before = table.rows();
        insert(&mut table, "m f=2 1");
        let rows = before.batches(&schema()).unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    }

    fn schema() -> SchemaRef {
        let mut schema = TableSchema::default();
        schema.add("t", ColumnType::Tag);
        schema.add("f", ColumnType::Float64);
        schema.add("g", ColumnType::Float64);
        schema.arrow()
    }

    fn insert(table: &mut Memtable, lines: &str) {
        let mut rows = RowsBuilder::default();
        for point in parse(lines, Precision::Nanosecond, Timestamp(0)) {
            rows.push(&point.unwrap());
        }
        table.insert_points(rows.finish()).unwrap();
    }

    fn show(table: &Memtable) -> String {
        let batches = table.rows().batches(&schema()).unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }
}
