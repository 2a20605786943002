//! When a snapshot is made, and what happens then, in which order.
//!
//! Rows stay readable in memory until the snapshot that has them in files is durable; then
//! both change places at once. What is not needed any more goes after that: at whatever point
//! this is interrupted, a start finds all of it, in files or in the log.

mod edits;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use outrigger_log::{LogError, store::EntryStore};
use outrigger_model::{
    error::Report,
    ids::{DatabaseId, Sequence, TableId},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Config, SnapshotError, SnapshotObjects,
    compactor::Compactor,
    edit::Edit,
    image::{JournalFile, SnapshotId, SnapshotImage, TableFiles},
    journals::{JournalPart, StoredJournals, plan},
    trim::trim,
};
use crate::{
    files::{ParquetFile, encode_journal, encode_points},
    journal::JournalTable,
    memtable::Rows,
    metrics::SnapshotMetrics,
    persisted::{self, Announcement, Reason},
    state::{Cut, State},
};

/// How often is looked whether rows take too much memory, and whether a file can go.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a failed snapshot is tried again: first, and at the most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_mins(1);

/// Where the task continues.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) state: Arc<State>,
    pub(crate) entries: Arc<EntryStore>,
    pub(crate) objects: SnapshotObjects,
    pub(crate) config: Config,
    pub(crate) metrics: SnapshotMetrics,
    /// The snapshot that the server has started from.
    pub(crate) image: Option<SnapshotImage>,
    /// Its journals.
    pub(crate) journals: StoredJournals,
    /// Its files.
    pub(crate) files: Vec<Arc<ParquetFile>>,
}

/// Makes snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotTask {
    parts: Snapshots,
    /// The last snapshot: what it covers, and all of it.
    covered: Sequence,
    image: Option<SnapshotImage>,
    /// How the list of files is to be changed, in this order.
    edits: VecDeque<Edit>,
    /// When is looked next which files are too old.
    expires_at: Instant,
    journals: StoredJournals,
    /// A cut that could not be stored yet.
    pending: Option<Cut>,
    failures: u32,
    not_before: Instant,
    /// Files that no table has any more, but perhaps a query, or a trigger has still to see.
    leaving: Vec<Arc<ParquetFile>>,
    /// Of the last snapshot, to see which leave.
    files: Vec<Arc<ParquetFile>>,
    /// How often rows had gone, when it was made, because their table was deleted.
    drops: u64,
}

/// How long to wait after so many failures.
fn pause(failures: u32) -> Duration {
    let pause = RETRY_FIRST.saturating_mul(1 << failures.min(6)) / 2;
    pause.min(RETRY_MOST)
}

/// What of a cut became durable.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The new files of each table.
    pub(crate) files: HashMap<TableId, Vec<Arc<ParquetFile>>>,
    /// What the log is to tell of them.
    pub(crate) announced: Vec<Arc<Announcement>>,
    journals: StoredJournals,
}

impl SnapshotTask {
    pub(crate) fn new(mut parts: Snapshots) -> Self {
        let image = parts.image.take();
        let kept = image.iter().flat_map(|image| &image.kept);
        Self {
            leaving: kept.cloned().map(Arc::new).collect(),
            covered: image.as_ref().map_or(Sequence(0), |image| image.sequence),
            image,
            edits: VecDeque::new(),
            expires_at: Instant::now(),
            journals: parts.journals.clone(),
            files: std::mem::take(&mut parts.files),
            drops: 0,
            pending: None,
            failures: 0,
            not_before: Instant::now(),
            parts,
        }
    }

