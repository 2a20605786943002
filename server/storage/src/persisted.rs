//! Which Parquet files were committed that a trigger has still to see?
//!
//! A commit is a snapshot, or an edition of one. Its object names the files, and tells of those
//! that somebody follows: they are *pending* until an entry of the log tells of them too. That
//! entry is the event: triggers follow it as they follow rows, with the same cursors.
//! A file that a trigger has still to see stays where it is, whatever has taken its place.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use outrigger_catalog::{Catalog, trigger::Trigger};
use outrigger_model::{
    clock::Timestamp,
    ids::{DatabaseId, Sequence, TableId, TriggerId},
};
use serde::{Deserialize, Serialize};

use crate::{Lag, files::ParquetFile, snapshot::followers};

/// So many files stand in one entry of the log; more of one commit stand in several.
const ENTRY_FILES_MAX: usize = 1000;

/// Why there is a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Rows that were in memory only.
    Snapshot,
    /// It takes the place of others, and has their points.
    Compaction,
}

impl Reason {
    /// The word that plugins see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Compaction => "compaction",
        }
    }
}

/// Files that one commit has brought.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    /// The snapshot that names them, and which part of its files these are.
    pub(crate) snapshot: Sequence,
    pub(crate) edition: u32,
    pub(crate) part: u32,
    /// The last entry before the commit began: triggers that are younger don't see it.
    pub(crate) began: Sequence,
    pub(crate) reason: Reason,
    pub(crate) files: Vec<AnnouncedFile>,
}

/// A file of a table.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct AnnouncedFile {
    pub(crate) database: DatabaseId,
    pub(crate) table: TableId,
    #[serde(flatten)]
    pub(crate) file: ParquetFile,
    /// The files whose place it takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<String>,
}

impl Announcement {
    fn id(&self) -> (Sequence, u32, u32) {
        (self.snapshot, self.edition, self.part)
    }

    /// The files that a trigger sees, with the names of their tables.
    fn wanted_by<'a>(
        &'a self,
        of: Following<'a>,
    ) -> impl Iterator<Item = (&'a str, &'a AnnouncedFile)> {
        let is_seen = of.since <= self.began;
        let files = self.files.iter().filter(move |_| is_seen);
        files.filter_map(move |file| Some((of.name_of(file)?, file)))
    }
}

/// What a commit is to tell of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit<'a> {
    pub(crate) snapshot: Sequence,
    pub(crate) edition: u32,
    pub(crate) began: Sequence,
    pub(crate) reason: Reason,
    /// As it was when the commit began.
    pub(crate) catalog: &'a Catalog,
}

impl Commit<'_> {
    /// What it tells of these files: those that somebody follows.
    pub(crate) fn announce(
        &self,
        files: impl Iterator<Item = (TableId, Arc<ParquetFile>)>,
        replaces: &[String],
    ) -> Vec<Arc<Announcement>> {
        let followed = self.followed();
        if followed.is_empty() {
            return Vec::new();
        }
        let mut files: Vec<AnnouncedFile> = files
            .filter_map(|(table, file)| {
                Some(AnnouncedFile {
                    database: *followed.get(&table)?,
                    table,
                    file: ParquetFile::clone(&file),
                    replaces: replaces.to_vec(),
                })
            })
            .collect();
        files.sort_by(|one, two| (one.table, &one.file.path).cmp(&(two.table, &two.file.path)));
        let parts = files.chunks(ENTRY_FILES_MAX).zip(0..);
        let part = |(files, part): (&[AnnouncedFile], u32)| {
            Arc::new(Announcement {
                snapshot: self.snapshot,
                edition: self.edition,
                part,
                began: self.began,
                reason: self.reason,
                files: files.to_vec(),
            })
        };
        parts.map(part).collect()
    }

    /// The tables whose files somebody follows, and their databases.
    fn followed(&self) -> HashMap<TableId, DatabaseId> {
        let of: Vec<Following<'_>> = followings(self.catalog).collect();
        let databases = self.catalog.databases();
        databases
            .flat_map(|database| {
                let tables = database.tables.values();
                tables.map(move |table| (table.id, database.id))
            })
            .filter(|(table, database)| of.iter().any(|of| of.name(*database, *table).is_some()))
            .collect()
    }
}

/// Whose files a trigger sees, and since when.
#[derive(Clone, Copy, Debug)]
struct Following<'a> {
    catalog: &'a Catalog,
    database: DatabaseId,
    table: Option<&'a str>,
    since: Sequence,
    trigger: &'a Trigger,
}

impl<'a> Following<'a> {
    fn of(catalog: &'a Catalog, trigger: TriggerId) -> Option<Self> {
        let (database, trigger) = catalog.trigger_by_id(trigger)?;
        Some(Self {
            catalog,
            database: database.id,
            table: trigger.definition.event.table(),
            since: trigger.since,
            trigger,
        })
    }

    fn name_of(&self, file: &AnnouncedFile) -> Option<&'a str> {
        self.name(file.database, file.table)
    }

    /// The name of the table, if it is one of those that are seen. What was deleted meanwhile
    /// is nobody's event any more.
    fn name(&self, database: DatabaseId, table: TableId) -> Option<&'a str> {
        if database != self.database {
            return None;
        }
        let database = self.catalog.database_by_id(database)?;
        let table = database.table_by_id(table)?;
        let is_deleted = database.deletion.is_some() || table.deletion.is_some();
        let is_wanted = self.table.is_none_or(|wanted| wanted == table.name);
        (is_wanted && !is_deleted).then_some(table.name.as_str())
    }

    /// Whether the trigger has still to see an entry.
    fn lacks(&self, entry: Sequence) -> bool {
        !self.trigger.progress.includes(entry)
    }
}

/// The triggers that follow files.
fn followings(catalog: &Catalog) -> impl Iterator<Item = Following<'_>> {
    followers(catalog)
        .filter(|(_, trigger)| trigger.definition.event.is_of_files())
        .filter_map(|(_, trigger)| Following::of(catalog, trigger.id))
}

/// Files in the log.
#[derive(Debug)]
struct Logged {
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

/// A view of the log and of the last snapshot: what is not told yet, and what was told that
/// somebody has still to see.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    /// In the order of the commits.
    pending: Vec<Arc<Announcement>>,
    /// In the order of the log.
    logged: Vec<Logged>,
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

/// A file that was committed, for a plugin.
#[derive(Clone, Debug)]
pub struct CommittedFile {
    /// The name of its table.
    pub table: String,
    /// The file.
    pub file: ParquetFile,
    /// Why there is one.
    pub reason: Reason,
    /// The names of the files whose place it takes.
    pub replaces: Vec<String>,
    /// The file stays where it is as long as this is kept.
    pub keeps: Arc<dyn Any + Send + Sync>,
}

/// What is handed to a plugin in one event.
#[derive(Clone, Debug)]
pub struct FileDelivery {
    /// Every entry up to this one has been looked at.
    pub through: Sequence,
    /// The first and the last entry that have files for it; `None` if there are none.
    pub entries: Option<(Sequence, Sequence)>,
    /// The files, in the order of their commits.
    pub files: Vec<CommittedFile>,
}

#[cfg(test)]
mod tests;
