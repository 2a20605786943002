//! The write path: validate, log, and wait until the write can be read.
//!
//! Writers check their lines against the *staged* catalog, which already has the
//! changes that are buffered but not durable yet, and submit in the order in which
//! they changed it. So two writers that bring the same new table agree on it.

use std::{fmt, sync::Arc};

use object_store::ObjectStore;
use outrigger_catalog::{Catalog, CatalogChange, CatalogError, progress::EntryRange};
use outrigger_log::{
    LogError,
    commit::{self, Committer, Receipt},
    entry::Record,
    store::EntryStore,
};
use outrigger_model::{
    clock::{Clock, Timestamp},
    ids::{DatabaseId, Sequence, TriggerId},
    line_protocol::{LineError, Precision},
    trace::{Trace, TraceContext},
};
use parking_lot::Mutex;
use prometheus::core::Collector;
use tokio::task::spawn_blocking;

use crate::{
    CommittedFile, ParquetFile, WriteError,
    feed::Feed,
    journal::JournalRows,
    keeping,
    metrics::{Memory, Metrics, SnapshotMetrics, Writer},
    record::Meaning,
    rehearsal::Rehearsal,
    state::{Snapshot, State},
    validate::{BadLines, Validated, validate},
};

/// Texts of more bytes are not parsed on an async thread.
pub(crate) const INLINE_BYTES_MAX: usize = 64 * 1024;

/// A client's write.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Created if it does not exist.
    pub database: String,
    /// Line protocol.
    pub text: Arc<str>,
    /// The unit of its timestamps.
    pub precision: Precision,
    /// Store the good lines even if others are bad.
    pub accept_partial: bool,
    /// Answer once buffered.
    pub no_sync: bool,
    /// To which trace it belongs; the rows remember it.
    pub trace: Trace,
}

/// Where a plugin's lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A database that must still exist.
    Existing(DatabaseId),
    /// A database that is created if it does not exist.
    Named(String),
}

/// Lines for one database, with nanosecond timestamps; stored as a whole or not at all.
#[derive(Clone, Debug)]
pub struct TargetWrite {
    /// The database.
    pub target: Target,
    /// Line protocol.
    pub text: Arc<str>,
}

/// A write of a commit that was not stored.
#[derive(Debug)]
pub struct RejectedWrite {
    /// How many lines it has.
    lines: usize,
    /// As in the commit.
    pub target: Target,
    /// Why.
    pub error: WriteError,
}

/// What an invocation leaves behind: all of it is in one log entry, or none.
pub struct Commit {
    /// Buffered lines by database. Bad lines reject their own database's lines only.
    pub writes: Vec<TargetWrite>,
    /// What the trigger has dealt with.
    pub done: Option<(TriggerId, EntryRange)>,
    /// A catalog change that belongs to it, made from the catalog as it then is.
    pub change: Option<Box<MakeChange>>,
    /// Rows for the journals, made when it is known what was rejected.
    pub journal: Box<MakeJournal>,
    /// To which trace it belongs; the written rows remember it.
    pub trace: Trace,
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("writes", &self.writes.len())
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// Makes a change that fits the catalog; `None` if nothing has to change. May be called
/// again if the catalog has changed meanwhile.
pub type MakeChange = dyn Fn(&Catalog) -> Result<Option<CatalogChange>, CatalogError> + Send + Sync;

/// Makes the journals' rows of a commit. May be called again if the catalog has changed meanwhile.
pub type MakeJournal = dyn Fn(&[RejectedWrite]) -> JournalRows + Send + Sync;

/// What became of a commit.
#[derive(Debug)]
pub struct Committed {
    /// The writes that were not stored.
    pub rejected: Vec<RejectedWrite>,
    /// How many rows were stored.
    rows: usize,
    /// The journals' rows that were.
    pub journal: JournalRows,
}

/// Reads and writes everything that is stored. Clones are handles to the same storage.
#[derive(Clone, Debug)]
pub struct Storage {
    state: Arc<State>,
    store: Arc<EntryStore>,
    files: Arc<dyn ObjectStore>,
    staged: Arc<Mutex<Arc<Catalog>>>,
    /// Held by whoever changes the staged catalog, while the change is prepared.
    schema_turn: Arc<tokio::sync::Mutex<()>>,
    committer: Committer,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    snapshots: SnapshotMetrics,
    keeping: keeping::Config,
}

impl Storage {
    /// Continues the log that `state` is derived from.
    pub(crate) fn new(
        state: Arc<State>,
        (store, files): (Arc<EntryStore>, Arc<dyn ObjectStore>),
        committer: Committer,
        snapshots: SnapshotMetrics,
        keeping: keeping::Config,
    ) -> Self {
        Self {
            staged: Arc::new(Mutex::new(state.catalog())),
            schema_turn: Arc::default(),
            clock: state.clock().clone(),
            metrics: Metrics::default(),
            state,
            store,
            files,
            committer,
            snapshots,
            keeping,
        }
    }