    /// Makes snapshots until `stopped`.
    pub(crate) async fn run(&mut self, stopped: CancellationToken) {
        let mut entries = self.parts.state.recent.subscribe();
        let mut looks = interval(LOOK);
        let Snapshots {
            state,
            objects,
            config,
            ..
        } = &self.parts;
        let memory = config.compaction_memory;
        let mut compactor = Compactor::new(state.clone(), objects.clone(), config.window, memory);
        loop {
            let mut look = false;
            tokio::select! {
                () = stopped.cancelled() => return,
                _ = looks.tick() => look = true,
                changed = entries.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                joined = compactor.joined() => match joined {
                    Ok(edit) => self.edits.extend(edit),
                    Err(error) => {
                        warn!(error = %Report(&error), "cannot join files, they stay as they are");
                    }
                },
            }
            if look {
                self.parts.state.tidy_announcements();
                self.remove_leaving().await;
                self.expire();
                compactor.look();
            }
            let is_made = self.is_due(look) && self.attempt().await;
            if self.store_edits().await || is_made {
                compactor.wake();
            }
        }
    }

    /// Makes a last one, if there is anything new.
    pub(crate) async fn finish(&mut self) {
        if self.pending.is_some() || self.parts.state.last() > self.covered {
            self.attempt().await;
        }
        self.remove_leaving().await;
    }

    /// Whether rows take more memory than they may.
    pub(crate) fn lacks_room(&self) -> bool {
        Instant::now() >= self.not_before
            && self.parts.state.rows_bytes() > self.parts.config.memory.0
    }

    /// Makes a snapshot of what there is so far.
    pub(crate) async fn make_room(&mut self) {
        self.attempt().await;
    }

    fn is_due(&self, measure: bool) -> bool {
        if Instant::now() < self.not_before {
            return false;
        }
        let new = self.parts.state.last().0.saturating_sub(self.covered.0);
        let (entries, memory) = (self.parts.config.entries.get(), self.parts.config.memory.0);
        let is_large = || measure && new > 0 && self.parts.state.rows_bytes() > memory;
        let is_dropped = || new > 0 && self.parts.state.drops() > self.drops;
        self.pending.is_some() || new >= entries || is_dropped() || is_large()
    }

    /// Returns whether it has succeeded.
    async fn attempt(&mut self) -> bool {
        let cut = self.pending.take();
        let cut = cut.unwrap_or_else(|| Cut {
            kept: self.kept(&self.leaving),
            ..self.parts.state.cut()
        });
        let started = Instant::now();
        match self.store(&cut).await {
            Ok((image, stored)) => {
                self.failures = 0;
                self.parts.state.pressure().set_failure(None);
                let seconds = started.elapsed().as_secs_f64();
                let files: usize = stored.files.values().map(Vec::len).sum();
                self.parts
                    .metrics
                    .made(seconds, stored.files.values().flatten());
                info!(
                    sequence = image.sequence.0,
                    files, seconds, "made a snapshot"
                );
                self.committed(cut, stored, image).await;
                true
            }
            Err(error) => {
                self.failures += 1;
                let pause = pause(self.failures);
                self.parts.metrics.failed();
                let reason = Report(&error).to_string();
                self.parts.state.pressure().set_failure(Some(reason));
                warn!(error = %Report(&error), retry_after = ?pause, "cannot make a snapshot, rows stay in memory and the log is kept");
                self.not_before = Instant::now() + pause;
                self.pending = Some(cut);
                false
            }
        }
    }

    /// Makes a cut durable: its files, then the one object that names them.
    async fn store(&self, cut: &Cut) -> Result<(SnapshotImage, Stored), SnapshotError> {
        let mut files: HashMap<TableId, Vec<Arc<ParquetFile>>> = HashMap::new();
        for (database, table, rows) in &cut.tables {
            let made = self
                .store_table(cut, (*database, *table), rows.clone())
                .await?;
            files.insert(*table, made);
        }
        let mut journals = HashMap::new();
        for (table, rows) in &cut.journals {
            let parts = self.store_journal(cut.sequence, *table, rows).await?;
            journals.insert(*table, parts);
        }
        let commit = persisted::Commit {
            snapshot: cut.sequence,
            edition: 0,
            began: cut.sequence,
            reason: Reason::Snapshot,
            catalog: &cut.catalog,
        };
        let new = files.iter();
        let new = new.flat_map(|(table, files)| files.iter().map(|file| (*table, file.clone())));
        let stored = Stored {
            announced: commit.announce(new, &[]),
            files,
            journals,
        };
        let image = self.image(cut, &stored);
        self.parts.objects.write(&image).await?;
        Ok((image, stored))
    }

