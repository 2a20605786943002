//! The server's journals as tables: what plugins said, and what was run.

use arrow::{
    array::{AsArray, RecordBatch, StringArray, UInt64Array},
    compute::{concat_batches, filter_record_batch, kernels::cmp, take_record_batch},
    datatypes::TimestampNanosecondType,
    error::ArrowError,
};
use outrigger_storage::{Snapshot, journal::JournalTable};

/// A journal by time; rows of the same time stay as they were written. With `database`,
/// only the rows that name it.
pub(super) fn rows(
    snapshot: &Snapshot,
    table: JournalTable,
    database: Option<&str>,
) -> Result<RecordBatch, ArrowError> {
    let all = concat_batches(&table.schema(), &snapshot.journal(table)?)?;
    by_time(table, of(database, all)?)
}

fn of(database: Option<&str>, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some((database, names)) = database.zip(rows.column_by_name("database_name")) else {
        return Ok(rows);
    };
    let own = cmp::eq(names, &StringArray::new_scalar(database))?;
    filter_record_batch(&rows, &own)
}

fn by_time(table: JournalTable, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some(times) = rows.column_by_name(table.time_column()) else {
        return Ok(rows);
    };
    let times = times.as_primitive::<TimestampNanosecondType>().values();
    if times.is_sorted() {
        return Ok(rows);
    }
    let mut order: Vec<(i64, u64)> = times.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let order: UInt64Array = order.into_iter().map(|(_, row)| row).collect();
    take_record_batch(&rows, &order)
}
