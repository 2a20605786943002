//! What does a server make of text that claims to be line protocol? Each line is stored or
//! refused with its number, and what was stored is there after a restart.
//!
//! `cargo test` tries the same inputs each time, and the texts in `corpus/lines`; `make fuzz`
//! tries others for as long as is asked for.

#[path = "shared/corpus.rs"]
mod corpus;
#[path = "shared/inputs.rs"]
mod inputs;

use std::{num::NonZeroU64, sync::Arc};

use bolero::TypeGenerator;
use object_store::memory::InMemory;
use outrigger_fuzz::{Damage, Running, damage, runtime};
use outrigger_model::{
    clock::Timestamp,
    line_protocol::{Precision, parse},
};
use outrigger_storage::WriteError;

use crate::inputs::try_inputs;

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

/// Texts that clients have sent: of Telegraf, with everything that is escaped, with mistakes.
fn corpus_texts() -> Vec<String> {
    let files = corpus::files("lines").into_iter();
    let text = |(_, bytes): (String, bytes::Bytes)| String::from_utf8_lossy(&bytes).into_owned();
    files.map(text).collect()
}

fn check_lines(text: &str) {
    let lines = text.split('\n').count();
    let mut last = 0;
    for error in parse(text, Precision::Nanosecond, Timestamp(0)).filter_map(Result::err) {
        assert!(
            error.line_number > last && error.line_number <= lines,
            "{error:?}"
        );
        last = error.line_number;
    }
}

#[test]
fn every_line_is_a_point_or_an_error_with_its_number() {
    for text in corpus_texts() {
        check_lines(&text);
    }
    try_inputs!(3000, Vec<Piece>, |pieces| check_lines(&text_of(pieces)));
}

#[test]
fn damaged_texts_are_points_or_errors_too() {
    let texts = corpus_texts();
    try_inputs!(3000, (u8, Vec<Damage>), |(which, ways)| {
        let text = &texts[usize::from(*which) % texts.len()];
        check_lines(&String::from_utf8_lossy(&damage(text.as_bytes(), ways)));
    });
}

#[test]
fn what_is_stored_is_there_after_a_restart() {
    runtime().block_on(write_and_restart(&corpus_texts()));
    try_inputs!(200, Vec<Vec<Piece>>, |writes| {
        let texts: Vec<String> = writes.iter().map(|pieces| text_of(pieces)).collect();
        runtime().block_on(write_and_restart(&texts));
    });
}

async fn write_and_restart(texts: &[String]) {
    let store = Arc::new(InMemory::new());
    let every = NonZeroU64::new(3).expect("it is 3");
    let server = Running::open(&store, every).await.expect("empty");
    for text in texts {
        match server.write("db", text).await {
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
