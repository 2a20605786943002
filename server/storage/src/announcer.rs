//! Who tells the log of files that were committed? A task beside the one that makes snapshots:
//! that must never wait for room in the log, which may be waiting for a snapshot.

use std::{sync::Arc, time::Duration};

use outrigger_log::{LogError, commit::Committer};
use outrigger_model::error::Report;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{persisted::Announcement, record::Meaning, state::State};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the log what it has still to be told, until `shutdown`. What is not told by then, the
/// snapshot remembers.
pub(crate) async fn tell(state: Arc<State>, committer: Committer, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tell_all(&state, &committer) => {}
    }
}

/// Ends only if the log has failed for good.
async fn tell_all(state: &State, committer: &Committer) {
    loop {
        for announcement in state.pending() {
            while let Err(error) = submit(&announcement, committer).await {
                if committer.has_failed() {
                    return;
                }
                warn!(error = %Report(&error), "cannot tell the log of files that were committed, trying again");
                sleep(PAUSE).await;
            }
        }
        state.committed.notified().await;
    }
}

/// Returns when the entry is durable and applied, so that what it tells of is not pending any
/// more. Fails only if it was not submitted, or if the log has failed.
async fn submit(announcement: &Arc<Announcement>, committer: &Committer) -> Result<(), LogError> {
    let meaning = Meaning::Files(Announcement::clone(announcement));
    let record = meaning.encode();
    let permit = committer.reserve(record.encoded_bytes()).await?;
    permit.submit(vec![record], None).wait().await?;
    Ok(())
}
