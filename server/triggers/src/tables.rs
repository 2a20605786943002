//! The system tables that triggers and their workers fill.

mod triggers;
mod workers;

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Float64Array, StringArray, TimestampNanosecondArray, UInt64Array},
    datatypes::{DataType, Field, TimeUnit},
};
use outrigger_model::clock::Timestamp;
use outrigger_query::LiveTable;
use outrigger_storage::Storage;

use self::{triggers::TriggersTable, workers::WorkersTable};
use crate::{
    board::Board, condition::Observer, plugin_files::PluginFilesTable, source::PluginDirectory,
};

/// The tables, for the query engine.
pub fn live_tables(
    storage: &Storage,
    board: &Board,
    directory: &PluginDirectory,
) -> Vec<Arc<dyn LiveTable>> {
    let observer = Observer {
        storage: storage.clone(),
        board: board.clone(),
    };
    vec![
        Arc::new(PluginFilesTable(directory.clone())),
        Arc::new(TriggersTable(observer.clone())),
        Arc::new(WorkersTable(observer)),
    ]
}

/// A column that is made of `R`s.
struct Column<R> {
    name: &'static str,
    nullable: bool,
    values: Values<R>,
}

enum Values<R> {
    Text(fn(&R) -> Option<String>),
    Number(fn(&R) -> Option<u64>),
    Seconds(fn(&R) -> Option<Duration>),
    Time(fn(&R) -> Option<Timestamp>),
    Truth(fn(&R) -> bool),
}

impl<R> Column<R> {
    const fn required(name: &'static str, values: Values<R>) -> Self {
        Self {
            name,
            nullable: false,
            values,
        }
    }

    const fn nullable(name: &'static str, values: Values<R>) -> Self {
        Self {
            name,
            nullable: true,
            values,
        }
    }

    fn field(&self) -> Field {
        let data_type = match self.values {
            Values::Text(_) => DataType::Utf8,
            Values::Number(_) => DataType::UInt64,
            Values::Seconds(_) => DataType::Float64,
            Values::Time(_) => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Values::Truth(_) => DataType::Boolean,
        };
        Field::new(self.name, data_type, self.nullable)
    }

    fn array(&self, rows: &[R]) -> ArrayRef {
        let rows = rows.iter();
        match self.values {
            Values::Text(text) => Arc::new(rows.map(text).collect::<StringArray>()),
            Values::Number(number) => Arc::new(rows.map(number).collect::<UInt64Array>()),
            Values::Seconds(length) => {
                let seconds = rows.map(|row| length(row).map(|length| length.as_secs_f64()));
                Arc::new(seconds.collect::<Float64Array>())
            }
            Values::Time(time) => {
                let times = rows.map(|row| time(row).map(|time| time.0));
                Arc::new(times.collect::<TimestampNanosecondArray>())
            }
            Values::Truth(truth) => {
                let truths = rows.map(|row| Some(truth(row)));
                Arc::new(truths.collect::<arrow::array::BooleanArray>())
            }
        }
    }
}

/// How long ago `since` was; nothing if that lies ahead.
fn age(now: Timestamp, since: Timestamp) -> Duration {
    Duration::from_nanos(now.0.saturating_sub(since.0).try_into().unwrap_or(0))
}

/// When it was, `ago` before `now`.
fn before(now: Timestamp, ago: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(nanos(ago)))
}

/// When it will be, that long after `now`.
fn after(now: Timestamp, left: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(nanos(left)))
}

fn nanos(length: Duration) -> i64 {
    length.as_nanos().try_into().unwrap_or(i64::MAX)
}
