//! Which Parquet files were committed that a trigger has still to see?
//!
//! A commit is a snapshot, or an edition of one. Its object names the files, and tells of those
//! that somebody follows: they are *pending* until an entry of the log tells of them too. That
//! entry is the event: triggers follow it as they follow rows, with the same cursors.
//! A file that a trigger has still to see stays where it is, whatever has taken its place.

mod following;
mod view;

use std::{any::Any, collections::HashMap, sync::Arc};

use outrigger_catalog::Catalog;
use outrigger_model::ids::{DatabaseId, Sequence, TableId};
use serde::{Deserialize, Serialize};

use self::following::{Following, followings};
pub(crate) use self::view::Announcements;
use crate::files::ParquetFile;

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