    async fn store_table(
        &self,
        cut: &Cut,
        (database, table): (DatabaseId, TableId),
        rows: Rows,
    ) -> Result<Vec<Arc<ParquetFile>>, SnapshotError> {
        let schema = cut.catalog.database_by_id(database);
        let Some(schema) = schema.and_then(|database| database.table_by_id(table)) else {
            return Ok(Vec::new());
        };
        let (schema, window) = (schema.schema.arrow(), self.parts.config.window);
        let encoded = spawn_blocking(move || encode_points(&rows, &schema, window)).await;
        let encoded = encoded
            .map_err(SnapshotError::Panicked)?
            .map_err(|source| {
                let table = table.to_string();
                SnapshotError::Encode { table, source }
            })?;
        let objects = &self.parts.objects;
        let (mut files, mut new) = (Vec::new(), Vec::new());
        for file in encoded {
            let path = objects.file_path((database, table), file.min_time, window, cut.sequence);
            files.push(Arc::new(ParquetFile {
                path: path.to_string(),
                size_bytes: file.bytes.len() as u64,
                row_count: file.rows as u64,
                min_time: file.min_time,
                max_time: file.max_time,
                sequence: cut.sequence.0,
            }));
            new.push((path, file.bytes));
        }
        objects.create_all(new).await?;
        Ok(files)
    }

    /// Stores what is new of a journal. Returns all its files.
    async fn store_journal(
        &self,
        sequence: Sequence,
        table: JournalTable,
        rows: &Rows,
    ) -> Result<Vec<JournalPart>, SnapshotError> {
        let stored = self.journals.get(&table).map_or(&[][..], Vec::as_slice);
        let (mut parts, new) = plan(stored, &rows.numbers());
        if new.is_empty() {
            return Ok(parts);
        }
        let (rows, first) = (rows.clone(), new.start);
        let encoded = spawn_blocking(move || encode_journal(&rows, first, &table.schema())).await;
        let encoded = encoded
            .map_err(SnapshotError::Panicked)?
            .map_err(|source| {
                let table = format!("{table:?}");
                SnapshotError::Encode { table, source }
            })?;
        let path = self.parts.objects.journal_path(table, sequence);
        self.parts.objects.create(&path, encoded).await?;
        parts.push(JournalPart {
            rows: new,
            path: path.to_string(),
        });
        Ok(parts)
    }

    fn image(&self, cut: &Cut, stored: &Stored) -> SnapshotImage {
        let mut tables: HashMap<TableId, Vec<ParquetFile>> = HashMap::new();
        let new = stored.files.iter();
        let all = cut
            .files
            .iter()
            .map(|(table, files)| (table, files.as_ref()))
            .chain(new);
        for (table, files) in all {
            let files = files.iter().map(|file| ParquetFile::clone(file));
            tables.entry(*table).or_default().extend(files);
        }
        let mut tables: Vec<TableFiles> = tables
            .into_iter()
            .filter(|(_, files)| !files.is_empty())
            .map(|(table, files)| TableFiles { table, files })
            .collect();
        tables.sort_by_key(|table| table.table);
        let mut journals: Vec<JournalFile> = stored
            .journals
            .iter()
            .flat_map(|(table, parts)| parts.iter().map(|part| (table.number(), part)))
            .map(|(table, part)| JournalFile {
                table,
                path: part.path.clone(),
            })
            .collect();
        // Stable: the files of a journal stay in the order of their rows.
        journals.sort_by_key(|journal| journal.table);
        SnapshotImage {
            sequence: cut.sequence,
            edition: 0,
            window_seconds: self.parts.config.window.as_secs(),
            catalog: cut.catalog.image(),
            tables,
            journals,
            pending: unshared(cut.pending.iter().chain(&stored.announced)),
            kept: unshared(&cut.kept),
        }
    }

