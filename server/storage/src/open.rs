//! How storage comes back at a start: the last snapshot, then the log behind it.

use arrow::array::RecordBatch;

use object_store::ObjectStore;
use outrigger_catalog::Catalog;
use outrigger_log::{
    LogError,
    commit::{self, Committer, CommitterTask, committer},
    objects::Objects,
    replay::{TornTail, replay},
    store::{Durability, EntryStore},
};
use outrigger_model::{bytes::ByteSize, clock::Clock, error::Report, ids::Sequence};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Storage, announcer,
    files::decode_rows,
    journal::JournalTable,
    keeping,
    metrics::SnapshotMetrics,
    pressure::Pressure,
    snapshot::{
        Config, JournalPart, Opened, SnapshotError, SnapshotObjects, SnapshotTask, Snapshots,
        StoredJournals, followers, image::SnapshotImage,
    },
    state::{Restored, State},
};

/// Where everything is stored.
#[derive(Debug)]
pub struct Stores {
    /// The log.
    pub entries: EntryStore,
    /// What lies beside it.
    pub objects: Objects,
}

impl Stores {
    /// What lies under `<node_id>/` in `store`.
    pub fn new(store: Arc<dyn ObjectStore>, node_id: &str, durability: Durability) -> Self {
        Self {
            entries: EntryStore::new(store.clone(), node_id, durability.clone()),
            objects: Objects::new(store, node_id, durability),
        }
    }
}

/// How it is stored.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The log.
    pub log: commit::Config,
    /// Snapshots.
    pub snapshots: Config,
    /// What was deleted.
    pub keeping: keeping::Config,
    /// What is done with an incomplete last entry of the log.
    pub torn_tail: TornTail,
}

/// Why storage cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The snapshot cannot be read.
    #[error("read the last snapshot")]
    Snapshot(#[from] SnapshotError),
    /// The log cannot be read.
    #[error("replay the log")]
    Log(#[from] LogError),
}

/// The task that writes the log and makes snapshots.
#[derive(Debug)]
pub struct StorageTask {
    log: CommitterTask<State>,
    committer: Committer,
    snapshots: SnapshotTask,
    storage: Storage,
}

impl StorageTask {
    /// Runs until `shutdown`, then makes durable what was accepted, and a last snapshot.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            log,
            committer,
            mut snapshots,
            storage,
        } = self;
        let stopped = CancellationToken::new();
        let telling = announcer::tell(storage.state().clone(), committer.clone(), shutdown.clone());
        let keeping = keeping::keep(storage, shutdown.clone());
        let writing = async {
            log.run(shutdown).await;
            stopped.cancel();
        };
        tokio::join!(writing, snapshots.run(stopped.clone()), keeping, telling);
        // A log that has failed may be another server's.
        if !committer.has_failed() {
            snapshots.finish().await;
        }
    }
}

impl Storage {
    /// Reads the last snapshot, replays the log behind it, and continues it. Nothing else may
    /// write to the same stores.
    pub async fn open(
        stores: Stores,
        clock: Arc<dyn Clock>,
        mut settings: Settings,
    ) -> Result<(Self, StorageTask), OpenError> {
        let Stores { entries, objects } = stores;
        let (entries, objects) = (Arc::new(entries), SnapshotObjects::new(objects));
        let memory = ByteSize(settings.snapshots.memory.0.saturating_mul(MEMORY_SHARES));
        let pressure = Pressure::new(memory, settings.log.buffer_wait_max);
        let state = Arc::new(State::new(clock, pressure));
        let opened = objects.open().await?;
        if let Some(image) = &opened.image {
            settings.snapshots.window = window(image, settings.snapshots.window);
        }
        let (restored, journals) = read(&objects, opened.image.as_ref()).await?;
        let covered = restored.sequence;
        let kept = entries.sequences().await?;
        let removed = removed(&kept, covered);
        state.restore(restored, removed).map_err(|error| {
            let object = format!("snapshot {covered}");
            let source = error.into();
            SnapshotError::Decode { object, source }
        })?;
        // What the log deletes of them has still to be removed.
        let stored = state.files();
        recall(&entries, &state, covered).await?;
        let metrics = SnapshotMetrics::default();
        let files = objects.objects().store().clone();
        let memory = settings.snapshots.memory.0;
        let mut snapshots = SnapshotTask::new(Snapshots {
            state: state.clone(),
            entries: entries.clone(),
            objects: objects.clone(),
            config: settings.snapshots,
            metrics: metrics.clone(),
            image: opened.image.clone(),
            journals,
            files: stored,
        });
        let mut replaying = Replaying {
            snapshots: &mut snapshots,
            orphans: Orphans {
                objects,
                opened: Some(opened),
            },
            memory,
            unlooked: (0, 0),
        };
        let view = state.as_ref();
        let make_room = async |size| replaying.make_room(size).await;
        let last = replay(&entries, view, covered, settings.torn_tail, make_room).await?;
        // Only now is it known that the snapshot can be continued.
        let failed = SnapshotError::from;
        replaying.orphans.remove().await.map_err(failed)?;
        let (committer, log) = committer(entries.clone(), state.clone(), last, settings.log);
        let stores = (entries, files);
        let storage = Self::new(state, stores, committer.clone(), metrics, settings.keeping);
        let task = StorageTask {
            log,
            committer,
            snapshots,
            storage: storage.clone(),
        };
        Ok((storage, task))
    }
}

