//! What does a server make of log entries and snapshots that something has damaged? It starts or
//! it says what is wrong: it does not panic, and what a checksum protects is never taken for good.
//!
//! `cargo test` runs each for a bounded time; `make fuzz` for as long as is asked for.

use std::{num::NonZeroU64, sync::Arc, sync::LazyLock};

use bolero::check;
use bytes::Bytes;
use object_store::{ObjectStoreExt as _, memory::InMemory, path::Path};
use outrigger_fuzz::{Damage, NODE, Running, damage, runtime};
use outrigger_log::entry::{Entry, Record};
use outrigger_model::ids::Sequence;

/// What a server has written that made tables, columns of each type, upserts and a snapshot.
struct Written {
    entries: Vec<(Sequence, Bytes)>,
    snapshot: (String, Bytes),
    others: Vec<(String, Bytes)>,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    runtime().block_on(async {
        let entries = write(NonZeroU64::MAX, false).await;
        let all = write(NonZeroU64::MAX, true).await;
        let (snapshots, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(path, _)| path.ends_with(".snapshot"));
        let numbered = entries.into_iter().filter_map(|(path, bytes)| {
            let number = path.strip_suffix(".entry")?.rsplit('/').next()?;
            Some((Sequence(number.parse().ok()?), bytes))
        });
        Written {
            entries: numbered.collect(),
            snapshot: snapshots.into_iter().next_back().expect("there is one"),
            others,
        }
    })
});

/// All objects of a server that has written something, and perhaps ended in order.
async fn write(snapshot_after: NonZeroU64, end: bool) -> Vec<(String, Bytes)> {
    let store = Arc::new(InMemory::new());
    let server = Running::open(&store, snapshot_after).await.expect("empty");
    for text in [
        "m,t=a f=1,i=2i,u=3u,s=\"text\",b=true 1\nm,t=b f=2 2",
        "m,t=a f=3 1\nother,x=y,z=w value=1i 5\nm,t=a i=\"wrong\" 1",
        "m new=\"column\" 3600000000000\nm,t=c f=9 9",
    ] {
        let _some_are_bad = server.write("db", text).await;
    }
    if end {
        server.stop().await;
    }
    let mut found = Vec::new();
    let store = &*store;
    let mut paths = list(store).await;
    paths.sort();
    for path in paths {
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

/// A start with these objects: it may be refused.
async fn start(objects: impl IntoIterator<Item = (String, Bytes)>) {
    let store = Arc::new(InMemory::new());
    for (path, bytes) in objects {
        let path = Path::from(path);
        store.put(&path, bytes.into()).await.expect("in memory");
    }
    if let Ok(server) = Running::open(&store, NonZeroU64::MAX).await {
        // What it took for good must be usable.
        let _refused = server.write("db", "m,t=a f=4 1").await;
        server.stop().await;
    }
}

fn entry_path(sequence: Sequence) -> String {
    format!("{NODE}/log/{:020}.entry", sequence.0)
}

#[test]
fn an_entry_is_what_was_written_or_is_refused() {
    let written = &WRITTEN.entries;
    check!()
        .with_type::<(u8, Vec<Damage>)>()
        .for_each(|(which, ways)| {
            let (sequence, bytes) = &written[usize::from(*which) % written.len()];
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
    check!().for_each(|bytes: &[u8]| {
        let refused = Entry::decode(Sequence(1), Bytes::copy_from_slice(bytes));
        assert!(refused.is_err());
    });
}

/// A newer server, or one with a fault, has checksums that are right.
#[test]
fn records_with_good_checksums_and_strange_content_are_refused_or_usable() {
    let written = &WRITTEN.entries;
    check!()
        .with_iterations(300)
        .with_type::<(u8, u8, Option<u8>, Vec<Damage>)>()
        .for_each(|(which, which_record, kind, ways)| {
            let which = usize::from(*which) % written.len();
            let objects = written.iter().enumerate().map(|(at, (sequence, bytes))| {
                let mut bytes = bytes.clone();
                if at == which {
                    bytes = with_strange_record((*sequence, bytes), *which_record, *kind, ways);
                }
                (entry_path(*sequence), bytes)
            });
            runtime().block_on(start(objects));
        });
}

fn with_strange_record(
    (sequence, bytes): (Sequence, Bytes),
    which: u8,
    kind: Option<u8>,
    ways: &[Damage],
) -> Bytes {
    let mut entry = Entry::decode(sequence, bytes).expect("it was written");
    let which = usize::from(which) % entry.records.len();
    let record = &entry.records[which];
    entry.records[which] = Record {
        kind: kind.unwrap_or(record.kind),
        payload: damage(&record.payload, ways),
    };
    entry.encode()
}

#[test]
fn damaged_snapshots_files_and_entries_are_refused_or_usable() {
    let written = &*WRITTEN;
    let objects: Vec<_> = [&written.snapshot]
        .into_iter()
        .chain(&written.others)
        .collect();
    check!()
        .with_iterations(300)
        .with_type::<(u8, Vec<Damage>)>()
        .for_each(|(which, ways)| {
            let which = usize::from(*which) % objects.len();
            let damaged = objects.iter().enumerate().map(|(at, (path, bytes))| {
                let bytes = if at == which {
                    damage(bytes, ways)
                } else {
                    bytes.clone()
                };
                (path.clone(), bytes)
            });
            runtime().block_on(start(damaged));
        });
}
