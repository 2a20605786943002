//! What the log's records mean: kinds and payloads (all numbers little endian).
//!
//! ```text
//! kind 1  rows     database u32, table u32, Arrow IPC stream, then where they came from:
//!                  trace 16 bytes, span 8 bytes, flags u8 (all absent in older records)
//! kind 2  catalog  a CatalogChange as JSON
//! kind 3  done     trigger u32, through u64, after u64 (0 if absent)
//! kind 4  journal  journal table u16, Arrow IPC stream
//! kind 5  files    an Announcement as JSON
//! ```

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use bytes::{Buf, BufMut, Bytes};
use outrigger_catalog::{CatalogChange, progress::EntryRange};
use outrigger_log::entry::Record;
use outrigger_model::{
    ids::{DatabaseId, Sequence, TableId, TriggerId},
    trace::TraceContext,
};

use crate::{
    decoding::{Senseless, check_stream, guarded},
    journal::JournalTable,
    persisted::Announcement,
};

/// A record with its meaning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    Rows {
        database: DatabaseId,
        table: TableId,
        batch: RecordBatch,
        /// The write that brought them.
        origin: Option<TraceContext>,
    },
    Catalog(CatalogChange),
    /// A trigger has dealt with a range of entries.
    Done {
        trigger: TriggerId,
        range: EntryRange,
    },
    Journal {
        table: JournalTable,
        batch: RecordBatch,
    },
    /// Files were committed.
    Files(Announcement),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("record kind {0} is unknown to this server; it was written by a newer one")]
    Kind(u8),
    #[error("journal table {0} is unknown to this server; it was written by a newer one")]
    JournalTable(u16),
    #[error("the record is too short")]
    Short,
    #[error("read the record's columns")]
    Senseless(#[from] Senseless),
    #[error("read the record's columns")]
    Arrow(#[from] ArrowError),
    #[error("read the record's catalog change")]
    Change(#[source] serde_json::Error),
    #[error("read the record's files")]
    Files(#[source] serde_json::Error),
}

const ROWS: u8 = 1;
const CATALOG: u8 = 2;
const DONE: u8 = 3;
const JOURNAL: u8 = 4;
const FILES: u8 = 5;

impl Meaning {
    pub(crate) fn encode(&self) -> Record {
        let mut payload = Vec::new();
        let kind = match self {
            Self::Rows {
                database,
                table,
                batch,
                origin,
            } => {
                payload.put_u32_le(database.0);
                payload.put_u32_le(table.0);
                encode_batch(batch, &mut payload);
                if let Some(origin) = origin {
                    payload.put_slice(&origin.to_bytes());
                }
                ROWS
            }
            Self::Catalog(change) => {
                payload = change.encode();
                CATALOG
            }
            Self::Done { trigger, range } => {
                payload.put_u32_le(trigger.0);
                payload.put_u64_le(range.through.0);
                payload.put_u64_le(range.after.0);
                DONE
            }
            Self::Journal { table, batch } => {
                payload.put_u16_le(table.number());
                encode_batch(batch, &mut payload);
                JOURNAL
            }
            Self::Files(announcement) => {
                payload = serde_json::to_vec(announcement)
                    .expect("names and numbers are always valid JSON");
                FILES
            }
        };
        Record {
            kind,
            payload: payload.into(),
        }
    }

    pub(crate) fn decode(record: &Record) -> Result<Self, RecordError> {
        let mut payload = record.payload.clone();
        let short = |_| RecordError::Short;
        Ok(match record.kind {
            ROWS => {
                let database = DatabaseId(payload.try_get_u32_le().map_err(short)?);
                let table = TableId(payload.try_get_u32_le().map_err(short)?);
                let (batch, rest) = decode_batch(payload)?;
                // Records without it were written before writes were traced.
                let origin = rest.first_chunk().and_then(TraceContext::from_bytes);
                Self::Rows {
                    database,
                    table,
                    batch,
                    origin,
                }
            }
            CATALOG => Self::Catalog(CatalogChange::decode(&payload).map_err(RecordError::Change)?),
            FILES => Self::Files(serde_json::from_slice(&payload).map_err(RecordError::Files)?),
            DONE => Self::Done {
                trigger: TriggerId(payload.try_get_u32_le().map_err(short)?),
                range: EntryRange {
                    through: Sequence(payload.try_get_u64_le().map_err(short)?),
                    // Records without it were written before invocations could overlap.
                    after: Sequence(payload.try_get_u64_le().unwrap_or_default()),
                },
            },
            JOURNAL => {
                let number = payload.try_get_u16_le().map_err(short)?;
                let table =
                    JournalTable::from_number(number).ok_or(RecordError::JournalTable(number))?;
                Self::Journal {
                    table,
                    batch: decode_batch(payload)?.0,
                }
            }
            kind => return Err(RecordError::Kind(kind)),
        })
    }
}

fn encode_batch(batch: &RecordBatch, out: &mut Vec<u8>) {
    StreamWriter::try_new(out, &batch.schema())
        .and_then(|mut writer| {
            writer.write(batch)?;
            writer.finish()
        })
        .expect("our own column types can always be written to memory");
}

/// The batch, and what follows the end of its stream.
fn decode_batch(payload: Bytes) -> Result<(RecordBatch, Bytes), RecordError> {
    guarded(|| read_batch(payload))?
}

fn read_batch(payload: Bytes) -> Result<(RecordBatch, Bytes), RecordError> {
    check_stream(&payload)?;
    let mut reader = StreamReader::try_new(payload.reader(), None)?;
    let batch = reader.next().ok_or(RecordError::Short)??;
    let rest = match reader.next() {
        None => reader.get_ref().get_ref().clone(),
        Some(_) => Bytes::new(),
    };
    Ok((batch, rest))
}

#[cfg(test)]
mod tests {
    use outrigger_model::{
        clock::Timestamp,
        columns::RowsBuilder,
        line_protocol::{Precision, parse},
        trace::Trace,
    };

    use super::*;

    #[test]
    fn records_are_read_back() {
        let mut rows = RowsBuilder::default();
        for point in parse(
            "m,t=a f=1,s=\"x\" 1\nm f=2 2",
            Precision::Nanosecond,
            Timestamp(0),
        ) {
            rows.push(&point.unwrap());
        }
        let (database, table) = (DatabaseId(1), TableId(2));
        let batch = rows.finish();
        for origin in [None, Some(Trace::unrecorded().context())] {
            check(&Meaning::Rows {
                database,
                table,
                batch: batch.clone(),
                origin,
            });
        }
        check(&Meaning::Done {
            trigger: TriggerId(3),
            range: EntryRange {
                after: Sequence(4),
                through: Sequence(7),
            },
        });
        check(&Meaning::Catalog(CatalogChange::DeleteDatabase {
            id: database,
        }));
    }

    /// As first written; never change, only add.
    const FROZEN_FILES: &str = r#"{"snapshot":7,"edition":1,"part":0,"began":9,"reason":"compaction","files":[{"database":1,"table":2,"path":"n/a.parquet","size_bytes":100,"row_count":3,"min_time":-5,"max_time":9,"sequence":7,"replaces":["n/b.parquet"]}]}"#;

    #[test]
    fn a_frozen_announcement_is_read_and_written() {
        let record = Record {
            kind: FILES,
            payload: FROZEN_FILES.into(),
        };
        let meaning = Meaning::decode(&record).unwrap();
        let Meaning::Files(announcement) = &meaning else {
            panic!("{meaning:?}");
        };
        assert_eq!(announcement.files[0].replaces, ["n/b.parquet"]);
        assert_eq!(meaning.encode().payload, FROZEN_FILES);
        let bad = Record {
            kind: FILES,
            payload: "{}".into(),
        };
        assert!(matches!(Meaning::decode(&bad), Err(RecordError::Files(_))));
    }

    #[test]
    fn a_cursor_of_the_old_form_is_everything_up_to_it() {
        let payload = [&3_u32.to_le_bytes()[..], &4_u64.to_le_bytes()].concat();
        let record = Record {
            kind: DONE,
            payload: payload.into(),
        };
        let (trigger, range) = (
            TriggerId(3),
            EntryRange {
                after: Sequence(0),
                through: Sequence(4),
            },
        );
        let done = Meaning::Done { trigger, range };
        assert_eq!(Meaning::decode(&record).unwrap(), done);
    }

    #[test]
    fn rows_may_have_been_written_without_their_origin() {
        let mut rows = RowsBuilder::default();
        for point in parse("m f=1 1", Precision::Nanosecond, Timestamp(0)) {
            rows.push(&point.unwrap());
        }
        let batch = rows.finish();
        // As the first version wrote it: the stream and nothing behind it.
        let mut payload = [1_u32.to_le_bytes(), 2_u32.to_le_bytes()].concat();
        encode_batch(&batch, &mut payload);
        let rows = Meaning::Rows {
            database: DatabaseId(1),
            table: TableId(2),
            batch,
            origin: None,
        };
        for behind in [&[][..], &[7; 24], &[0; 25]] {
            let payload = [&payload, behind].concat().into();
            let record = Record {
                kind: ROWS,
                payload,
            };
            assert_eq!(Meaning::decode(&record).unwrap(), rows, "{behind:?}");
        }
    }

    #[test]
    fn strange_records_are_refused() {
        let record = |kind, payload: &'static [u8]| Record {
            kind,
            payload: payload.into(),
        };
        assert!(matches!(
            Meaning::decode(&record(9, b"")),
            Err(RecordError::Kind(9))
        ));
        assert!(matches!(
            Meaning::decode(&record(DONE, b"abc")),
            Err(RecordError::Short)
        ));
        assert!(Meaning::decode(&record(ROWS, b"12345678\x04\0\0\0abcd")).is_err());
    }

    /// A reader that believes what is said would ask for that much memory, and the server would
    /// end without a word.
    #[test]
    fn rows_that_claim_to_be_huge_are_refused() {
        let mut rows = RowsBuilder::default();
        for point in parse("m,t=a f=1 1", Precision::Nanosecond, Timestamp(0)) {
            rows.push(&point.unwrap());
        }
        let mut stream = Vec::new();
        encode_batch(&rows.finish(), &mut stream);
        let mut refused = 0;
        for at in 0..stream.len() {
            let mut bad = stream.clone();
            bad[at] ^= 0x7f;
            let payload = [&[0; 8][..], &bad].concat().into();
            let record = Record {
                kind: ROWS,
                payload,
            };
            refused += usize::from(Meaning::decode(&record).is_err());
        }
        assert!(refused > stream.len() / 8, "{refused} of {}", stream.len());
    }

    #[track_caller]
    fn check(meaning: &Meaning) {
        assert_eq!(&Meaning::decode(&meaning.encode()).unwrap(), meaning);
    }
}