    /// The views.
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// When what is deleted goes.
    pub(crate) fn keeping(&self) -> &keeping::Config {
        &self.keeping
    }

    /// The catalog as it is published.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.state.catalog()
    }

    /// Everything of one database at this moment.
    pub fn snapshot(&self, database: &str) -> Result<Snapshot, CatalogError> {
        let id = self.catalog().database(database)?.id;
        Ok(self.state.snapshot(Some(id)))
    }

    /// The server's own tables at this moment.
    pub fn internal_snapshot(&self) -> Snapshot {
        self.state.snapshot(None)
    }

    /// The newest files of a database's tables, or of one: not more than `files_max`.
    pub fn newest_files(
        &self,
        database: &str,
        table: Option<&str>,
        files_max: usize,
    ) -> Result<Vec<CommittedFile>, CatalogError> {
        let snapshot = self.snapshot(database)?;
        let mut files: Vec<CommittedFile> = snapshot
            .tables()
            .iter()
            .filter(|(name, view)| !view.is_deleted() && table.is_none_or(|wanted| wanted == *name))
            .flat_map(|(name, view)| view.files().iter().map(|file| as_committed(name, file)))
            .collect();
        files.sort_by(|one, two| {
            let key = |file: &CommittedFile| (file.file.sequence, file.file.path.clone());
            key(two).cmp(&key(one))
        });
        files.truncate(files_max);
        files.reverse();
        Ok(files)
    }

    /// Where the files of tables lie.
    pub fn files(&self) -> &Arc<dyn ObjectStore> {
        &self.files
    }

    /// What triggers follow.
    pub fn feed(&self) -> Feed {
        Feed::new(self.state.clone(), self.store.clone())
    }

