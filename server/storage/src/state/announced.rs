//! Which files that were committed has somebody still to be told of?

use std::{collections::HashSet, sync::Arc};

use outrigger_model::ids::{Sequence, TriggerId};

use super::{Published, State};
use crate::{
    Lag,
    persisted::{Announcement, FileDelivery},
};

impl State {
    /// The log is to tell of these.
    pub(super) fn pend(&self, published: &mut Published, announced: &[Arc<Announcement>]) {
        published.announcements.pend(announced.iter().cloned());
        if !announced.is_empty() {
            self.committed.notify_one();
        }
    }

    /// What the log has still to tell of files that were committed.
    pub(crate) fn pending(&self) -> Vec<Arc<Announcement>> {
        self.published.read().announcements.pending().to_vec()
    }

    /// The names of the files that have to stay because somebody has still to see them.
    pub(crate) fn kept_files(&self) -> HashSet<String> {
        let published = self.published.read();
        let Published {
            catalog,
            announcements,
            ..
        } = &*published;
        announcements.kept(catalog, self.removed())
    }

    /// Forgets the files that nobody has still to see.
    pub(crate) fn tidy_announcements(&self) {
        let published = &mut *self.published.write();
        let (catalog, removed) = (published.catalog.clone(), self.removed());
        published.announcements.tidy(&catalog, removed);
    }

    /// The files behind `after` that a trigger is to see.
    pub(crate) fn committed_files(
        &self,
        trigger: TriggerId,
        (after, last): (Sequence, Sequence),
        files_max: usize,
    ) -> FileDelivery {
        let published = self.published.read();
        let of = (published.catalog.as_ref(), trigger);
        let announcements = &published.announcements;
        announcements.read(of, (after, last), files_max)
    }

    /// How far a trigger lags behind the files that were committed.
    pub(crate) fn files_lag(&self, trigger: TriggerId) -> Lag {
        let published = self.published.read();
        let (catalog, announcements) = (&published.catalog, &published.announcements);
        announcements.lag(catalog, trigger, self.removed())
    }
}
