//! How writers are held back while rows cannot become files as fast as others come: memory has a
//! bound, however slow the store is.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use outrigger_model::bytes::ByteSize;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{WriteError, state::State};

/// How often a writer that waits looks again.
const LOOK: Duration = Duration::from_millis(50);

/// What is told is told in these.
const MEBIBYTE: usize = ByteSize::mib(1).0;

/// What is known of the memory that rows take.
#[derive(Debug)]
pub(crate) struct Pressure {
    max: ByteSize,
    wait_max: Duration,
    /// What was counted last, and what has come since: not less than there is.
    estimate: AtomicUsize,
    counted_at: Mutex<Option<Instant>>,
    /// Why the last snapshot could not be made, if it could not.
    failure: Mutex<Option<String>>,
}

impl Pressure {
    /// Rows may take so much; a writer waits so long for room.
    pub(crate) fn new(max: ByteSize, wait_max: Duration) -> Self {
        Self {
            max,
            wait_max,
            estimate: AtomicUsize::new(0),
            counted_at: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Rows have come that take about so many bytes.
    pub(crate) fn add(&self, bytes: usize) {
        self.estimate.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All rows take so many bytes.
    pub(crate) fn counted(&self, bytes: usize) {
        self.estimate.store(bytes, Ordering::Relaxed);
    }

    /// A snapshot could not be made, and why; or the last one could.
    pub(crate) fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock() = failure;
    }

    fn is_high(&self) -> bool {
        self.estimate.load(Ordering::Relaxed) > self.max.0
    }

    /// Whether it is time to count again. Where many wait, one of them does.
    fn should_count(&self) -> bool {
        let mut counted_at = self.counted_at.lock();
        let now = Instant::now();
        if counted_at.is_some_and(|at| now < at + LOOK) {
            return false;
        }
        *counted_at = Some(now);
        true
    }

    fn error(&self) -> WriteError {
        let failure = self.failure.lock().clone();
        WriteError::Behind {
            rows: ByteSize::mib(self.estimate.load(Ordering::Relaxed).div_ceil(MEBIBYTE)),
            max: self.max,
            reason: failure.unwrap_or_else(|| "it is being written".to_owned()),
        }
    }
}

impl State {
    /// Waits until there is room for more rows.
    ///
    /// # Errors
    /// [`WriteError::Behind`] if there is none in time.
    pub(crate) async fn room(&self) -> Result<(), WriteError> {
        let deadline = Instant::now() + self.pressure().wait_max;
        while self.lacks_room() {
            if Instant::now() >= deadline {
                return Err(self.pressure().error());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn lacks_room(&self) -> bool {
        let pressure = self.pressure();
        // Counting takes time, so it is done only where it matters.
        if pressure.is_high() && pressure.should_count() {
            self.rows_bytes();
        }
        pressure.is_high()
    }
}
