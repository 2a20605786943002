//! How the list of files is changed between snapshots: by one object more, as in a snapshot.

use std::{collections::HashSet, sync::Arc};

use outrigger_log::LogError;
use outrigger_model::error::Report;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Edit, SnapshotTask, pause, unshared};
use crate::{
    files::ParquetFile,
    persisted::{self, Reason},
    snapshot::{
        edit::Told,
        image::{SnapshotId, SnapshotImage},
    },
};

impl SnapshotTask {
    /// Sees from time to time which files are too old.
    pub(super) fn expire(&mut self) {
        if Instant::now() < self.expires_at {
            return;
        }
        self.expires_at = Instant::now() + self.parts.config.retention_check;
        let waiting: HashSet<*const ParquetFile> = self
            .edits
            .iter()
            .flat_map(|edit| &edit.removed)
            .map(|(_, file)| Arc::as_ptr(file))
            .collect();
        let mut expired = self.parts.state.expired();
        expired.retain(|(_, file)| !waiting.contains(&Arc::as_ptr(file)));
        if !expired.is_empty() {
            info!(
                files = expired.len(),
                "files are older than their databases keep rows"
            );
            self.edits.push_back(Edit::expire(expired));
        }
    }

    /// Stores what has changed. Returns whether anything has.
    pub(super) async fn store_edits(&mut self) -> bool {
        let mut has_changed = false;
        // A snapshot that could not be made yet does not know of edits.
        while self.pending.is_none() && Instant::now() >= self.not_before {
            let Some(mut edit) = self.edits.pop_front() else {
                break;
            };
            if !edit.fits(&self.files) {
                // Somebody was faster: the table was deleted, or the files were too old.
                self.discard(&edit).await;
                continue;
            }
            let of = self.image.as_ref().map(SnapshotImage::id);
            let told = edit.told.take().filter(|told| Some(told.of) == of);
            let told = told.unwrap_or_else(|| self.told(&edit, of.unwrap_or_default()));
            match self.store_edit(&edit, &told).await {
                Ok(()) => has_changed = true,
                Err(error) => {
                    self.failures += 1;
                    let pause = pause(self.failures);
                    warn!(error = %Report(&error), retry_after = ?pause, "cannot store which files there are, they stay as they are");
                    self.not_before = Instant::now() + pause;
                    // The very same again: it may have been stored without an answer.
                    edit.is_tried = true;
                    edit.told = Some(told);
                    self.edits.push_front(edit);
                }
            }
        }
        has_changed
    }

    /// Removes the files that nothing will name.
    async fn discard(&self, edit: &Edit) {
        for (_, file) in edit.added.iter().filter(|_| !edit.is_tried) {
            if let Err(error) = self.parts.objects.remove(&file.path).await {
                warn!(error = %Report(&error), "cannot remove a file; the next start will");
            }
        }
    }

    /// What the edition is to tell beside the files.
    fn told(&self, edit: &Edit, of: SnapshotId) -> Told {
        let state = &self.parts.state;
        let (catalog, began) = state.catalog_at();
        let commit = persisted::Commit {
            snapshot: of.sequence,
            edition: of.edition + 1,
            began,
            reason: Reason::Compaction,
            catalog: &catalog,
        };
        let removed = edit.removed.iter().map(|(_, file)| file);
        let replaces: Vec<String> = removed.clone().map(|file| file.path.clone()).collect();
        let announced = commit.announce(edit.added.iter().cloned(), &replaces);
        let leaving: Vec<_> = self.leaving.iter().chain(removed).cloned().collect();
        let pending = state.pending();
        Told {
            of,
            pending: unshared(pending.iter().chain(&announced)),
            kept: unshared(&self.kept(&leaving)),
            announced,
        }
    }

    async fn store_edit(&mut self, edit: &Edit, told: &Told) -> Result<(), LogError> {
        let Some(image) = &self.image else {
            return Ok(());
        };
        let before = image.id();
        let image = edit.apply(image, told);
        self.parts.objects.write(&image).await?;
        self.failures = 0;
        self.image = Some(image);
        self.parts.state.publish_edit(edit, &told.announced);
        self.parts.metrics.edited(edit);
        let removed = self.take_out(edit);
        if let Err(error) = self.parts.objects.forget(before).await {
            warn!(error = %Report(&error), "cannot remove what a snapshot has replaced; the next start will");
        }
        // After that: whoever starts from the older one needs them.
        self.leaving.extend(removed);
        Ok(())
    }

    /// Changes what is known of the last snapshot's files. Returns those that go.
    fn take_out(&mut self, edit: &Edit) -> Vec<Arc<ParquetFile>> {
        let removed = edit.removed.iter().map(|(_, file)| file.clone());
        let removed: Vec<Arc<ParquetFile>> = removed.collect();
        let gone: HashSet<*const ParquetFile> = removed.iter().map(Arc::as_ptr).collect();
        self.files.retain(|file| !gone.contains(&Arc::as_ptr(file)));
        self.files
            .extend(edit.added.iter().map(|(_, file)| file.clone()));
        removed
    }
}
