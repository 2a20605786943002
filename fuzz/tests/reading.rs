//! What does a server make of log entries and snapshots that something has damaged? It starts or
//! it says what is wrong: it does not panic, and what a checksum protects is never taken for good.
//!
//! What is damaged is in `corpus/`: all objects of a server that was killed (`log/`), and of one
//! that ended in order (`snapshot/`). `cargo test` tries the same inputs each time, `make fuzz`
//! others for as long as is asked for.

#[path = "shared/corpus.rs"]
mod corpus;
#[path = "shared/inputs.rs"]
mod inputs;

use std::{
    fs,
    num::NonZeroU64,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use object_store::{ObjectStoreExt as _, memory::InMemory, path::Path};
use outrigger_fuzz::{Damage, Running, damage, runtime, snapshot_with};
use outrigger_log::entry::{Entry, Record};
use outrigger_model::ids::Sequence;

use crate::inputs::try_inputs;

type Object = (String, Bytes);

/// The log of a server that made tables, columns of each type, upserts, a trigger, a journal.
static ENTRIES: LazyLock<Vec<(String, Sequence, Bytes)>> = LazyLock::new(|| {
    let entries = corpus::files("log")
        .into_iter()
        .filter_map(|(path, bytes)| {
            let number = path.strip_suffix(".entry")?.rsplit('/').next()?;
            let sequence = Sequence(number.parse().ok()?);
            Some((path, sequence, bytes))
        });
    entries.collect()
});

/// All objects of a server that ended in order: a snapshot, files, what is left of the log.
static OBJECTS: LazyLock<Vec<Object>> = LazyLock::new(|| corpus::files("snapshot"));

/// All objects of a server that has written something, and perhaps ended in order.
async fn write(end: bool) -> Vec<Object> {
    let store = Arc::new(InMemory::new());
    let server = Running::open(&store, NonZeroU64::MAX).await.expect("empty");
    for text in [
        "m,t=a f=1,i=2i,u=3u,s=\"text\",b=true 1\nm,t=b f=2 2",
        "m,t=a f=3 1\nother,x=y,z=w value=1i 5\nm,t=a i=\"wrong\" 1",
        "m new=\"column\" 3600000000000\nm,t=c f=9 9",
    ] {
        let _some_are_bad = server.write("db", text).await;
    }
    server.run_a_trigger("db").await;
    if end {
        server.stop().await;
    } else {
        server.kill().await;
    }
    let mut found = Vec::new();
    for path in list(&store).await {
        let read = store.get(&path).await.expect("it was listed");
        found.push((path.to_string(), read.bytes().await.expect("in memory")));
    }
    found
}

async fn list(store: &InMemory) -> Vec<Path> {
    use futures::TryStreamExt as _;
    use object_store::ObjectStore as _;
    let found = store.list(None).map_ok(|object| object.location);
    found.try_collect().await.expect("in memory")
}

#[test]
#[ignore = "replaces the corpus: for a new kind of record or object"]
fn the_corpus_is_written_anew() {
    for (name, end) in [("log", false), ("snapshot", true)] {
        for (path, bytes) in runtime().block_on(write(end)) {
            let path = corpus::directory(name).join(path);
            let parent = path.parent().expect("it lies in the corpus");
            fs::create_dir_all(parent).expect("make its directory");
            fs::write(path, bytes).expect("write it");
        }
    }
}

/// A start with these objects: it may be refused. Returns whether it was not.
async fn start(objects: impl IntoIterator<Item = Object>) -> bool {
    let store = Arc::new(InMemory::new());
    for (path, bytes) in objects {
        let path = Path::from(path);
        store.put(&path, bytes.into()).await.expect("in memory");
    }
    let Ok(server) = Running::open(&store, NonZeroU64::MAX).await else {
        return false;
    };
    // What it took for good must be usable.
    let _refused = server.write("db", "m,t=a f=4 1").await;
    server.stop().await;
    true
}

/// The objects, one of them with other bytes.
fn with_other_bytes(objects: &[Object], which: usize, bytes: &Bytes) -> Vec<Object> {
    let mut objects = objects.to_vec();
    objects[which].1 = bytes.clone();
    objects
}

fn log() -> Vec<Object> {
    let entries = ENTRIES.iter().cloned();
    entries.map(|(path, _, bytes)| (path, bytes)).collect()
}

#[test]
fn what_earlier_servers_wrote_is_read() {
    assert!(runtime().block_on(start(log())));
    assert!(runtime().block_on(start(OBJECTS.iter().cloned())));
    let kinds: std::collections::BTreeSet<u8> = ENTRIES
        .iter()
        .flat_map(|(_, sequence, bytes)| {
            let entry = Entry::decode(*sequence, bytes.clone()).expect("it was written");
            entry.records.into_iter().map(|record| record.kind)
        })
        .collect();
    assert!(kinds.is_superset(&[1, 2, 3, 4].into()), "{kinds:?}");
}

#[test]
fn an_entry_is_what_was_written_or_is_refused() {
    try_inputs!(3000, (u8, Vec<Damage>), |(which, ways)| {
        let (_, sequence, bytes) = &ENTRIES[usize::from(*which) % ENTRIES.len()];
        let damaged = damage(bytes, ways);
        if let Ok(entry) = Entry::decode(*sequence, damaged.clone()) {
            assert_eq!(
                entry.encode(),
                damaged,
                "what was read is not what is there"
            );
            assert_eq!(&damaged, bytes, "checksums let it pass");
        }
    });
}

#[test]
fn any_bytes_are_no_entry() {
    try_inputs!(2000, Vec<u8>, |bytes| {
        let refused = Entry::decode(Sequence(1), Bytes::copy_from_slice(bytes));
        assert!(refused.is_err());
    });
}

/// A newer server, or one with a fault, has checksums that are right.
#[test]
fn records_with_good_checksums_and_strange_content_are_refused_or_usable() {
    try_inputs!(600, (u8, u8, Option<u8>, Vec<Damage>), |(
        which,
        which_record,
        kind,
        ways,
    )| {
        let which = usize::from(*which) % ENTRIES.len();
        let (_, sequence, bytes) = &ENTRIES[which];
        let entry = Entry::decode(*sequence, bytes.clone()).expect("it was written");
        let bytes = with_strange_record(entry, *which_record, *kind, ways);
        runtime().block_on(start(with_other_bytes(&log(), which, &bytes)));
    });
}

fn with_strange_record(mut entry: Entry, which: u8, kind: Option<u8>, ways: &[Damage]) -> Bytes {
    let which = usize::from(which) % entry.records.len();
    let record = &entry.records[which];
    entry.records[which] = Record {
        kind: kind.unwrap_or(record.kind),
        payload: damage(&record.payload, ways),
    };
    entry.encode()
}

#[test]
fn a_snapshot_with_a_good_checksum_and_strange_content_is_refused_or_usable() {
    let objects = &*OBJECTS;
    let mut places = objects.iter();
    let which = places.position(|(path, _)| path.ends_with(".snapshot"));
    let which = which.expect("it has a snapshot");
    try_inputs!(600, Vec<Damage>, |ways| {
        let bytes = snapshot_with(&objects[which].1, |content| damage(content, ways));
        runtime().block_on(start(with_other_bytes(objects, which, &bytes)));
    });
}

#[test]
fn damaged_snapshots_files_and_entries_are_refused_or_usable() {
    let objects = &*OBJECTS;
    try_inputs!(600, (u8, Vec<Damage>), |(which, ways)| {
        let which = usize::from(*which) % objects.len();
        let bytes = damage(&objects[which].1, ways);
        runtime().block_on(start(with_other_bytes(objects, which, &bytes)));
    });
}
