//! What is there after a restart, and what a damaged log does.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{WRITE_REPORTS, server};

/// The objects of the log, in order.
fn entries(data: &Path) -> Vec<PathBuf> {
    let directory = fs::read_dir(data.join("node/log")).expect("the log's directory");
    let mut entries: Vec<_> = directory
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "entry")
        })
        .collect();
    entries.sort();
    entries
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py").create().await;
    db.write("m,host=a f=1.5,i=2i,u=3u,s=\"x\",b=true 1000000000000000001")
        .await;
    let total = "SELECT sum(row_count) AS total FROM write_reports";
    db.until(total, json!([{ "total": 1 }])).await;
    db.until_logged("reports", 2, "finished execution").await;
    let before = [
        db.query("SELECT * FROM m").await,
        db.query("SELECT * FROM write_reports").await,
        db.query("SELECT * FROM system.processing_engine_triggers")
            .await,
        db.query("SELECT * FROM system.processing_engine_logs")
            .await,
    ];

    server.stop();
    server.restart().await;
    let db = server.database("db");
    let after = [
        db.query("SELECT * FROM m").await,
        db.query("SELECT * FROM write_reports").await,
        db.query("SELECT * FROM system.processing_engine_triggers")
            .await,
        db.query("SELECT * FROM system.processing_engine_logs")
            .await,
    ];
    assert_eq!(before, after);
    // The batch was dealt with, so it is not delivered again; the next one is.
    db.write("m,host=b f=2 1000000000000000002").await;
    db.until(total, json!([{ "total": 2 }])).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there() {
    let mut server = server().start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1\nm f=2 2").await;
    server.kill_9();
    server.restart().await;
    let expected = json!([{ "f": 1.0 }, { "f": 2.0 }]);
    assert_eq!(
        server
            .database("db")
            .query("SELECT f FROM m ORDER BY time")
            .await,
        expected
    );
}

#[tokio::test]
async fn writes_of_one_flush_interval_share_a_log_entry() {
    let server = server()
        .flush_interval(Duration::from_secs(1))
        .start()
        .await;
    let db = server.database("db").create().await;
    let before = entries(&server.data_directory()).len();
    let mut writes = JoinSet::new();
    for n in 0..50 {
        let db = db.clone();
        writes.spawn(async move { db.write(format!("m,n=n{n} f=1 1")).await });
    }
    writes.join_all().await;
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 50);
    let grown = entries(&server.data_directory()).len() - before;
    assert!((1..=10).contains(&grown), "{grown} entries for 50 writes");
}

#[tokio::test]
async fn a_torn_last_entry_is_put_aside_with_a_warning() {
    let mut server = server().start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    db.write("m f=2 2").await;
    server.kill_9();
    let entries = entries(&server.data_directory());
    let last = entries.last().expect("entries");
    let bytes = fs::read(last).expect("read the entry");
    fs::write(last, &bytes[..bytes.len() - 7]).expect("tear the entry");

    let warning = "the last log entry is incomplete";
    server.allow_log(warning, "the story has torn it");
    server.restart().await;
    assert!(server.has_logged(warning));
    assert!(server.has_logged("in the middle of a record"));
    let db = server.database("db");
    assert_eq!(db.query("SELECT f FROM m").await, json!([{ "f": 1.0 }]));
    db.write("m f=3 3").await;
    server.stop();
    server.restart().await;
    let expected = json!([{ "f": 1.0 }, { "f": 3.0 }]);
    assert_eq!(
        server
            .database("db")
            .query("SELECT f FROM m ORDER BY time")
            .await,
        expected
    );
}

#[tokio::test]
async fn a_torn_last_entry_stops_a_strict_start() {
    let strict = "--wal-replay-fail-on-error";
    let mut server = server().switch(strict).start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    db.write("m f=2 2").await;
    server.kill_9();
    let entries = entries(&server.data_directory());
    let last = entries.last().expect("entries");
    let good = fs::read(last).expect("read the entry");
    fs::write(last, &good[..good.len() - 7]).expect("tear the entry");

    server.allow_log("is the last entry of the log", "the story has torn it");
    let failure = server.restart_refused().await;
    let name = last.file_name().expect("a name").to_string_lossy();
    failure.check(1, &format!("node/log/{name}"));
    failure.check(1, strict);
    fs::write(last, &good).expect("restore the entry");
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 2);
}

#[tokio::test]
async fn a_corrupt_entry_stops_the_start_and_is_named() {
    let mut server = server().start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    db.write("m f=2 2").await;
    db.write("m f=3 3").await;
    // A last snapshot would cover the entries.
    server.kill_9();
    let entries = entries(&server.data_directory());
    let damaged = &entries[entries.len() / 2];
    let good = fs::read(damaged).expect("read the entry");
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    fs::write(damaged, &bad).expect("damage the entry");

    server.allow_log(
        "restore this object from a backup",
        "the story has damaged it",
    );
    let failure = server.restart_refused().await;
    let name = damaged.file_name().expect("a name").to_string_lossy();
    failure.check(1, &format!("node/log/{name}"));
    failure.check(1, "at byte ");
    failure.check(1, "does not match its checksum");
    failure.check(1, "restore this object from a backup");

    fs::write(damaged, &good).expect("restore the entry");
    server.restart().await;
    assert_eq!(
        server
            .database("db")
            .number("SELECT count(*) AS n FROM m")
            .await,
        3
    );
}

#[tokio::test]
async fn a_missing_entry_stops_the_start_and_is_named() {
    let mut server = server().start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    db.write("m f=2 2").await;
    // A last snapshot would cover the entries.
    server.kill_9();
    let entries = entries(&server.data_directory());
    let missing = &entries[entries.len() / 2];
    let good = fs::read(missing).expect("read the entry");
    fs::remove_file(missing).expect("remove the entry");

    server.allow_log("is missing though", "the story has removed it");
    let failure = server.restart_refused().await;
    let name = missing.file_name().expect("a name").to_string_lossy();
    failure.check(1, &format!("node/log/{name}"));
    fs::write(missing, &good).expect("restore the entry");
    server.restart().await;
}

#[tokio::test]
async fn of_two_servers_with_one_node_id_the_second_does_not_start_and_names_the_first() {
    let mut first = server().start().await;
    let db = first.database("db").create().await;
    db.write("m f=1 1").await;
    let cause = "two servers run with the same --node-id on the same object store";
    let second = server()
        .data_directory(&first.data_directory())
        .allow_log(cause, "that is what the story does");
    let refused = second.start_refused().await;
    refused.check(1, cause);
    refused.check(1, &format!("another server (process {} on ", first.pid()));
    db.write("m f=2 2").await;
    // A lock does not outlive its holder, however that ends.
    first.kill_9();
    first.restart().await;
    let db = first.database("db");
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 2);
}

#[tokio::test]
async fn memory_as_the_object_store_needs_no_directory() {
    let server = server()
        .flag("--object-store", "memory")
        .without("--data-dir")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    assert_eq!(db.query("SELECT f FROM m").await, json!([{ "f": 1.0 }]));
    assert!(!server.data_directory().exists());
}
