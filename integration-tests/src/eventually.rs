//! How a story waits: it looks again until what it waits for is there, or gives up and says
//! what it saw last. Nothing ever sleeps for luck.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a story waits for anything. Long, since a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How long to wait between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `look` until it returns something. What it returns otherwise describes what it saw.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what}: not so within {PATIENCE:?}; last seen: {seen}")
            }
            Err(_not_yet) => sleep(PAUSE).await,
        }
    }
}
