//! When small files are joined, and how much that may take: one thread, half of its time at
//! most, and a bound of memory.
//!
//! Joining only makes a new file. That it takes the place of others is committed by the task
//! that makes snapshots.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt as _, pending};
use object_store::path::Path;
use outrigger_model::{bytes::ByteSize, ids::TableId};
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

use super::{SnapshotError, SnapshotObjects, edit::Edit};
use crate::{
    files::{Bounds, ParquetFile, join_files, joined_name, pick},
    state::State,
};

/// Beside the bytes of the files that are joined, there are those of the new one, and parts of
/// all of them that are unpacked.
const SHARES_OF_MEMORY: usize = 4;
/// Time passes, and with it the time in which much is written: how often is looked again.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(30);

type Job = BoxFuture<'static, Result<Option<Edit>, SnapshotError>>;

/// Joins files, a few at a time.
pub(super) struct Compactor {
    state: Arc<State>,
    objects: SnapshotObjects,
    window: Duration,
    memory: ByteSize,
    job: Option<Job>,
    began: Instant,
    rests_until: Instant,
    looks_at: Instant,
    /// The table that was looked at last: each has its turn.
    last: TableId,
    stop: CancellationToken,
    _stops: DropGuard,
}

impl Compactor {
    pub(super) fn new(
        state: Arc<State>,
        objects: SnapshotObjects,
        window: Duration,
        memory: ByteSize,
    ) -> Self {
        let (now, stop) = (Instant::now(), CancellationToken::new());
        Self {
            state,
            objects,
            window,
            memory,
            job: None,
            began: now,
            rests_until: now,
            looks_at: now,
            last: TableId::default(),
            _stops: stop.clone().drop_guard(),
            stop,
        }
    }

    /// There are other files than before.
    pub(super) fn wake(&mut self) {
        self.looks_at = Instant::now();
    }

    /// Begins to join files, if there are any that should be.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if self.memory.0 == 0 || self.job.is_some() || now < self.rests_until.max(self.looks_at) {
            return;
        }
        match self.pick() {
            None => self.looks_at = now + LOOK_AGAIN,
            Some((table, files)) => {
                self.last = table;
                self.began = now;
                let nanos = self.state.clock().now().0;
                let (objects, stop) = (self.objects.clone(), self.stop.clone());
                self.job = Some(join(objects, stop, (table, files), nanos).boxed());
            }
        }
    }

    /// What is to be joined: of the table whose turn it is.
    fn pick(&self) -> Option<(TableId, Vec<Arc<ParquetFile>>)> {
        let mut tables = self.state.files_by_table();
        tables.sort_unstable_by_key(|(table, ..)| (*table <= self.last, *table));
        let now = self.state.clock().now();
        tables.into_iter().find_map(|(table, files, retention)| {
            let bounds = Bounds {
                window: self.window,
                retention,
                bytes_max: (self.memory.0 / SHARES_OF_MEMORY) as u64,
            };
            Some((table, pick(&files, &bounds, now)?))
        })
    }

    /// Waits until files are joined; forever if none are about to be.
    pub(super) async fn joined(&mut self) -> Result<Option<Edit>, SnapshotError> {
        let Some(job) = &mut self.job else {
            return pending().await;
        };
        let joined = job.await;
        self.job = None;
        let took = self.began.elapsed();
        let rest = if joined.is_ok() { took } else { PAUSE };
        self.rests_until = Instant::now() + rest;
        joined
    }
}

async fn join(
    objects: SnapshotObjects,
    stop: CancellationToken,
    (table, files): (TableId, Vec<Arc<ParquetFile>>),
    nanos: i64,
) -> Result<Option<Edit>, SnapshotError> {
    let began = Instant::now();
    let mut contents = Vec::with_capacity(files.len());
    for file in &files {
        contents.push(objects.read(&file.path).await?);
    }
    let joined = spawn_blocking(move || join_files(contents, &stop)).await;
    let joined = joined.map_err(SnapshotError::Panicked)?;
    let joined = joined.map_err(|source| SnapshotError::Encode {
        table: table.to_string(),
        source,
    })?;
    let first = files.iter().min_by_key(|file| file.min_time);
    let last = files.iter().map(|file| file.sequence).max();
    let (Some(encoded), Some(first), Some(sequence)) = (joined, first, last) else {
        return Ok(None);
    };
    let directory = first.path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let path = Path::from(format!("{directory}/{}", joined_name(sequence, nanos)));
    let added = Arc::new(ParquetFile {
        path: path.to_string(),
        size_bytes: encoded.bytes.len() as u64,
        row_count: encoded.rows as u64,
        min_time: encoded.min_time,
        max_time: encoded.max_time,
        sequence,
    });
    objects.create(&path, encoded.bytes).await?;
    info!(
        %table,
        files = files.len(),
        rows = added.row_count,
        bytes = added.size_bytes,
        seconds = began.elapsed().as_secs_f64(),
        "joined files"
    );
    Ok(Some(Edit::join(table, files, added)))
}
