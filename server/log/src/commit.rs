//! How many submissions become one entry: group commit.
//!
//! Submissions are buffered in order. Every flush interval all that is buffered
//! becomes one entry; once that is durable it is applied to the views, and only
//! then everybody who waits is told. What one [`Permit`] submits stays together:
//! it is in one entry, or in none.

use std::{sync::Arc, time::Duration};

use outrigger_model::{error::Report, ids::Sequence, trace::Span};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    LogError, Metrics, View,
    entry::{Entry, Record},
    store::EntryStore,
};

/// The write buffer is counted in units of this many bytes.
const PERMIT_BYTES: usize = 1024;
/// How soon a failed flush is tried again: first, and at the most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// Settings of the group commit.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often the buffer becomes an entry.
    pub flush_interval: Duration,
    /// The most bytes that may wait for a flush.
    pub buffer_bytes_max: usize,
    /// The most submissions that may, however small they are.
    pub buffer_submissions_max: usize,
    /// How long a submission waits for room in the buffer.
    pub buffer_wait_max: Duration,
    /// How long somebody waits for a submission to become durable who may be told that
    /// it is not known yet.
    pub durable_wait_max: Duration,
}

#[derive(Debug)]
struct Shared {
    buffer: Mutex<Buffer>,
    room: Arc<Semaphore>,
    permits: usize,
    /// What a submission takes of them at least, so that there are not too many.
    least: usize,
    config: Config,
    metrics: Metrics,
    // Why the store has not taken an entry that is tried again.
    trouble: Mutex<Option<String>>,
    // What ended the log, once something has.
    failure: watch::Sender<Option<LogError>>,
}

impl Shared {
    /// Why writers wait.
    fn reason(&self) -> String {
        let trouble = self.trouble.lock().clone();
        trouble.unwrap_or_else(|| "it does not answer".to_owned())
    }
}

#[derive(Debug, Default)]
struct Buffer {
    records: Vec<Record>,
    waiters: Vec<Waiter>,
    stopped: bool,
}

#[derive(Debug)]
struct Waiter {
    done: oneshot::Sender<Result<Sequence, LogError>>,
    // Ends when the submission is durable, whether or not somebody waits for that.
    span: Option<Span>,
    // Held until the submission is durable or lost.
    _room: OwnedSemaphorePermit,
}

/// Submits records to the log.
#[derive(Clone, Debug)]
pub struct Committer(Arc<Shared>);

/// Room in the write buffer for one submission.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    shared: Arc<Shared>,
    room: OwnedSemaphorePermit,
}

/// The promise that a submission becomes durable.
#[derive(Debug)]
#[must_use]
pub struct Receipt {
    done: oneshot::Receiver<Result<Sequence, LogError>>,
    shared: Arc<Shared>,
}

impl Receipt {
    /// Waits until the submission is durable and applied to the views; returns
    /// the entry that holds it.
    pub async fn wait(self) -> Result<Sequence, LogError> {
        self.done.await.unwrap_or(Err(LogError::Stopped))
    }

    /// The same, but not for longer than [`Config::durable_wait_max`]. The submission stays in
    /// line whatever becomes of this.
    ///
    /// # Errors
    /// [`LogError::NotYetDurable`] if the store has not taken it by then.
    pub async fn wait_briefly(self) -> Result<Sequence, LogError> {
        let shared = self.shared.clone();
        let waited = shared.config.durable_wait_max;
        let Ok(result) = timeout(waited, self.wait()).await else {
            let reason = shared.reason();
            return Err(LogError::NotYetDurable { waited, reason });
        };
        result
    }
}

impl Committer {
    /// Waits for room for about `bytes`.
    ///
    /// # Errors
    /// [`LogError::BufferFull`] if there is none in time, [`LogError::Stopped`].
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, LogError> {
        let shared = &self.0;
        // Something larger than the whole buffer goes alone.
        let units = bytes
            .div_ceil(PERMIT_BYTES)
            .clamp(shared.least, shared.permits);
        let units = u32::try_from(units).expect("the number of permits fits");
        let acquire = shared.room.clone().acquire_many_owned(units);
        match timeout(shared.config.buffer_wait_max, acquire).await {
            Ok(Ok(room)) => Ok(Permit {
                shared: shared.clone(),
                room,
            }),
            Ok(Err(_closed)) => Err(LogError::Stopped),
            Err(_elapsed) => Err(LogError::BufferFull {
                bytes_max: shared.config.buffer_bytes_max,
                submissions_max: shared.config.buffer_submissions_max,
                reason: shared.reason(),
            }),
        }
    }

    /// What is counted about the log.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether something has ended the log for good.
    pub fn has_failed(&self) -> bool {
        self.0.failure.borrow().is_some()
    }

    /// Waits until something has ended the log for good, and says what.
    pub async fn failed(&self) -> LogError {
        let mut failure = self.0.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(LogError::Stopped),
            Err(_closed) => LogError::Stopped,
        }
    }
}

