//! What does a server make of text that claims to be line protocol? Each line is stored or
//! refused with its number, and what was stored is there after a restart.

use std::{num::NonZeroU64, sync::Arc};

use bolero::{TypeGenerator, check};
use object_store::memory::InMemory;
use outrigger_fuzz::{Running, runtime};
use outrigger_model::{
    clock::Timestamp,
    line_protocol::{Precision, parse},
};
use outrigger_storage::WriteError;

/// A piece of a line: what has a meaning comes more often than by chance.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Name(u8),
    Known(u8),
    Number(i64),
    Float(f64),
    Text(String),
    Byte(u8),
}

const KNOWN: &[&str] = &[
    ",",
    " ",
    "=",
    "\n",
    "\\",
    "\"",
    "i",
    "u",
    "t",
    "true",
    "FALSE",
    "#",
    "\r\n",
    "\t",
    "\\\\",
    "\\ ",
    "\\,",
    "\\=",
    "\\\"",
    "time",
    "é",
    "\u{0}",
    "1e999",
    "-",
    "NaN",
    "m,t=a f=1 1\n",
    "m f=1i 1\n",
    "m,t=a s=\"x\" 1\n",
    "9223372036854775808",
    "18446744073709551615u",
];

fn text_of(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Name(name) => text.push(char::from(b'a' + name % 4)),
            Piece::Known(which) => text.push_str(KNOWN[usize::from(*which) % KNOWN.len()]),
            Piece::Number(number) => text.push_str(&number.to_string()),
            Piece::Float(number) => text.push_str(&number.to_string()),
            Piece::Text(other) => text.push_str(other),
            Piece::Byte(byte) => text.push(char::from(*byte)),
        }
    }
    text
}

#[test]
fn every_line_is_a_point_or_an_error_with_its_number() {
    check!().with_type::<Vec<Piece>>().for_each(|pieces| {
        let text = text_of(pieces);
        let lines = text.split('\n').count();
        let mut last = 0;
        for error in parse(&text, Precision::Nanosecond, Timestamp(0)).filter_map(Result::err) {
            assert!(
                error.line_number > last && error.line_number <= lines,
                "{error:?}"
            );
            last = error.line_number;
        }
    });
}

#[test]
fn what_is_stored_is_there_after_a_restart() {
    check!()
        .with_iterations(200)
        .with_type::<Vec<Vec<Piece>>>()
        .for_each(|writes| runtime().block_on(write_and_restart(writes)));
}

async fn write_and_restart(writes: &[Vec<Piece>]) {
    let store = Arc::new(InMemory::new());
    let every = NonZeroU64::new(3).expect("it is 3");
    let server = Running::open(&store, every).await.expect("empty");
    for pieces in writes {
        match server.write("db", &text_of(pieces)).await {
            Ok(()) | Err(WriteError::Empty | WriteError::Line(_) | WriteError::Partial(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let before = tables(&server);
    server.stop().await;
    let server = Running::open(&store, every).await.expect("it was written");
    assert_eq!(tables(&server), before);
    server.stop().await;
}

/// Every table, with its columns.
fn tables(server: &Running) -> Vec<String> {
    let catalog = server.storage.catalog();
    let databases = catalog.databases();
    let tables = databases.flat_map(|database| database.tables.iter());
    let mut shown: Vec<String> = tables
        .map(|(name, table)| format!("{name}: {:?}", table.schema))
        .collect();
    shown.sort();
    shown
}
