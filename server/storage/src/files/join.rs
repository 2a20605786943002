//! How files become one: their rows are merged as they are sorted, a part at a time, so that
//! only the files' bytes are in memory as a whole.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    compute::interleave_record_batch,
    datatypes::{Field, Schema, SchemaRef},
    error::ArrowError,
    row::Rows,
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use tokio_util::sync::CancellationToken;

use super::encode::{Encoded, FileWriter};
use crate::{
    merge::conform,
    points::{Keys, PointMerger},
};

/// So many rows of all files together are in memory, about.
const ROWS_AT_ONCE: usize = 128 * 1024;
/// At least so many of each.
const ROWS_EACH_MIN: usize = 512;
/// At most so many of each.
const ROWS_EACH_MAX: usize = 8192;

/// Makes one file of several, the oldest first: each point once, per field the last value that
/// is not null. `None` if it was stopped.
pub(crate) fn join_files(
    files: Vec<Bytes>,
    stop: &CancellationToken,
) -> Result<Option<Encoded>, ParquetError> {
    let rows = (ROWS_AT_ONCE / files.len().max(1)).clamp(ROWS_EACH_MIN, ROWS_EACH_MAX);
    let builders = files
        .into_iter()
        .map(|bytes| Ok(ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(rows)))
        .collect::<Result<Vec<_>, ParquetError>>()?;
    let schema = all_columns(builders.iter().map(|builder| builder.schema().as_ref()));
    let readers = builders
        .into_iter()
        .map(ParquetRecordBatchReaderBuilder::build);
    let readers = readers.collect::<Result<Vec<_>, _>>()?;
    let mut sorted = Sorted::new(readers, schema.clone())?;
    let (mut merger, mut writer) = (PointMerger::new(&schema)?, FileWriter::new(&schema)?);
    while let Some(batch) = sorted.next()? {
        if stop.is_cancelled() {
            return Ok(None);
        }
        if let Some(points) = merger.push(batch)? {
            writer.write(&points)?;
        }
    }
    if let Some(points) = merger.finish()? {
        writer.write(&points)?;
    }
    writer.finish().map(Some)
}

/// Every column that any file has, by name.
fn all_columns<'a>(schemas: impl Iterator<Item = &'a Schema>) -> SchemaRef {
    let mut columns: Vec<Arc<Field>> = Vec::new();
    for schema in schemas {
        for field in schema.fields() {
            if !columns.iter().any(|known| known.name() == field.name()) {
                columns.push(field.clone());
            }
        }
    }
    columns.sort_by(|one, two| one.name().cmp(two.name()));
    Arc::new(Schema::new(columns))
}

/// The rows of one file, a part at a time.
struct Input {
    reader: ParquetRecordBatchReader,
    /// The present part, and the row that is next.
    part: Option<(RecordBatch, Rows)>,
    row: usize,
}

/// The rows of all files, sorted; of the same point, those of the older file first.
struct Sorted {
    inputs: Vec<Input>,
    keys: Keys,
    schema: SchemaRef,
}

impl Sorted {
    fn new(
        readers: Vec<ParquetRecordBatchReader>,
        schema: SchemaRef,
    ) -> Result<Self, ParquetError> {
        let inputs = readers.into_iter().map(|reader| Input {
            reader,
            part: None,
            row: 0,
        });
        let mut sorted = Self {
            inputs: inputs.collect(),
            keys: Keys::new(&schema)?,
            schema,
        };
        for input in 0..sorted.inputs.len() {
            sorted.advance(input)?;
        }
        Ok(sorted)
    }

    /// Reads the next part of a file.
    fn advance(&mut self, input: usize) -> Result<(), ParquetError> {
        let Some(input) = self.inputs.get_mut(input) else {
            return Ok(());
        };
        input.row = 0;
        input.part = None;
        for batch in input.reader.by_ref() {
            let batch = conform(&batch?, &self.schema)?;
            if batch.num_rows() > 0 {
                let keys = self.keys.of(&batch)?;
                input.part = Some((batch, keys));
                break;
            }
        }
        Ok(())
    }

    /// The next rows: as many as can be said before a file has to be read further.
    fn next(&mut self) -> Result<Option<RecordBatch>, ParquetError> {
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        let exhausted = loop {
            let Some(first) = self.first(None) else {
                break None;
            };
            let second = self.first(Some(first));
            let until = self.run_end(first, second);
            let input = &mut self.inputs[first];
            chosen.extend((input.row..until).map(|row| (first, row)));
            input.row = until;
            if input
                .part
                .as_ref()
                .is_none_or(|(batch, _)| batch.num_rows() == until)
            {
                break Some(first);
            }
            if chosen.len() >= ROWS_EACH_MAX {
                break None;
            }
        };
        let batch = self.take(&chosen)?;
        if let Some(exhausted) = exhausted {
            self.advance(exhausted)?;
        }
        Ok(batch)
    }

    /// The file that has the smallest next row, without that one; the oldest of several.
    fn first(&self, without: Option<usize>) -> Option<usize> {
        let mut least: Option<usize> = None;
        for (index, input) in self.inputs.iter().enumerate() {
            let Some((_, keys)) = input.part.as_ref().filter(|_| Some(index) != without) else {
                continue;
            };
            let smaller = least.and_then(|least| {
                let other = &self.inputs[least];
                let (_, others) = other.part.as_ref()?;
                Some(keys.row(input.row) < others.row(other.row))
            });
            if smaller.unwrap_or(true) {
                least = Some(index);
            }
        }
        least
    }

