//! What happens to data without anybody asking: what was deleted goes when its time has come.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, Timelike as _};
use outrigger_catalog::{
    Catalog,
    deletion::{Deleting, HardDelete},
};
use outrigger_model::{clock::Timestamp, error::Report, schema::ColumnType};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Storage, WriteError};

/// How often is looked whether something is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(30);

/// When what is deleted goes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// So long after the deletion, if the user says nothing.
    pub hard_delete_default: Duration,
    /// The record of it goes so long after the data.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hard_delete_default: Duration::from_hours(72),
            grace: Duration::from_hours(24),
        }
    }
}

impl Storage {
    /// Deletes a database: it gets another name, under which it can be read until its data
    /// goes, at the time that is asked for or after a while.
    pub async fn delete_database(
        &self,
        name: &str,
        asked: Option<HardDelete>,
    ) -> Result<(), WriteError> {
        let (name, deleting) = (name.to_owned(), self.deleting(asked));
        self.change(move |catalog| catalog.delete_database(&name, &deleting).map(Some))
            .await
    }

    /// Deletes a table likewise.
    pub async fn delete_table(
        &self,
        database: &str,
        table: &str,
        asked: Option<HardDelete>,
    ) -> Result<(), WriteError> {
        let (database, table) = (database.to_owned(), table.to_owned());
        let deleting = self.deleting(asked);
        self.change(move |catalog| catalog.delete_table(&database, &table, &deleting).map(Some))
            .await
    }

    /// Creates a table with columns, and its database if need be.
    pub async fn create_table(
        &self,
        database: &str,
        table: &str,
        columns: Vec<(String, ColumnType)>,
    ) -> Result<(), WriteError> {
        let (database, table) = (database.to_owned(), table.to_owned());
        self.changes(move |catalog| catalog.create_table_with(&database, &table, columns.clone()))
            .await
    }

    fn deleting(&self, asked: Option<HardDelete>) -> Deleting {
        let now = self.clock().now();
        let default = self.keeping().hard_delete_default.as_nanos();
        let default = i64::try_from(default).unwrap_or(i64::MAX);
        // What has passed is as good as now, from which on the record stays.
        let asked = asked.map(|asked| match asked {
            HardDelete::Never => HardDelete::Never,
            HardDelete::At(time) => HardDelete::At(time.max(now)),
        });
        Deleting {
            stamp: stamp(now),
            asked,
            default: HardDelete::At(Timestamp(now.0.saturating_add(default))),
        }
    }
}

/// As in `20261123T021500`.
fn stamp(now: Timestamp) -> String {
    let time = DateTime::from_timestamp_nanos(now.0);
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}")
}

/// Has what was deleted go when it is due, until `shutdown`.
pub(crate) async fn keep(storage: Storage, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = remove_due(&storage) => {}
    }
}

async fn remove_due(storage: &Storage) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (clock, grace) = (storage.clock().clone(), storage.keeping().grace);
        let due = move |catalog: &Catalog| catalog.due(clock.now(), grace);
        while let Some(change) = due(&storage.catalog()) {
            info!(?change, "what was deleted goes");
            let due = due.clone();
            if let Err(error) = storage.change_patiently(due).await {
                warn!(error = %Report(&error), "cannot remove what was deleted, trying again");
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_the_time_in_utc() {
        assert_eq!(
            stamp(Timestamp(1_795_400_100_000_000_000)),
            "20261123T021500"
        );
        assert_eq!(stamp(Timestamp(0)), "19700101T000000");
    }
}
