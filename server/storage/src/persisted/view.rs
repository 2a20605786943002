//! What was told of files, and what has still to be told: a view of the log and of the last
//! snapshot.

use std::{collections::HashSet, sync::Arc};

use outrigger_catalog::Catalog;
use outrigger_model::{
    clock::Timestamp,
    ids::{Sequence, TriggerId},
};

use super::{AnnouncedFile, Announcement, CommittedFile, FileDelivery, Following, followings};
use crate::Lag;

/// Files in the log.
#[derive(Debug)]
pub(super) struct Logged {
    entry: Sequence,
    at: Timestamp,
    announcement: Arc<Announcement>,
}

impl Logged {
    /// Somebody was handed its files, and may still read them.
    fn is_lent(&self) -> bool {
        Arc::strong_count(&self.announcement) > 1
    }
}

/// What is not told yet, and what was told that somebody has still to see.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    /// In the order of the commits.
    pending: Vec<Arc<Announcement>>,
    /// In the order of the log.
    pub(super) logged: Vec<Logged>,
}

impl Announcements {
    /// A commit is durable that tells of these.
    pub(crate) fn pend(&mut self, new: impl IntoIterator<Item = Arc<Announcement>>) {
        self.pending.extend(new);
    }

    /// What is to be told to the log.
    pub(crate) fn pending(&self) -> &[Arc<Announcement>] {
        &self.pending
    }

    /// An entry of the log tells of it.
    pub(crate) fn log(&mut self, entry: Sequence, at: Timestamp, announcement: Announcement) {
        self.pending
            .retain(|pending| pending.id() != announcement.id());
        self.logged.push(Logged {
            entry,
            at,
            announcement: Arc::new(announcement),
        });
    }

    /// Forgets what nobody has still to see. Entries up to `removed` are gone.
    pub(crate) fn tidy(&mut self, catalog: &Catalog, removed: Sequence) {
        let of: Vec<Following<'_>> = followings(catalog).collect();
        self.logged.retain(|logged| {
            let is_wanted = || of.iter().any(|of| of.lacks(logged.entry));
            logged.is_lent() || logged.entry > removed && is_wanted()
        });
    }

    /// The names of the files that have to stay, whether a table has them or not.
    pub(crate) fn kept(&self, catalog: &Catalog, removed: Sequence) -> HashSet<String> {
        let of: Vec<Following<'_>> = followings(catalog).collect();
        let mut kept = HashSet::new();
        for announcement in &self.pending {
            let wanted = of.iter().flat_map(|of| announcement.wanted_by(*of));
            kept.extend(wanted.map(|(_, file)| file.file.path.clone()));
        }
        for logged in &self.logged {
            if logged.is_lent() {
                let files = logged.announcement.files.iter();
                kept.extend(files.map(|file| file.file.path.clone()));
                continue;
            }
            let lack = |of: &&Following<'_>| logged.entry > removed && of.lacks(logged.entry);
            let wanted = of.iter().filter(lack);
            let wanted = wanted.flat_map(|of| logged.announcement.wanted_by(*of));
            kept.extend(wanted.map(|(_, file)| file.file.path.clone()));
        }
        kept
    }

    /// The files behind `after`, as many entries as there are up to `last` and as fit.
    pub(crate) fn read(
        &self,
        (catalog, trigger): (&Catalog, TriggerId),
        (after, last): (Sequence, Sequence),
        files_max: usize,
    ) -> FileDelivery {
        let mut delivery = FileDelivery {
            through: last.max(after),
            entries: None,
            files: Vec::new(),
        };
        let Some(of) = Following::of(catalog, trigger) else {
            return delivery;
        };
        let behind = self.logged.partition_point(|logged| logged.entry <= after);
        let logged = self.logged[behind..].iter();
        for logged in logged.take_while(|logged| logged.entry <= last) {
            let wanted: Vec<_> = logged.announcement.wanted_by(of).collect();
            if wanted.is_empty() {
                continue;
            }
            let is_first = delivery.files.is_empty();
            if !is_first && delivery.files.len() + wanted.len() > files_max {
                delivery.through = Sequence(logged.entry.0.saturating_sub(1));
                break;
            }
            let first = delivery.entries.map_or(logged.entry, |(first, _)| first);
            delivery.entries = Some((first, logged.entry));
            let reason = logged.announcement.reason;
            let files = wanted.into_iter().map(|(name, file)| CommittedFile {
                table: name.to_owned(),
                file: file.file.clone(),
                reason,
                replaces: file.replaces.clone(),
                keeps: logged.announcement.clone(),
            });
            delivery.files.extend(files);
        }
        delivery
    }

    /// How far a trigger lags: entries with files, their rows.
    pub(crate) fn lag(&self, catalog: &Catalog, trigger: TriggerId, removed: Sequence) -> Lag {
        let mut lag = Lag::default();
        let Some(of) = Following::of(catalog, trigger) else {
            return lag;
        };
        for logged in &self.logged {
            if logged.entry <= removed || !of.lacks(logged.entry) {
                continue;
            }
            let mut files = logged.announcement.wanted_by(of).peekable();
            if files.peek().is_none() {
                continue;
            }
            lag.entries += 1;
            lag.rows += files.map(|(_, file)| file.file.row_count).sum::<u64>();
            lag.since.get_or_insert(logged.at);
        }
        lag
    }

    /// How much memory it takes, about.
    pub(crate) fn held_bytes(&self) -> usize {
        let logged = self.logged.iter().map(|logged| &logged.announcement);
        let files = logged.chain(&self.pending).flat_map(|one| &one.files);
        let bytes = |file: &AnnouncedFile| {
            let names = std::iter::once(&file.file.path).chain(&file.replaces);
            size_of::<AnnouncedFile>() + names.map(String::len).sum::<usize>()
        };
        files.map(bytes).sum()
    }
}