    /// Up to which row the first file's rows come before the second's next one.
    fn run_end(&self, first: usize, second: Option<usize>) -> usize {
        let input = &self.inputs[first];
        let Some((batch, keys)) = &input.part else {
            return input.row;
        };
        let Some(second) = second else {
            return batch.num_rows();
        };
        let other = &self.inputs[second];
        let Some((_, others)) = &other.part else {
            return batch.num_rows();
        };
        let bound = others.row(other.row);
        let mut rows = input.row..batch.num_rows();
        let end = rows.find(|&row| match keys.row(row).cmp(&bound) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => second < first,
            std::cmp::Ordering::Greater => true,
        });
        end.unwrap_or(batch.num_rows())
    }

    fn take(&self, chosen: &[(usize, usize)]) -> Result<Option<RecordBatch>, ArrowError> {
        if chosen.is_empty() {
            return Ok(None);
        }
        let empty = RecordBatch::new_empty(self.schema.clone());
        let parts: Vec<&RecordBatch> = self
            .inputs
            .iter()
            .map(|input| input.part.as_ref().map_or(&empty, |(batch, _)| batch))
            .collect();
        interleave_record_batch(&parts, chosen).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::compute::concat_batches;
    use outrigger_model::{
        clock::Timestamp,
        columns::RowsBuilder,
        line_protocol::{Precision, parse},
        schema::{ColumnType, TableSchema},
    };
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        files::{decode_rows, encode_points},
        memtable::Memtable,
        points::sort_points,
    };

    fn lines(random: &mut StdRng, has_second_tag: bool) -> String {
        let mut lines = String::new();
        for _ in 0..random.random_range(1..2000) {
            let (tag, time) = (random.random_range(0..5), random.random_range(0..400));
            let second = match random.random_range(0..3) {
                0 if has_second_tag => ",u=x",
                _ => "",
            };
            let (f, n): (u8, u8) = (random.random(), random.random());
            let fields = match random.random_range(0..3) {
                0 => format!("f={f}"),
                1 => format!("n={n}i"),
                _ => format!("f={f},n={n}i"),
            };
            lines.extend([format!("m,t=t{tag}{second} {fields} {time}\n")]);
        }
        lines
    }

    fn table(lines: &str) -> Memtable {
        let (mut rows, mut table) = (RowsBuilder::default(), Memtable::default());
        for point in parse(lines, Precision::Nanosecond, Timestamp(0)) {
            rows.push(&point.unwrap());
        }
        table.insert_points(rows.finish()).unwrap();
        table
    }

    #[test]
    fn a_joined_file_has_what_its_parts_have_together() {
        let mut schema = TableSchema::default();
        for (name, column) in [
            ("f", ColumnType::Float64),
            ("n", ColumnType::Int64),
            ("t", ColumnType::Tag),
            ("u", ColumnType::Tag),
        ] {
            schema.add(name, column);
        }
        let schema = schema.arrow();
        for seed in 0..12 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut files, mut all) = (Vec::new(), Vec::new());
            for part in 0..random.random_range(2..7) {
                // The second tag comes later.
                let table = table(&lines(&mut random, part > 1));
                let (rows, window) = (table.rows(), Duration::from_secs(1));
                let encoded = encode_points(&rows, &schema, window).unwrap();
                files.extend(encoded.into_iter().map(|file| file.bytes));
                all.extend(rows.batches(&schema).unwrap());
            }
            let all = sort_points(&concat_batches(&schema, &all).unwrap()).unwrap();
            let mut merger = PointMerger::new(&schema).unwrap();
            let parts = [merger.push(all).unwrap(), merger.finish().unwrap()];
            let expected = concat_batches(&schema, parts.iter().flatten()).unwrap();

            let joined = join_files(files, &CancellationToken::new())
                .unwrap()
                .unwrap();
            let found = decode_rows(joined.bytes).unwrap();
            let found = found.iter().map(|rows| conform(rows, &schema).unwrap());
            let found = concat_batches(&schema, &found.collect::<Vec<_>>()).unwrap();
            let shown = |rows: &RecordBatch| {
                let slice = std::slice::from_ref(rows);
                arrow::util::pretty::pretty_format_batches(slice)
                    .unwrap()
                    .to_string()
            };
            assert_eq!(shown(&found), shown(&expected), "seed {seed}");
            assert_eq!(joined.rows, expected.num_rows());
            assert!((0..400).contains(&joined.min_time) && joined.max_time < 400);
        }
    }

    #[test]
    fn joining_can_be_stopped() {
        let table = table("m f=1 1");
        let rows = table.rows();
        let mut schema = TableSchema::default();
        schema.add("f", ColumnType::Float64);
        let encoded = encode_points(&rows, &schema.arrow(), Duration::from_secs(1)).unwrap();
        let files = encoded.into_iter().map(|file| file.bytes).collect();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(join_files(files, &stop).unwrap().is_none());
    }
}