/// While a snapshot is made of the rows that are in memory, others may come: as many again, then
/// writers wait.
const MEMORY_SHARES: usize = 2;

/// So many bytes of entries, of what rows may take, or so many entries are replayed before it is
/// looked what they have come to.
const LOOKS_PER_MEMORY: usize = 8;
const ENTRIES_PER_LOOK: usize = 64;

/// A replay under way. Where the log is longer than memory is large, snapshots are made of what
/// has come so far.
struct Replaying<'a> {
    snapshots: &'a mut SnapshotTask,
    orphans: Orphans,
    memory: usize,
    /// Entries, and their bytes, since it was looked.
    unlooked: (usize, usize),
}

impl Replaying<'_> {
    async fn make_room(&mut self, size: usize) {
        let (entries, bytes) = (self.unlooked.0 + 1, self.unlooked.1 + size);
        self.unlooked = (entries, bytes);
        if entries < ENTRIES_PER_LOOK && bytes < self.memory / LOOKS_PER_MEMORY {
            return;
        }
        self.unlooked = (0, 0);
        if !self.snapshots.lacks_room() {
            return;
        }
        // What is left over may have the names of what is made now.
        match self.orphans.remove().await {
            Ok(()) => self.snapshots.make_room().await,
            Err(error) => {
                warn!(error = %Report(&error), "cannot make a snapshot while the log is replayed");
            }
        }
    }
}

/// What an earlier snapshot has left, until it is removed: once, since later it may be anything.
struct Orphans {
    objects: SnapshotObjects,
    opened: Option<Opened>,
}

impl Orphans {
    async fn remove(&mut self) -> Result<(), LogError> {
        if let Some(opened) = &self.opened {
            self.objects.remove_orphans(opened).await?;
        }
        self.opened = None;
        Ok(())
    }
}

/// The first snapshot decides how large windows are.
fn window(image: &SnapshotImage, asked: Duration) -> Duration {
    let window = Duration::from_secs(image.window_seconds);
    if window != asked {
        warn!(
            ?asked,
            ?window,
            "--gen1-duration cannot change after the first snapshot: what it was then is used"
        );
    }
    window
}

async fn read(
    objects: &SnapshotObjects,
    image: Option<&SnapshotImage>,
) -> Result<(Restored, StoredJournals), SnapshotError> {
    let Some(image) = image else {
        return Ok(Default::default());
    };
    let (mut journals, mut stored) = (Vec::new(), StoredJournals::new());
    for journal in &image.journals {
        // One that this server does not know is a newer one's, and stays what it is.
        let Some(table) = JournalTable::from_number(journal.table) else {
            continue;
        };
        let path = journal.path.clone();
        let rows = decode_rows(objects.read(&path).await?);
        let rows = rows.map_err(|source| SnapshotError::Decode {
            object: path.clone(),
            source,
        })?;
        let parts = stored.entry(table).or_default();
        let first = parts.last().map_or(0, |part| part.rows.end);
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let numbers = first..first + count as u64;
        parts.push(JournalPart {
            rows: numbers,
            path,
        });
        journals.push((table, rows));
    }
    let files = image.tables.iter().map(|table| {
        let files = table.files.iter().cloned().map(Arc::new);
        (table.table, Arc::new(files.collect()))
    });
    info!(
        sequence = image.sequence.0,
        tables = image.tables.len(),
        "read the last snapshot"
    );
    let restored = Restored {
        sequence: image.sequence,
        catalog: Catalog::from_image(image.catalog.clone()),
        files: files.collect(),
        journals,
        pending: image.pending.iter().cloned().map(Arc::new).collect(),
    };
    Ok((restored, stored))
}

/// The last of the entries that are gone, of those that the snapshot covers: what lies before
/// it, if anything, was to be removed too.
fn removed(kept: &[Sequence], covered: Sequence) -> Sequence {
    let mut removed = covered;
    let covered = kept.iter().rev().filter(|entry| **entry <= covered);
    for entry in covered {
        if *entry != removed {
            break;
        }
        removed = Sequence(removed.0.saturating_sub(1));
    }
    removed
}

/// Looks at the entries again that the snapshot covers, and that a trigger has still to see.
async fn recall(entries: &EntryStore, state: &State, covered: Sequence) -> Result<(), LogError> {
    let catalog = state.catalog();
    let cursors = followers(&catalog).map(|(_, trigger)| trigger.progress.cursor());
    let Some(slowest) = cursors.min() else {
        return Ok(());
    };
    for sequence in slowest.max(state.removed()).0 + 1..=covered.0 {
        let entry = entries.read(Sequence(sequence)).await?;
        state.recall(&entry).map_err(|reason| LogError::Apply {
            object: entries.object(Sequence(sequence)),
            reason,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_no_gap() {
        let check = |kept: &[u64], covered, expected| {
            let kept: Vec<Sequence> = kept.iter().copied().map(Sequence).collect();
            let removed = removed(&kept, Sequence(covered));
            assert_eq!(removed, Sequence(expected), "{kept:?} {covered}");
        };
        check(&[], 0, 0);
        check(&[1, 2, 3], 0, 0);
        check(&[1, 2, 3], 3, 0);
        check(&[4, 5, 6, 7], 6, 3);
        check(&[2, 5, 6, 7], 6, 4);
        check(&[7, 8], 6, 6);
        check(&[], 6, 6);
    }
}
