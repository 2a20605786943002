//! How long databases keep rows: what is too old is not seen at once, and goes later.

use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_integration_tests::Server;
use reqwest::Method;
use serde_json::json;

use crate::{deletion::until_files, server};

/// So many seconds ago, as a line's timestamp.
#[expect(
    clippy::disallowed_methods,
    reason = "a story is a client, whose clock is the machine's"
)]
fn ago(seconds: u64) -> u128 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    now.as_nanos() - u128::from(seconds) * 1_000_000_000
}

async fn count(server: &Server) -> i64 {
    let db = server.database("db");
    db.number("SELECT count(*) AS n FROM m").await
}

#[tokio::test]
async fn old_rows_are_not_seen_and_old_files_go() {
    let mut server = server()
        .flag("--wal-snapshot-size", "1")
        .flag("--retention-check-interval", "1h")
        .flag("--compaction-memory", "0")
        .start()
        .await;
    let cli = server.command_line();
    cli.check(
        &["create", "database", "--retention-period", "36h", "db"],
        "Database \"db\" created successfully\n",
    );
    let db = server.database("db");
    for hours in [1, 35, 37, 100] {
        db.write(format!("m f={hours} {}", ago(hours * 3600))).await;
    }
    assert_eq!(count(&server).await, 2);
    let named = "SELECT count(*) AS n FROM system.parquet_files";
    db.until(named, json!([{ "n": 4 }])).await;
    assert_eq!(count(&server).await, 2);
    assert_eq!(
        db.query("SELECT min(f) AS f FROM m").await,
        json!([{ "f": 1.0 }])
    );
    let explained = db.query("EXPLAIN SELECT f FROM m").await.to_string();
    assert!(explained.contains("m: 2 of 4 files read"), "{explained}");
    assert_eq!(
        explained.matches("left out by retention: ").count(),
        2,
        "{explained}"
    );

    cli.check(
        &["show", "retention", "--format", "csv"],
        "database_name,retention_period\n_internal,infinite\ndb,36h\n",
    );
    // As long as nothing has looked, a longer time brings them back.
    for (period, shown, rows) in [
        ("4d", "4d", 3),
        ("none", "infinite", 4),
        ("90m", "90m", 1),
        ("45s", "45s", 0),
        ("1h 30s", "3630s", 1),
        ("36h", "36h", 2),
    ] {
        cli.check(
            &["update", "database", "-d", "db", "-r", period],
            "Database \"db\" updated successfully\n",
        );
        assert_eq!(count(&server).await, rows, "{period}");
        let expected = format!("database_name,retention_period\ndb,{shown}\n");
        cli.check(
            &["show", "retention", "--database", "db", "--format", "csv"],
            &expected,
        );
    }
    // A start looks at once.
    server.kill_9();
    server.restart().await;
    until_files(&server, "dbs", 2).await;
    server
        .command_line()
        .success(&["update", "database", "-d", "db", "-r", "none"]);
    assert_eq!(count(&server).await, 2, "they are gone for good");
    server.kill_9();
    server.restart().await;
    assert_eq!(count(&server).await, 2);
}

#[tokio::test]
async fn retention_is_set_over_http_too() {
    let server = server()
        .flag("--retention-check-interval", "100ms")
        .start()
        .await;
    let (client, path) = (server.client(), "/api/v3/configure/database");
    let created = client
        .post(path, &json!({ "db": "db", "retention_period": "1h" }))
        .await;
    assert_eq!((created.status, created.body.as_str()), (200, ""));
    let put = async |body: serde_json::Value| {
        let request = client.request(Method::PUT, path).json(&body);
        client.answer(request).await
    };
    let period = async || {
        let sql =
            "SELECT retention_period_ns AS n FROM system.databases WHERE database_name = 'db'";
        server.database("_internal").number(sql).await
    };
    let hour = 3_600_000_000_000;
    assert_eq!(period().await, hour);
    for (body, expected) in [
        (
            json!({ "db": "db", "retention_period": "7d" }),
            7 * 24 * hour,
        ),
        (json!({ "db": "db", "retention_period": null }), 0),
        (json!({ "db": "db", "retention_period": "2h" }), 2 * hour),
        (json!({ "db": "db" }), 0),
    ] {
        let reply = put(body).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        assert_eq!(period().await, expected);
    }
    put(json!({ "db": "db", "retention_period": "soon" }))
        .await
        .check_refused(400, "invalid retention period \"soon\"");
    put(json!({ "db": "db", "retention_period": "0s" }))
        .await
        .check_refused(400, "longer than 0s");
    put(json!({ "db": "nosuch" }))
        .await
        .check_refused(404, "database not found: nosuch");
    put(json!({ "db": "_internal", "retention_period": "1d" }))
        .await
        .check_refused(400, "_internal");

    let url = format!("{path}/retention_period");
    let set = client
        .call(Method::POST, &format!("{url}?db=db&duration=3h"))
        .await;
    assert_eq!((set.status, set.body.as_str()), (204, ""));
    assert_eq!(period().await, 3 * hour);
    let cleared = client.call(Method::DELETE, &format!("{url}?db=db")).await;
    assert_eq!((cleared.status, cleared.body.as_str()), (204, ""));
    assert_eq!(period().await, 0);
    let missing = client.call(Method::POST, &format!("{url}?db=db")).await;
    missing.check_refused(400, "missing field `duration`");
    let cli = server.command_line();
    let needed = "--retention-period is required for update database";
    cli.check_refused(&["update", "database", "-d", "db"], 1, needed);
}