    /// The clock that gives points their time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What is counted about writes and the log, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut collectors = self.metrics.collectors();
        collectors.extend(self.committer.metrics().collectors());
        collectors.extend(self.snapshots.collectors());
        collectors.push(Box::new(Memory::new(self.state.clone())));
        collectors
    }

    /// Writes that are checked like any other, and not stored.
    pub fn rehearsal(&self) -> Rehearsal {
        Rehearsal::new(self.staged.lock().clone(), self.clock.clone())
    }

    /// Waits until the log has failed for good.
    pub async fn failed(&self) -> LogError {
        self.committer.failed().await
    }

    /// Writes lines. Returns when they are durable and readable, or with
    /// `no_sync` once they are buffered.
    pub async fn write(&self, request: WriteRequest) -> Result<(), WriteError> {
        let WriteRequest {
            database,
            text,
            precision,
            accept_partial,
            no_sync,
            trace,
        } = request;
        let origin = trace.context();
        let bad_lines = if accept_partial {
            BadLines::Skip
        } else {
            BadLines::Refuse
        };
        let times = (precision, self.clock.now());
        let bytes = text.len();
        self.state.room().await?;
        let prepare = move |catalog: &Arc<Catalog>| {
            let target = Target::Named(database.clone());
            prepare_text(catalog, &target, &text, times, bad_lines)
                .map(|validated| Prepared::new(validated, Some(origin)))
        };
        let (outcome, receipt) = self.submit(bytes, Some(&trace), prepare).await?;
        if !no_sync && let Some(receipt) = receipt {
            receipt.wait_briefly().await?;
        }
        let refused = outcome.refused.len();
        self.metrics.count(Writer::Client, outcome.rows, refused);
        match (outcome.rows, outcome.refused) {
            (0, refused) if refused.is_empty() => Err(WriteError::Empty),
            (_, refused) if refused.is_empty() => Ok(()),
            (_, refused) if accept_partial => Err(WriteError::Partial(refused)),
            (_, refused) => Err(WriteError::Line(first(refused))),
        }
    }

    /// Changes the catalog; returns when the change is durable and published.
    ///
    /// # Errors
    /// [`LogError::NotYetDurable`] if the store has not taken it in time. It stays in line, and
    /// what comes later already builds on it.
    pub async fn change(
        &self,
        make: impl Fn(&Catalog) -> Result<Option<CatalogChange>, CatalogError> + Send + Sync + 'static,
    ) -> Result<(), WriteError> {
        self.changes(move |catalog| Ok(make(catalog)?.into_iter().collect()))
            .await
    }

    /// Makes several changes to the catalog, all or none; returns when they are durable and
    /// published.
    pub async fn changes(
        &self,
        make: impl Fn(&Catalog) -> Result<Vec<CatalogChange>, CatalogError> + Send + Sync + 'static,
    ) -> Result<(), WriteError> {
        if let Some(receipt) = self.submit_changes(make).await? {
            receipt.wait_briefly().await?;
        }
        Ok(())
    }

    /// Changes the catalog, if need be; waits for as long as it takes.
    pub(crate) async fn change_patiently(
        &self,
        make: impl Fn(&Catalog) -> Option<CatalogChange> + Send + Sync + 'static,
    ) -> Result<(), WriteError> {
        let make = move |catalog: &Catalog| Ok(make(catalog).into_iter().collect());
        if let Some(receipt) = self.submit_changes(make).await? {
            receipt.wait().await?;
        }
        Ok(())
    }

    async fn submit_changes(
        &self,
        make: impl Fn(&Catalog) -> Result<Vec<CatalogChange>, CatalogError> + Send + Sync + 'static,
    ) -> Result<Option<Receipt>, WriteError> {
        let prepare = move |catalog: &Arc<Catalog>| {
            prepare_changes(catalog, make(catalog)?).map(|changes| Prepared::new(changes, None))
        };
        Ok(self.submit(0, None, prepare).await?.1)
    }

    /// Appends to the journals; returns when the rows are durable.
    pub async fn append(&self, rows: &JournalRows) -> Result<(), WriteError> {
        let records: Vec<Record> = rows.meanings().map(|meaning| meaning.encode()).collect();
        let bytes = records.iter().map(Record::encoded_bytes).sum();
        let permit = self.committer.reserve(bytes).await?;
        permit.submit(records, None).wait().await?;
        Ok(())
    }

    /// Commits what an invocation leaves behind; returns when it is durable and readable.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, WriteError> {
        let now = self.clock.now();
        let bytes = commit.writes.iter().map(|write| write.text.len()).sum();
        let trace = commit.trace.clone();
        if !commit.writes.is_empty() {
            // A plugin has no use for being told to try later: its trigger waits.
            while self.state.room().await.is_err() {}
        }
        let prepare = move |catalog: &Arc<Catalog>| Ok(prepare_commit(catalog, &commit, now));
        let (committed, receipt) = self.submit(bytes, Some(&trace), prepare).await?;
        if let Some(receipt) = receipt {
            receipt.wait().await?;
        }
        let lines = |write: &RejectedWrite| write.lines;
        let rejected = committed.rejected.iter().map(lines).sum();
        self.metrics.count(Writer::Plugin, committed.rows, rejected);
        Ok(committed)
    }

    /// Prepares a submission against the staged catalog and submits it, without
    /// holding others back while it is prepared. Submissions that change the catalog
    /// take turns; the others only notice if it has changed meanwhile.
    async fn submit<T, F>(
        &self,
        bytes: usize,
        trace: Option<&Trace>,
        prepare: F,
    ) -> Result<(T, Option<Receipt>), WriteError>
    where
        T: Send + 'static,
        F: Fn(&Arc<Catalog>) -> Result<Prepared<T>, CatalogError> + Send + Sync + 'static,
    {
        let mut span = trace.map(|trace| trace.child("buffer"));
        let permit = match self.committer.reserve(bytes).await {
            Ok(permit) => permit,
            Err(error) => {
                if let Some(span) = &mut span {
                    span.fail(&error);
                }
                return Err(error.into());
            }
        };
        let prepare = Arc::new(prepare);
        let mut catalog = self.staged.lock().clone();
        let mut prepared = run_prepare(bytes, prepare.clone(), catalog.clone()).await?;
        if !prepared.changes(&catalog) {
            let staged = self.staged.lock();
            if Arc::ptr_eq(&staged, &catalog) {
                return Ok(prepared.submit(permit, trace));
            }
        }
        let _turn = self.schema_turn.lock().await;
        let current = self.staged.lock().clone();
        if !Arc::ptr_eq(&current, &catalog) {
            catalog = current;
            prepared = run_prepare(bytes, prepare, catalog).await?;
        }
        let mut staged = self.staged.lock();
        if let Some(after) = &prepared.catalog {
            *staged = after.clone();
        }
        Ok(prepared.submit(permit, trace))
    }
}

