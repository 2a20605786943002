//! How a snapshot looks in bytes (version 1, all numbers little endian).
//!
//! ```text
//!  0  8  magic "OUTRIGSN"
//!  8  2  format version (1)
//! 10  2  zero
//! 12  8  length of the content
//! 20  4  CRC-32 of the 20 bytes before and the content
//! 24  …  the content: a SnapshotImage as JSON
//! ```

use bytes::{BufMut, Bytes};
use outrigger_catalog::image::CatalogImage;
use outrigger_model::ids::{Sequence, TableId};
use serde::{Deserialize, Serialize};

use crate::{files::ParquetFile, persisted::Announcement};

const MAGIC: &[u8; 8] = b"OUTRIGSN";
const VERSION: u16 = 1;
const CHECKED_BYTES: usize = 20;
const HEADER_BYTES: usize = 24;

/// All that a snapshot has. Fields are only ever added, with defaults.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SnapshotImage {
    /// The last log entry that it covers.
    pub(crate) sequence: Sequence,
    /// How often the list of files has changed since, without anything new in the log.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) edition: u32,
    /// The span of time of a file, in seconds.
    pub(crate) window_seconds: u64,
    pub(crate) catalog: CatalogImage,
    /// Of the tables that have any.
    pub(crate) tables: Vec<TableFiles>,
    pub(crate) journals: Vec<JournalFile>,
    /// What the log has still to tell of files that this one or an earlier one has brought.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pending: Vec<Announcement>,
    /// Files that no table has any more, and that a trigger has still to see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<ParquetFile>,
}

/// The files of one table, in the order in which they were made.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableFiles {
    pub(crate) table: TableId,
    pub(crate) files: Vec<ParquetFile>,
}

/// Rows of a journal. Those of its next file in the snapshot follow them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct JournalFile {
    /// Its number in the log.
    pub(crate) table: u16,
    pub(crate) path: String,
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes end too early.
    #[error("it ends after {bytes} bytes")]
    Torn {
        /// How many there are.
        bytes: usize,
    },
    /// They are not what was written.
    #[error("it does not match its checksum")]
    Corrupt,
    /// Written by a newer server.
    #[error("it has format version {0}; this server reads version {VERSION}")]
    Version(u16),
    /// It is whole, but this server does not understand it.
    #[error("its content is not understood")]
    Content(#[from] serde_json::Error),
}

/// Which snapshot is meant: a later one is greater.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SnapshotId {
    pub(crate) sequence: Sequence,
    pub(crate) edition: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl SnapshotImage {
    pub(crate) fn id(&self) -> SnapshotId {
        SnapshotId {
            sequence: self.sequence,
            edition: self.edition,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let content = serde_json::to_vec(self).expect("names and numbers are always valid JSON");
        let mut out = Vec::with_capacity(HEADER_BYTES + content.len());
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u64_le(content.len() as u64);
        out.put_u32_le(checksum(&out, &content));
        out.put_slice(&content);
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let torn = || ImageError::Torn { bytes: bytes.len() };
        let (header, content) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(torn)?;
        let (checked, sum) = header.split_at(CHECKED_BYTES);
        if !checked.starts_with(MAGIC) {
            return Err(ImageError::Corrupt);
        }
        let length = u64::from_le_bytes(checked[12..20].try_into().unwrap_or_default());
        if (content.len() as u64) < length {
            return Err(torn());
        }
        if checksum(checked, content).to_le_bytes() != *sum {
            return Err(ImageError::Corrupt);
        }
        let version = u16::from_le_bytes([checked[8], checked[9]]);
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        Ok(serde_json::from_slice(content)?)
    }
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use outrigger_model::ids::DatabaseId;

    use super::*;
    use crate::persisted::{AnnouncedFile, Reason};

    /// As first written; never change, only add files for later versions.
    const FROZEN: &[u8] = include_bytes!("../../fixtures/snapshot-v1.snapshot");

    fn image() -> SnapshotImage {
        let file = ParquetFile {
            path: "n/dbs/1/2/1970-01-01/00-00/0000000007.parquet".to_owned(),
            size_bytes: 100,
            row_count: 3,
            min_time: -5,
            max_time: 9,
            sequence: 7,
        };
        SnapshotImage {
            sequence: Sequence(7),
            edition: 0,
            window_seconds: 600,
            catalog: CatalogImage {
                last_database: DatabaseId(1),
                last_table: TableId(2),
                ..CatalogImage::default()
            },
            tables: vec![TableFiles {
                table: TableId(2),
                files: vec![file],
            }],
            journals: vec![JournalFile {
                table: 1,
                path: "n/journals/1/00000000000000000007.parquet".to_owned(),
            }],
            pending: Vec::new(),
            kept: Vec::new(),
        }
    }

    #[test]
    fn a_frozen_snapshot_is_read_and_written() {
        assert_eq!(image().encode(), FROZEN);
        assert_eq!(SnapshotImage::decode(FROZEN).unwrap(), image());
    }

    #[test]
    fn what_triggers_on_files_have_to_see_is_read_back() {
        let mut image = image();
        let file = image.tables[0].files[0].clone();
        let told = AnnouncedFile {
            database: DatabaseId(1),
            table: TableId(2),
            file: file.clone(),
            replaces: vec!["n/a.parquet".to_owned()],
        };
        image.pending.push(Announcement {
            snapshot: Sequence(7),
            edition: 1,
            part: 0,
            began: Sequence(9),
            reason: Reason::Compaction,
            files: vec![told],
        });
        image.kept.push(file);
        assert_eq!(SnapshotImage::decode(&image.encode()).unwrap(), image);
    }

    #[test]
    fn no_part_of_a_snapshot_and_no_flipped_bit_passes() {
        let bytes = image().encode();
        for length in 0..bytes.len() {
            assert!(SnapshotImage::decode(&bytes[..length]).is_err(), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SnapshotImage::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
