//! What changes in the list of files without any new entry of the log: some were joined, some
//! are too old.

use std::{collections::HashSet, sync::Arc};

use outrigger_model::ids::TableId;

use super::image::{SnapshotId, SnapshotImage, TableFiles};
use crate::{files::ParquetFile, persisted::Announcement};

/// Files that come and go at once.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) removed: Vec<(TableId, Arc<ParquetFile>)>,
    pub(crate) added: Vec<(TableId, Arc<ParquetFile>)>,
    /// It may have been stored already, without an answer.
    pub(super) is_tried: bool,
    /// What it told then, and has to tell again, word for word, if it still follows the same.
    pub(super) told: Option<Told>,
}

/// What an edition tells beside the files of tables.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Which snapshot it follows.
    pub(super) of: SnapshotId,
    /// What the log is to tell of the files that come.
    pub(super) announced: Vec<Arc<Announcement>>,
    /// That, and what it has still to tell of earlier commits.
    pub(super) pending: Vec<Announcement>,
    /// Files that no table has any more, and that a trigger has still to see.
    pub(super) kept: Vec<ParquetFile>,
}

impl Edit {
    /// A file takes the place of others.
    pub(super) fn join(
        table: TableId,
        files: Vec<Arc<ParquetFile>>,
        joined: Arc<ParquetFile>,
    ) -> Self {
        Self {
            removed: files.into_iter().map(|file| (table, file)).collect(),
            added: vec![(table, joined)],
            is_tried: false,
            told: None,
        }
    }

    /// Files go because all that they have is too old.
    pub(super) fn expire(removed: Vec<(TableId, Arc<ParquetFile>)>) -> Self {
        Self {
            removed,
            added: Vec::new(),
            is_tried: false,
            told: None,
        }
    }

    /// Whether all files that go are there.
    pub(super) fn fits(&self, files: &[Arc<ParquetFile>]) -> bool {
        let there: HashSet<*const ParquetFile> = files.iter().map(Arc::as_ptr).collect();
        let mut removed = self.removed.iter();
        removed.all(|(_, file)| there.contains(&Arc::as_ptr(file)))
    }

    /// The snapshot that follows: of the same log entry, with other files.
    pub(super) fn apply(&self, image: &SnapshotImage, told: &Told) -> SnapshotImage {
        let mut image = image.clone();
        image.edition += 1;
        image.pending.clone_from(&told.pending);
        image.kept.clone_from(&told.kept);
        let removed = self.removed.iter();
        let removed: HashSet<&str> = removed.map(|(_, file)| file.path.as_str()).collect();
        for table in &mut image.tables {
            table
                .files
                .retain(|file| !removed.contains(file.path.as_str()));
        }
        for (table, file) in &self.added {
            let file = ParquetFile::clone(file);
            match image.tables.iter_mut().find(|known| known.table == *table) {
                Some(known) => {
                    known.files.push(file);
                    known.files.sort_by_key(|file| file.sequence);
                }
                None => image.tables.push(TableFiles {
                    table: *table,
                    files: vec![file],
                }),
            }
        }
        image.tables.retain(|table| !table.files.is_empty());
        image.tables.sort_by_key(|table| table.table);
        image
    }
}
