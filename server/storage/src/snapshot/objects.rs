//! Where snapshots and what they name lie, and which of it is left over.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Timelike as _};
use object_store::path::Path;
use outrigger_log::{LogError, objects::Objects};
use outrigger_model::{
    error::Report,
    ids::{DatabaseId, Sequence, TableId},
};
use tracing::{info, warn};

use super::{
    SnapshotError,
    image::{ImageError, SnapshotId, SnapshotImage},
};
use crate::journal::JournalTable;

const SNAPSHOTS: &str = "snapshots";
const TABLES: &str = "dbs";
const JOURNALS: &str = "journals";
const LOG: &str = "log";

/// The snapshots of a node, and their files.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotObjects(Objects);

/// What was found at a start.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The newest snapshot that can be read.
    pub(crate) image: Option<SnapshotImage>,
    /// Every other one: older, or torn.
    others: Vec<Path>,
}

impl SnapshotObjects {
    pub(crate) fn new(objects: Objects) -> Self {
        Self(objects)
    }

    /// The objects themselves.
    pub(crate) fn objects(&self) -> &Objects {
        &self.0
    }

    fn snapshot_path(&self, id: SnapshotId) -> Path {
        let SnapshotId { sequence, edition } = id;
        let edition = match edition {
            0 => String::new(),
            edition => format!("-{edition}"),
        };
        self.0
            .path(&format!("{SNAPSHOTS}/{:020}{edition}.snapshot", sequence.0))
    }

    /// Where the rows of a table lie that begin in a window of time, as in InfluxDB 3.
    pub(crate) fn file_path(
        &self,
        (database, table): (DatabaseId, TableId),
        min_time: i64,
        window: Duration,
        sequence: Sequence,
    ) -> Path {
        let nanos = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX).max(1);
        let start = DateTime::from_timestamp_nanos(min_time - min_time.rem_euclid(nanos));
        let (year, month, day) = (start.year(), start.month(), start.day());
        let (hour, minute, number) = (start.hour(), start.minute(), sequence.0);
        self.0.path(&format!(
            "{TABLES}/{database}/{table}/{year:04}-{month:02}-{day:02}/{hour:02}-{minute:02}/{number:010}.parquet"
        ))
    }

    pub(crate) fn journal_path(&self, table: JournalTable, sequence: Sequence) -> Path {
        let number = table.number();
        self.0
            .path(&format!("{JOURNALS}/{number}/{:020}.parquet", sequence.0))
    }

    /// Reads the newest snapshot. One that was torn while it was written was never relied on,
    /// if there is an older one: that is removed only when a newer one is durable.
    pub(crate) async fn open(&self) -> Result<Opened, SnapshotError> {
        let mut opened = Opened::default();
        let mut damaged = None;
        let paths = self.0.list(SNAPSHOTS).await?.into_iter();
        let mut found: Vec<(SnapshotId, Path)> = paths
            .filter_map(|path| Some((id_of(&path)?, path)))
            .collect();
        found.sort_unstable();
        for (_, path) in found.into_iter().rev() {
            if opened.image.is_some() {
                opened.others.push(path);
                continue;
            }
            match SnapshotImage::decode(&self.0.read(&path).await?) {
                Ok(image) => {
                    // The server may have died between writing and syncing it, and what it has
                    // replaced is about to go.
                    self.0.make_durable(&path).await?;
                    opened.image = Some(image);
                }
                Err(error @ (ImageError::Torn { .. } | ImageError::Corrupt)) => {
                    let object = path.to_string();
                    warn!(object, error = %Report(&error), "a snapshot cannot be read, trying an older one");
                    damaged.get_or_insert((object, error));
                    opened.others.push(path);
                }
                Err(source) => {
                    let object = path.to_string();
                    return Err(SnapshotError::Damaged { object, source });
                }
            }
        }
        match damaged {
            Some((object, source)) if opened.image.is_none() => {
                Err(SnapshotError::Damaged { object, source })
            }
            _ => Ok(opened),
        }
    }

    /// Writes a snapshot durably; what it names must be durable already.
    pub(crate) async fn write(&self, image: &SnapshotImage) -> Result<(), LogError> {
        let path = self.snapshot_path(image.id());
        self.0.create(&path, image.encode()).await
    }

    /// Removes a snapshot that a newer one has replaced.
    pub(crate) async fn forget(&self, id: SnapshotId) -> Result<(), LogError> {
        self.0.remove(&self.snapshot_path(id)).await
    }

    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<(), LogError> {
        self.0.create(path, bytes).await
    }

    pub(crate) async fn create_all(&self, objects: Vec<(Path, Bytes)>) -> Result<(), LogError> {
        self.0.create_all(objects).await
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<(), LogError> {
        self.0.remove(&Path::from(path)).await
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Bytes, LogError> {
        self.0.read(&Path::from(path)).await
    }

    /// Removes what an interrupted snapshot has left, and what nobody had time to remove.
    /// Nothing else may write to this node's objects meanwhile.
    pub(crate) async fn remove_orphans(&self, opened: &Opened) -> Result<(), LogError> {
        let named: BTreeSet<String> = opened.image.iter().flat_map(SnapshotImage::paths).collect();
        let mut orphans = opened.others.clone();
        for directory in [TABLES, JOURNALS] {
            let found = self.0.list(directory).await?.into_iter();
            orphans.extend(found.filter(|path| !named.contains(path.as_ref())));
        }
        for orphan in &orphans {
            self.0.remove(orphan).await?;
        }
        let mut removed = orphans.len();
        for directory in [SNAPSHOTS, TABLES, JOURNALS, LOG] {
            removed += self.0.remove_unfinished(directory).await?;
        }
        if removed > 0 {
            info!(removed, "removed what an earlier snapshot has left");
        }
        Ok(())
    }
}

/// Which snapshot lies there; `None` if it is something else.
fn id_of(path: &Path) -> Option<SnapshotId> {
    let name = path.filename()?.strip_suffix(".snapshot")?;
    let (sequence, edition) = name.split_once('-').unwrap_or((name, "0"));
    Some(SnapshotId {
        sequence: Sequence(sequence.parse().ok()?),
        edition: edition.parse().ok()?,
    })
}

impl SnapshotImage {
    /// Every object that it names.
    fn paths(&self) -> impl Iterator<Item = String> {
        let files = self.tables.iter().flat_map(|table| &table.files);
        let files = files.map(|file| file.path.clone());
        let files = files.chain(self.kept.iter().map(|file| file.path.clone()));
        files.chain(self.journals.iter().map(|journal| journal.path.clone()))
    }
}
