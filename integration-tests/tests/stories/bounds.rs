//! What happens at a limit: a full disk, a limit of files' sizes, snapshots that cannot be made, a
//! query that wants too much memory. The answer is an error that says why, what is stored can be
//! read meanwhile, nothing that was acknowledged is lost, and it goes on by itself.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use outrigger_integration_tests::{Builder, Database, Reply, Server, SmallDisk, eventually};
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::server;

const COUNT: &str = "SELECT count(*) AS n FROM m";

/// So many points, each with a text that hardly shrinks.
fn points(first: usize, count: usize) -> String {
    let mut lines = String::new();
    let mut state = first as u64 + 1;
    for time in first..first + count {
        let mut text = String::new();
        for _ in 0..16 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            write!(text, "{state:016x}").expect("a string takes all");
        }
        writeln!(lines, "m s=\"{text}\" {time}").expect("a string takes all");
    }
    lines
}

/// The text of an answer that says: not now, and why.
async fn refusal(request: reqwest::RequestBuilder) -> String {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    assert_eq!(status, 503, "{text}");
    assert!(headers.contains_key(header::RETRY_AFTER), "{headers:?}");
    let body: Value = serde_json::from_str(&text).expect("it is JSON");
    body["error"].as_str().expect("it has a text").to_owned()
}

fn write_request(server: &Server, lines: String) -> reqwest::RequestBuilder {
    let request = server
        .client()
        .request(Method::POST, "/api/v3/write_lp?db=db");
    request.body(lines)
}

fn create_request(server: &Server, name: &str) -> reqwest::RequestBuilder {
    let request = server
        .client()
        .request(Method::POST, "/api/v3/configure/database");
    request.json(&json!({ "db": name }))
}

/// Writes until it is stored, as a client does that is told to come again.
async fn insist(db: &Database, lines: &str) {
    eventually("a write is taken", async || {
        let reply: Reply = db.write_with(&[], lines).await;
        if reply.status == 204 {
            Ok(())
        } else {
            Err(format!("{reply:?}"))
        }
    })
    .await;
}

/// Both are told why while nothing can be written; what is there can be read.
async fn check_refused(server: &Server, reason: &str) {
    let db = server.database("db");
    let write = refusal(write_request(server, points(1000, 1000)));
    let create = async {
        // Not before: in an entry of its own there might be room for it.
        eventually("the log waits", async || {
            let waits = server.has_logged("cannot write the log, writers wait");
            if waits { Ok(()) } else { Err(String::new()) }
        })
        .await;
        assert_eq!(db.number(COUNT).await, 100, "it can be read meanwhile");
        refusal(create_request(server, "later")).await
    };
    let (write, create) = tokio::join!(write, create);
    for text in [write, create] {
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("may still be stored"), "{text}");
    }
    assert_eq!(db.number(COUNT).await, 100);
}

/// Nothing that was put half is left, under whichever name.
fn check_no_halves(directory: &Path) {
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        if entry.path().is_dir() {
            check_no_halves(&entry.path());
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.contains('#'), "{}", entry.path().display());
    }
}

fn with_expected_warnings(server: Builder) -> Builder {
    let reason = "there is no room";
    server
        .allow_log("cannot write the log, writers wait", reason)
        .allow_log("cannot make a snapshot", reason)
        .allow_log("the log has stopped", reason)
}

#[tokio::test]
async fn on_a_full_disk_writers_are_told_and_nothing_acknowledged_is_lost() {
    let disk = match SmallDisk::mount(16) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: no file system can be mounted here: {why}");
            return;
        }
    };
    let mut server = with_expected_warnings(server())
        .data_directory(&disk.path().join("data"))
        .flag("--wal-snapshot-size", "20")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.write(points(0, 100)).await;

    disk.fill();
    check_refused(&server, "No space left on device").await;
    // It starts, and can be read, though nothing can be written.
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.number(COUNT).await, 100);

    disk.free();
    insist(&db, &points(1000, 1000)).await;
    for write in 0..30 {
        db.write(points(5000 + write, 1)).await;
    }
    assert_eq!(db.number(COUNT).await, 1130);
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.number(COUNT).await, 1130);
    check_no_halves(&disk.path().join("data/node/log"));
    check_no_halves(&disk.path().join("data/node/dbs"));
    drop(server);
}

/// Sets how large a file may become that the server writes.
#[expect(
    clippy::disallowed_methods,
    reason = "a story uses programs as an operator does"
)]
fn limit_files(server: &Server, bytes: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &server.pid().to_string()])
        .arg(format!("--fsize={bytes}:"))
        .stdin(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit");
}

/// What an ordinary user can try, too: an entry of the log is larger than a file may be.
#[tokio::test]
async fn a_limit_of_files_sizes_does_not_end_the_server() {
    let mut server = with_expected_warnings(server()).start().await;
    let db = server.database("db").create().await;
    db.write(points(0, 100)).await;
    limit_files(&server, "131072");
    check_refused(&server, "File too large").await;
    limit_files(&server, "unlimited");
    insist(&db, &points(1000, 1000)).await;
    // What was tried in vain was kept, and the database that was asked for is there.
    let again = server.client().answer(create_request(&server, "later"));
    assert_eq!(again.await.status, 409);
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.number(COUNT).await, 1100);
}

#[tokio::test]
async fn where_snapshots_cannot_be_made_memory_has_a_bound() {
    let mut server = with_expected_warnings(server())
        .flag("--force-snapshot-mem-threshold", "1mb")
        .start()
        .await;
    let db = server.database("db").create().await;
    // A file where a directory should be.
    let in_the_way = server.data_directory().join("node/dbs");
    fs::write(&in_the_way, "").expect("it is not there yet");
    let mut stored = 0;
    let text = loop {
        let reply = db.write_with(&[], points(stored, 200)).await;
        if reply.status != 204 {
            let request = write_request(&server, points(stored, 200));
            break refusal(request).await;
        }
        stored += 200;
        assert!(stored < 200_000, "memory grows without a bound");
    };
    for part in ["Not a directory", "--force-snapshot-mem-threshold", "again"] {
        assert!(text.contains(part), "{text}");
    }
    let expected = i64::try_from(stored).expect("it is small");
    assert_eq!(db.number(COUNT).await, expected);

    fs::remove_file(&in_the_way).expect("it is there");
    insist(&db, &points(stored, 200)).await;
    assert_eq!(db.number(COUNT).await, expected + 200);
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.number(COUNT).await, expected + 200);
}

#[tokio::test]
async fn a_query_that_wants_too_much_memory_says_which_setting_forbids_it() {
    let server = server().flag("--exec-mem-pool-bytes", "1mb").start().await;
    let db = server.database("db").create().await;
    db.write(points(0, 100)).await;
    let greedy = "SELECT array_agg(CAST(a.value AS VARCHAR) || b.value ORDER BY a.value) AS n \
                  FROM generate_series(1, 1000) AS a, generate_series(1, 1000) AS b";
    let refused = db.try_query(greedy).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.body.contains("--exec-mem-pool-bytes"),
        "{refused:?}"
    );
    assert_eq!(db.number(COUNT).await, 100);
}
