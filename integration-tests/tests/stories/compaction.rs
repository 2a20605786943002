//! How small files become few, while rows are written and read, and whatever happens.

use outrigger_integration_tests::{Server, eventually};
use serde_json::json;

use crate::{deletion::files, server};

fn joining() -> outrigger_integration_tests::Builder {
    server().flag("--wal-snapshot-size", "2")
}

/// Waits until a table has at most so many files, and nothing else lies there.
async fn until_few(server: &Server, table: &str, count: i64) {
    eventually(&format!("{table} has {count} files at most"), async || {
        let sql =
            format!("SELECT count(*) AS n FROM system.parquet_files WHERE table_name = '{table}'");
        let found = server.database("db").number(&sql).await;
        ((1..=count).contains(&found))
            .then_some(())
            .ok_or(format!("{found} files"))
    })
    .await;
}

/// Waits until no file lies there but those that tables have.
async fn until_only_named(server: &Server) {
    eventually("no other files", async || {
        let sql = "SELECT count(*) AS n FROM system.parquet_files";
        let named = server.database("db").number(sql).await;
        let found = files(server, "dbs").len();
        let are_same = i64::try_from(found) == Ok(named);
        are_same
            .then_some(())
            .ok_or(format!("{found} files, {named} named"))
    })
    .await;
}

#[tokio::test]
async fn small_files_are_joined_while_rows_are_written_and_read() {
    let server = joining().start().await;
    let db = server.database("db");
    // Each round replaces a field of the point before.
    for round in 0..60 {
        let before = (round - 1).max(0);
        db.write(format!("m,t=a f={round},g=1i {round}\nm,t=a f=-1 {before}"))
            .await;
        let sums = db.query("SELECT count(*) AS n, sum(g) AS g FROM m").await;
        assert_eq!(sums, json!([{ "n": round + 1, "g": round + 1 }]));
    }
    until_few(&server, "m", 6).await;
    assert!(server.has_logged("joined files"));
    let sums = db
        .query("SELECT count(*) AS n, sum(g) AS g, max(f) AS f FROM m")
        .await;
    assert_eq!(sums, json!([{ "n": 60, "g": 60, "f": 59.0 }]));
    // What was joined is removed once nobody reads it.
    until_only_named(&server).await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_killed_while_files_are_joined() {
    let mut server = joining().start().await;
    let mut written = 0;
    for round in 0..8 {
        let db = server.database("db");
        for _ in 0..25 {
            db.write(format!("m,t=t{} f={written} {written}", written % 3))
                .await;
            written += 1;
        }
        let expected = round % 3;
        eventually("files are joined", async || {
            let joined = server.count_logged("joined files");
            (joined >= expected)
                .then_some(())
                .ok_or(format!("{joined}"))
        })
        .await;
        server.kill_9();
        server.restart().await;
        let sums = server
            .database("db")
            .query("SELECT count(*) AS n, sum(f) AS f FROM m")
            .await;
        let sum = f64::from(written * (written - 1) / 2);
        assert_eq!(sums, json!([{ "n": written, "f": sum }]), "round {round}");
    }
    until_few(&server, "m", 6).await;
    let db = server.database("db");
    assert_eq!(
        db.number("SELECT count(*) AS n FROM m").await,
        i64::from(written)
    );
    until_only_named(&server).await;
}

#[tokio::test]
async fn joining_can_be_switched_off() {
    let server = joining().flag("--compaction-memory", "0").start().await;
    let db = server.database("db");
    for time in 0..40 {
        db.write(format!("m f=1 {time}")).await;
    }
    eventually("files", async || {
        let found = files(&server, "dbs").len();
        (found >= 15).then_some(()).ok_or(format!("{found}"))
    })
    .await;
    assert!(!server.has_logged("joined files"));
}