impl Permit {
    /// Appends `records` to the buffer, behind all that was submitted before. `span` ends
    /// when they are durable and applied.
    pub fn submit(self, records: Vec<Record>, span: Option<Span>) -> Receipt {
        let (done, receipt) = oneshot::channel();
        let mut buffer = self.shared.buffer.lock();
        if !buffer.stopped {
            buffer.records.extend(records);
            buffer.waiters.push(Waiter {
                done,
                span,
                _room: self.room,
            });
        }
        drop(buffer);
        // Else `done` is dropped, and the receipt says that the log has stopped.
        Receipt {
            done: receipt,
            shared: self.shared,
        }
    }
}

/// The task behind a [`Committer`].
#[derive(Debug)]
pub struct CommitterTask<V> {
    shared: Arc<Shared>,
    store: Arc<EntryStore>,
    view: Arc<V>,
    next: Sequence,
}

/// Continues a log whose last entry is `last`.
pub fn committer<V: View>(
    store: Arc<EntryStore>,
    view: Arc<V>,
    last: Sequence,
    config: Config,
) -> (Committer, CommitterTask<V>) {
    let permits = (config.buffer_bytes_max / PERMIT_BYTES).clamp(1, u32::MAX as usize / 2);
    let shared = Arc::new(Shared {
        buffer: Mutex::default(),
        room: Arc::new(Semaphore::new(permits)),
        permits,
        least: permits.div_ceil(config.buffer_submissions_max.max(1)),
        config,
        metrics: Metrics::default(),
        trouble: Mutex::default(),
        failure: watch::Sender::new(None),
    });
    let task = CommitterTask {
        shared: shared.clone(),
        store,
        view,
        next: last.next(),
    };
    (Committer(shared), task)
}

impl<V: View> CommitterTask<V> {
    /// Flushes every interval until `shutdown`, then once more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let period = self.shared.config.flush_interval;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                () = shutdown.cancelled() => true,
            };
            let flushed = self.flush(&shutdown).await;
            if last || flushed.is_err() {
                return self.stop(flushed.err().unwrap_or(LogError::Stopped));
            }
        }
    }

    /// Makes one entry of the buffer, if there is anything in it.
    async fn flush(&mut self, shutdown: &CancellationToken) -> Result<(), LogError> {
        let (records, waiters) = {
            let mut buffer = self.shared.buffer.lock();
            if buffer.waiters.is_empty() {
                return Ok(());
            }
            (
                std::mem::take(&mut buffer.records),
                std::mem::take(&mut buffer.waiters),
            )
        };
        let sequence = self.next;
        let entry = Arc::new(Entry { sequence, records });
        let timer = self.shared.metrics.flush_seconds.start_timer();
        let result = self.make_durable(&entry, shutdown).await.and_then(|()| {
            self.view.apply(entry).map_err(|reason| {
                let object = self.store.object(sequence);
                LogError::Apply { object, reason }
            })
        });
        timer.observe_duration();
        debug!(
            sequence = sequence.0,
            submissions = waiters.len(),
            "flushed the log"
        );
        for waiter in waiters {
            if let Some(mut span) = waiter.span {
                span.set("log.sequence", sequence.0);
                result.as_ref().err().inspect(|error| span.fail(error));
            }
            // Whoever no longer waits does not want to know.
            drop(waiter.done.send(result.clone().map(|()| sequence)));
        }
        self.next = sequence.next();
        result
    }

    /// Tries until the store has the entry. Gives up only if another server owns
    /// the log, if the disk failed, or at shutdown: the writers then learn that it failed.
    async fn make_durable(
        &self,
        entry: &Entry,
        shutdown: &CancellationToken,
    ) -> Result<(), LogError> {
        let bytes = entry.encode();
        let mut pause = RETRY_FIRST;
        loop {
            match self.store.create(entry.sequence, bytes.clone()).await {
                Ok(()) => {
                    *self.shared.trouble.lock() = None;
                    let metrics = &self.shared.metrics;
                    metrics.entries.inc();
                    metrics.bytes.inc_by(bytes.len() as u64);
                    return Ok(());
                }
                Err(fatal @ (LogError::Fenced { .. } | LogError::Durable { .. })) => {
                    return Err(fatal);
                }
                Err(error) if shutdown.is_cancelled() => return Err(error),
                Err(error) => {
                    *self.shared.trouble.lock() = Some(Report(&error).to_string());
                    warn!(error = %Report(&error), retry_after = ?pause, "cannot write the log, writers wait");
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
            pause = (pause * 2).min(RETRY_MOST);
        }
    }
}

impl<V> CommitterTask<V> {
    /// Ends the log, whoever waits learns it. Only the first reason counts.
    fn stop(&self, reason: LogError) {
        let waiters = {
            let mut buffer = self.shared.buffer.lock();
            if std::mem::replace(&mut buffer.stopped, true) {
                return;
            }
            buffer.records.clear();
            std::mem::take(&mut buffer.waiters)
        };
        self.shared.room.close();
        drop(waiters);
        if !matches!(reason, LogError::Stopped) {
            error!(error = %Report(&reason), "the log has stopped");
            self.shared.failure.send_replace(Some(reason));
        }
    }
}

impl<V> Drop for CommitterTask<V> {
    /// Reached without a stop only by a panic: nobody must wait for ever.
    fn drop(&mut self) {
        self.stop(LogError::Panicked);
    }
}

#[cfg(test)]
mod tests;