    /// Those of the files that a trigger has still to see.
    fn kept(&self, files: &[Arc<ParquetFile>]) -> Vec<Arc<ParquetFile>> {
        if files.is_empty() {
            return Vec::new();
        }
        let names = self.parts.state.kept_files();
        let kept = files.iter().filter(|file| names.contains(&file.path));
        kept.cloned().collect()
    }

    /// The snapshot is durable: files take the place of rows, and what it replaces goes.
    async fn committed(&mut self, cut: Cut, stored: Stored, image: SnapshotImage) {
        self.covered = cut.sequence;
        let before = self.image.replace(image).map(|image| image.id());
        self.drops = cut.drops;
        self.parts.state.publish_files(&stored);
        let named = cut.files.values().flat_map(|files| files.iter());
        let named = named
            .chain(stored.files.values().flatten())
            .cloned()
            .collect();
        // Rows that nobody reads any more are given back here, and whoever waits for room has it.
        drop(cut);
        self.parts.state.rows_bytes();
        let old = std::mem::replace(&mut self.journals, stored.journals);
        let kept: HashSet<&str> = paths(&self.journals).collect();
        let unneeded = paths(&old).filter(|path| !kept.contains(path));
        let unneeded: Vec<String> = unneeded.map(str::to_owned).collect();
        let old = std::mem::replace(&mut self.files, named);
        let named: HashSet<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let leaving = old
            .into_iter()
            .filter(|file| !named.contains(file.path.as_str()));
        self.leaving.extend(leaving);
        if let Err(error) = self.remove_replaced(before, &unneeded).await {
            warn!(error = %Report(&error), "cannot remove what a snapshot has replaced; the next start will");
        }
        self.remove_leaving().await;
    }

    async fn remove_replaced(
        &self,
        before: Option<SnapshotId>,
        journals: &[String],
    ) -> Result<(), LogError> {
        if let Some(before) = before {
            self.parts.objects.forget(before).await?;
        }
        for path in journals {
            self.parts.objects.remove(path).await?;
        }
        self.trim_log().await
    }

    /// Removes log entries, the oldest first, so that what is left has no gap.
    async fn trim_log(&self) -> Result<(), LogError> {
        let Snapshots {
            state,
            entries,
            config,
            metrics,
            ..
        } = &self.parts;
        let removed = state.removed();
        let trim = trim(&state.catalog(), removed, self.covered, config);
        for skipped in &trim.skipped {
            metrics.skipped(skipped.entries);
            warn!(
                database = skipped.database,
                trigger = skipped.trigger,
                entries = skipped.entries,
                "a trigger lags more than --trigger-max-lag behind the log: it will not see the oldest entries"
            );
        }
        // From here on nobody asks for them.
        state.forget_entries(trim.through);
        for sequence in removed.0 + 1..=trim.through.0 {
            entries.remove(Sequence(sequence)).await?;
        }
        Ok(())
    }

    /// Removes files that no query reads any more, and no trigger has still to see.
    async fn remove_leaving(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let kept = self.parts.state.kept_files();
        let (gone, read) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|file| Arc::strong_count(file) == 1 && !kept.contains(&file.path));
        self.leaving = read;
        let gone: Vec<Arc<ParquetFile>> = gone;
        for file in gone {
            if let Err(error) = self.parts.objects.remove(&file.path).await {
                warn!(error = %Report(&error), "cannot remove a file; the next start will");
            }
        }
    }
}

fn unshared<'a, T: Clone + 'a>(shared: impl IntoIterator<Item = &'a Arc<T>>) -> Vec<T> {
    let shared = shared.into_iter();
    shared.map(|one| T::clone(one)).collect()
}

fn paths(journals: &StoredJournals) -> impl Iterator<Item = &str> {
    let parts = journals.values().flatten();
    parts.map(|part| part.path.as_str())
}