fn as_committed(table: &str, file: &Arc<ParquetFile>) -> CommittedFile {
    CommittedFile {
        table: table.to_owned(),
        file: ParquetFile::clone(file),
        reason: file.reason(),
        replaces: Vec::new(),
        keeps: file.clone(),
    }
}

/// Runs `prepare`, on a thread that may be blocked if there is much to do.
async fn run_prepare<T, F>(
    bytes: usize,
    prepare: Arc<F>,
    catalog: Arc<Catalog>,
) -> Result<Prepared<T>, WriteError>
where
    T: Send + 'static,
    F: Fn(&Arc<Catalog>) -> Result<Prepared<T>, CatalogError> + Send + Sync + 'static,
{
    if bytes <= INLINE_BYTES_MAX {
        return Ok(prepare(&catalog)?);
    }
    match spawn_blocking(move || prepare(&catalog)).await {
        Ok(prepared) => Ok(prepared?),
        Err(panicked) => Err(WriteError::Panicked(panicked)),
    }
}

/// How much of a text was good.
#[derive(Debug)]
struct Outcome {
    rows: usize,
    refused: Vec<LineError>,
}

/// A submission that fits the catalog it was prepared against, encoded.
#[derive(Debug)]
struct Prepared<T> {
    records: Vec<Record>,
    /// The catalog afterwards; `None` if it does not change.
    catalog: Option<Arc<Catalog>>,
    outcome: T,
}

impl Prepared<Outcome> {
    fn new(validated: Validated, origin: Option<TraceContext>) -> Self {
        let records = encode(validated.records, origin);
        let outcome = Outcome {
            rows: validated.rows,
            refused: validated.refused,
        };
        Self {
            records,
            catalog: validated.catalog,
            outcome,
        }
    }
}

impl<T> Prepared<T> {
    /// Whether the catalog is another one afterwards.
    fn changes(&self, before: &Arc<Catalog>) -> bool {
        self.catalog
            .as_ref()
            .is_some_and(|after| !Arc::ptr_eq(after, before))
    }

    fn submit(self, permit: commit::Permit, trace: Option<&Trace>) -> (T, Option<Receipt>) {
        let receipt = (!self.records.is_empty()).then(|| {
            let span = trace.map(|trace| trace.child("make durable"));
            permit.submit(self.records, span)
        });
        (self.outcome, receipt)
    }
}

