//! How a log entry looks in bytes (version 1, all numbers little endian).
//!
//! ```text
//! header   8  magic "OUTRIGLG"
//!          2  format version (1)
//!          2  zero
//!          4  number of records
//!          8  sequence
//!          4  CRC-32 of the 24 bytes before
//! record   1  kind
//!          4  length of the payload
//!          4  CRC-32 of kind, length and payload
//!          …  payload
//! ```

use bytes::{Buf, BufMut, Bytes};
use crc32fast::Hasher;
use outrigger_model::ids::Sequence;

const MAGIC: &[u8; 8] = b"OUTRIGLG";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 28;
const RECORD_HEADER_BYTES: usize = 9;

/// One thing that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// What the payload is; given a meaning by the crates above.
    pub kind: u8,
    /// At most 4 GiB.
    pub payload: Bytes,
}

impl Record {
    /// The bytes that the record takes in an entry.
    pub fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }
}

/// All that was buffered at one flush.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The entry's place in the log.
    pub sequence: Sequence,
    /// In the order in which they were submitted.
    pub records: Vec<Record>,
}

/// Why bytes are not an entry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the entry ends at byte {offset} in the middle of {what}")]
    Torn {
        /// Where the incomplete part begins.
        offset: usize,
        /// Its name.
        what: &'static str,
    },
    /// A checksum or the magic is wrong.
    #[error("{what} at byte {offset} does not match its checksum")]
    Corrupt {
        /// Where it begins.
        offset: usize,
        /// Its name.
        what: &'static str,
    },
    /// Written by a newer server.
    #[error("the entry has format version {version}; this server reads version {VERSION}")]
    Version {
        /// The version it has.
        version: u16,
    },
    /// The object's name and its content disagree.
    #[error("the entry says it has sequence {found}")]
    Sequence {
        /// What the content says.
        found: Sequence,
    },
    /// More bytes follow than the header announces.
    #[error("unexpected bytes follow the last record at byte {offset}")]
    Trailing {
        /// Where they begin.
        offset: usize,
    },
}

impl Entry {
    /// The entry as bytes.
    pub fn encode(&self) -> Bytes {
        let size = HEADER_BYTES
            + self
                .records
                .iter()
                .map(Record::encoded_bytes)
                .sum::<usize>();
        let mut out = Vec::with_capacity(size);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(u32::try_from(self.records.len()).expect("the write buffer bounds records"));
        out.put_u64_le(self.sequence.0);
        let checksum = crc32fast::hash(&out);
        out.put_u32_le(checksum);
        for record in &self.records {
            let length =
                u32::try_from(record.payload.len()).expect("the write buffer bounds payloads");
            out.put_u8(record.kind);
            out.put_u32_le(length);
            out.put_u32_le(record_checksum(record.kind, length, &record.payload));
            out.put_slice(&record.payload);
        }
        out.into()
    }

    /// Reads an entry that was found under the name of `sequence`.
    pub fn decode(sequence: Sequence, mut bytes: Bytes) -> Result<Self, DecodeError> {
        let total = bytes.len();
        let records = decode_header(sequence, &bytes)?;
        bytes.advance(HEADER_BYTES);
        let mut entry = Self {
            sequence,
            records: Vec::new(),
        };
        for _ in 0..records {
            let offset = total - bytes.len();
            entry.records.push(decode_record(offset, &mut bytes)?);
        }
        if !bytes.is_empty() {
            return Err(DecodeError::Trailing {
                offset: total - bytes.len(),
            });
        }
        Ok(entry)
    }
}

fn decode_header(sequence: Sequence, bytes: &[u8]) -> Result<u32, DecodeError> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(DecodeError::Torn {
            offset: 0,
            what: "the header",
        });
    };
    let (mut fields, mut checksum) = header.split_at(HEADER_BYTES - 4);
    let valid = checksum.get_u32_le() == crc32fast::hash(fields) && fields.starts_with(MAGIC);
    if !valid {
        return Err(DecodeError::Corrupt {
            offset: 0,
            what: "the header",
        });
    }
    fields.advance(MAGIC.len());
    let version = fields.get_u16_le();
    if version != VERSION {
        return Err(DecodeError::Version { version });
    }
    fields.advance(2);
    let records = fields.get_u32_le();
    let found = Sequence(fields.get_u64_le());
    if found != sequence {
        return Err(DecodeError::Sequence { found });
    }
    Ok(records)
}

fn decode_record(offset: usize, bytes: &mut Bytes) -> Result<Record, DecodeError> {
    let torn = DecodeError::Torn {
        offset,
        what: "a record",
    };
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(torn);
    }
    let kind = bytes.get_u8();
    let length = bytes.get_u32_le();
    let checksum = bytes.get_u32_le();
    if bytes.len() < length as usize {
        return Err(torn);
    }
    let payload = bytes.split_to(length as usize);
    if checksum != record_checksum(kind, length, &payload) {
        return Err(DecodeError::Corrupt {
            offset,
            what: "a record",
        });
    }
    Ok(Record { kind, payload })
}

fn record_checksum(kind: u8, length: u32, payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 as first written; never changes.
    const FIXTURE: &[u8] = include_bytes!("../fixtures/entry-v1.entry");

    fn sample() -> Entry {
        let record = |kind, payload: &'static [u8]| Record {
            kind,
            payload: payload.into(),
        };
        Entry {
            sequence: Sequence(42),
            records: vec![record(1, b"hello"), record(2, b"")],
        }
    }

    #[test]
    fn the_frozen_fixture_is_read_and_written() {
        assert_eq!(sample().encode(), FIXTURE);
        assert_eq!(
            Entry::decode(Sequence(42), Bytes::from_static(FIXTURE)).unwrap(),
            sample()
        );
    }

    #[test]
    fn every_cut_is_seen_as_torn() {
        for end in 0..FIXTURE.len() {
            let cut = Bytes::from_static(&FIXTURE[..end]);
            let error = Entry::decode(Sequence(42), cut).unwrap_err();
            assert!(matches!(error, DecodeError::Torn { .. }), "{end}: {error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for index in 0..FIXTURE.len() * 8 {
            let mut bytes = FIXTURE.to_vec();
            bytes[index / 8] ^= 1 << (index % 8);
            assert!(
                Entry::decode(Sequence(42), bytes.into()).is_err(),
                "bit {index}"
            );
        }
    }

    #[test]
    fn a_renamed_entry_is_refused() {
        let error = Entry::decode(Sequence(43), Bytes::from_static(FIXTURE)).unwrap_err();
        assert_eq!(
            error,
            DecodeError::Sequence {
                found: Sequence(42)
            }
        );
    }
}