/// The records for the log; their rows come from `origin`.
fn encode(records: Vec<Meaning>, origin: Option<TraceContext>) -> Vec<Record> {
    let named = |mut record| {
        if let Meaning::Rows {
            origin: of_rows, ..
        } = &mut record
        {
            *of_rows = origin;
        }
        record.encode()
    };
    records.into_iter().map(named).collect()
}

fn prepare_changes(
    catalog: &Arc<Catalog>,
    changes: Vec<CatalogChange>,
) -> Result<Validated, CatalogError> {
    if changes.is_empty() {
        return Ok(Validated::default());
    }
    let mut staged = Catalog::clone(catalog);
    for change in &changes {
        staged.apply(Sequence::default(), change.clone())?;
    }
    Ok(Validated {
        records: changes.into_iter().map(Meaning::Catalog).collect(),
        catalog: Some(Arc::new(staged)),
        ..Validated::default()
    })
}

/// Validates a text, and creates its database if there is anything to store in it.
pub(crate) fn prepare_text(
    catalog: &Arc<Catalog>,
    target: &Target,
    text: &str,
    times: (Precision, Timestamp),
    bad_lines: BadLines,
) -> Result<Validated, CatalogError> {
    let name = match target {
        Target::Existing(id) => {
            catalog.live_database_by_id(*id)?;
            return validate(catalog, *id, text, times, bad_lines);
        }
        Target::Named(name) => name,
    };
    if catalog.database(name).is_ok() {
        let database = catalog.live_database(name)?;
        return validate(catalog, database.id, text, times, bad_lines);
    }
    let create = catalog.create_database(name, None)?;
    let CatalogChange::CreateDatabase { id, .. } = create else {
        unreachable!("create_database creates a database")
    };
    let mut with_database = Catalog::clone(catalog);
    with_database.apply(Sequence::default(), create.clone())?;
    let with_database = Arc::new(with_database);
    let mut validated = validate(&with_database, id, text, times, bad_lines)?;
    if !validated.records.is_empty() {
        validated.records.insert(0, Meaning::Catalog(create));
        validated.catalog.get_or_insert(with_database);
    }
    Ok(validated)
}

fn prepare_commit(catalog: &Arc<Catalog>, commit: &Commit, now: Timestamp) -> Prepared<Committed> {
    let (mut catalog, mut records, mut rejected) = (catalog.clone(), Vec::new(), Vec::new());
    let mut rows = 0;
    for TargetWrite { target, text } in &commit.writes {
        let times = (Precision::Nanosecond, now);
        let error = match prepare_text(&catalog, target, text, times, BadLines::Refuse) {
            Ok(validated) if validated.refused.is_empty() => {
                catalog = validated.catalog.unwrap_or(catalog);
                records.extend(validated.records);
                rows += validated.rows;
                continue;
            }
            Ok(validated) => WriteError::Line(first(validated.refused)),
            Err(error) => error.into(),
        };
        rejected.push(RejectedWrite {
            lines: text.lines().count(),
            target: target.clone(),
            error,
        });
    }
    // A change that no longer fits, because somebody else was faster, has nothing left to do.
    let change = commit
        .change
        .as_deref()
        .map(|make| prepare_changes(&catalog, make(&catalog)?.into_iter().collect()));
    if let Some(Ok(changed)) = change {
        catalog = changed.catalog.unwrap_or(catalog);
        records.extend(changed.records);
    }
    let done = commit
        .done
        .map(|(trigger, range)| Meaning::Done { trigger, range });
    records.extend(done);
    let journal = (commit.journal)(&rejected);
    records.extend(journal.meanings());
    Prepared {
        records: encode(records, Some(commit.trace.context())),
        catalog: Some(catalog),
        outcome: Committed {
            rejected,
            rows,
            journal,
        },
    }
}

fn first(lines: Vec<LineError>) -> LineError {
    lines
        .into_iter()
        .next()
        .expect("a refused text names the line because of which it was")
}

#[cfg(test)]
mod tests;
