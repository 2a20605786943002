//! How databases and tables are deleted: softly, then for good; and what is left of them.

use std::{fs, path::Path};

use outrigger_integration_tests::{Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{WRITE_REPORTS, server};

/// The Parquet files that lie below a directory of the data directory.
pub(crate) fn files(server: &Server, directory: &str) -> Vec<String> {
    fn walk(directory: &Path, found: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &server.data_directory().join("node").join(directory),
        &mut found,
    );
    found
}

/// Waits until so many files lie there.
pub(crate) async fn until_files(server: &Server, directory: &str, count: usize) {
    eventually(&format!("{count} files in {directory}"), async || {
        let found = files(server, directory);
        if found.len() == count {
            return Ok(());
        }
        Err(format!("{found:#?}"))
    })
    .await;
}

/// What the catalog has besides the server's own: names, and whether they are deleted.
async fn deleted(server: &Server, sql: &str) -> Vec<(String, bool)> {
    let rows = server.database("_internal").query(sql).await;
    let rows = rows.as_array().cloned().unwrap_or_default();
    let row = |row: &Value| {
        let name = row["name"].as_str().expect("a name");
        (name.to_owned(), row["deleted"].as_bool().expect("deleted"))
    };
    rows.iter().map(row).collect()
}

const TABLES: &str = "SELECT table_name AS name, deleted FROM system.tables ORDER BY name";
const DATABASES: &str = "SELECT database_name AS name, deleted FROM system.databases \
                         WHERE database_name <> '_internal' ORDER BY name";

#[tokio::test]
async fn a_table_is_deleted_softly_and_its_name_can_be_used_again() {
    let server = server().flag("--wal-snapshot-size", "1").start().await;
    let (cli, db) = (server.command_line(), server.database("db"));
    db.write("m,host=a f=1.5 1\nn f=1 1").await;
    let declined = cli.run_with_input(&["delete", "table", "-d", "db", "m"], Some("no\n"));
    assert_eq!(declined.code, 1, "{declined:?}");
    let question = "Are you sure you want to delete \"db.m\"? Enter 'yes' or 'y' to confirm";
    assert!(declined.stderr.contains(question), "{declined:?}");
    cli.check(
        &["delete", "table", "-d", "db", "-y", "m"],
        "Table \"db\".\"m\" deleted successfully\n",
    );
    cli.check_refused(
        &["delete", "table", "-d", "db", "-y", "m"],
        1,
        "[404 Not Found]",
    );
    db.try_query("SELECT * FROM m")
        .await
        .check_refused(400, "table 'public.iox.m' not found");
    let shown = db.query("SHOW TABLES").await.to_string();
    assert!(!shown.contains("\"m-20"), "{shown}");

    // The name is free, also for other columns.
    db.write("m,host=b f=\"text\" 2").await;
    assert_eq!(db.query("SELECT f FROM m").await, json!([{ "f": "text" }]));
    let tables = deleted(&server, TABLES).await;
    let names: Vec<_> = tables
        .iter()
        .map(|(name, deleted)| (&name[..1], *deleted))
        .collect();
    assert_eq!(
        names,
        [("m", false), ("m", true), ("n", false)],
        "{tables:?}"
    );
    // What was deleted can be read by who knows its new name, and not be written.
    let old = &tables[1].0;
    let rows = db.query(&format!("SELECT f, host FROM \"{old}\"")).await;
    assert_eq!(rows, json!([{ "f": 1.5, "host": "a" }]));
    let line = format!("{old},host=a f=1 1");
    let refused = db.write_with(&[], line).await;
    refused.check_refused(400, "attempted to modify resource that was already deleted");
    let details = "SELECT column_count, series_key_columns, hard_deletion_time > now() + \
                   INTERVAL '71 hours' AS later FROM system.tables WHERE deleted";
    assert_eq!(
        server.database("_internal").query(details).await,
        json!([{ "column_count": 3, "series_key_columns": "host", "later": true }])
    );

    // And it can be said to go now.
    until_files(&server, "dbs/1/1", 1).await;
    cli.success(&[
        "delete",
        "table",
        "-d",
        "db",
        "-y",
        "--hard-delete",
        "now",
        old,
    ]);
    until_files(&server, "dbs/1/1", 0).await;
    db.try_query(&format!("SELECT * FROM \"{old}\""))
        .await
        .check_refused(400, "not found");
    assert_eq!(
        deleted(&server, TABLES).await,
        tables,
        "the record of it stays"
    );
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 1);
}

/// Waits until requests to the plugin are answered so.
async fn until_answered(server: &Server, status: u16) {
    eventually(&format!("answers are {status}"), async || {
        let reply = server
            .client()
            .call(Method::GET, "/api/v3/engine/answer")
            .await;
        let is_so = reply.status == status;
        is_so.then_some(()).ok_or(format!("{reply:?}"))
    })
    .await;
}

const ANSWER: &str =
    "def process_request(local, query, headers, body, args=None):\n    return 'here'\n";

#[tokio::test]
async fn a_database_is_deleted_softly_and_its_triggers_stop() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .plugin("answer.py", ANSWER)
        .start()
        .await;
    let (cli, db) = (server.command_line(), server.database("db").create().await);
    // Not also on what it writes itself.
    let reports = db.trigger("reports", "write_reports.py").spec("table:m");
    reports.create().await;
    let answers = db.trigger("answer", "answer.py").spec("request:answer");
    answers.create().await;
    until_answered(&server, 200).await;
    db.write("m f=1 1").await;
    db.until_logged("reports", 1, "finished execution").await;
    cli.check(
        &["delete", "database", "-y", "db"],
        "Database \"db\" deleted successfully\n",
    );
    db.try_query("SELECT 1")
        .await
        .check_refused(404, "database not found: db");
    until_answered(&server, 404).await;
    let shown = cli.success(&["show", "databases", "--show-deleted", "--format", "csv"]);
    let mut shown = shown.lines().skip(1);
    assert_eq!(shown.next(), Some("_internal,false"));
    let old = shown.next().and_then(|line| line.strip_suffix(",true"));
    let old = server.database(old.expect("the deleted database"));
    assert!(!cli.success(&["show", "databases"]).contains(old.name()));
    let triggers = "SELECT trigger_name, disabled FROM system.processing_engine_triggers \
                    ORDER BY trigger_name";
    let disabled = json!([
        { "trigger_name": "answer", "disabled": true },
        { "trigger_name": "reports", "disabled": true },
    ]);
    assert_eq!(old.query(triggers).await, disabled);
    let enable = ["enable", "trigger", "-d", old.name(), "answer"];
    cli.check_refused(
        &enable,
        1,
        "attempted to modify resource that was already deleted",
    );
    let refused = old.write_with(&[], "m f=2 2").await;
    refused.check_refused(
        400,
        "{\"error\":\"attempted to modify resource that was already deleted",
    );

    // The name and the path are free.
    let db = server.database("db").create().await;
    assert_eq!(
        db.query("SHOW TABLES")
            .await
            .to_string()
            .matches("\"iox\"")
            .count(),
        0
    );
    let answers = db.trigger("answer", "answer.py").spec("request:answer");
    answers.create().await;
    until_answered(&server, 200).await;
    assert_eq!(old.number("SELECT count(*) AS n FROM m").await, 1);
}

#[tokio::test]
async fn what_was_deleted_goes_by_itself_when_its_time_has_come() {
    let server = server()
        .flag("--wal-snapshot-size", "1")
        .flag("--hard-delete-default-duration", "1s")
        .flag("--delete-grace-period", "1s")
        .start()
        .await;
    let path = "/api/v3/configure/database";
    let delete = async |parameters: &str| {
        let path = format!("{path}?{parameters}");
        server.client().call(Method::DELETE, &path).await
    };
    for name in ["a", "b", "c"] {
        server.database(name).write("m f=1 1").await;
    }
    until_files(&server, "dbs", 3).await;
    delete("db=a&hard_delete_at=soon")
        .await
        .check_refused(400, "invalid hard_delete_at");
    delete("db=nosuch")
        .await
        .check_refused(404, "database not found: nosuch");
    delete("db=_internal").await.check_refused(400, "_internal");
    for parameters in [
        "db=a",
        "db=b&hard_delete_at=never",
        "db=c&hard_delete_at=2020-01-01T00:00:00Z",
    ] {
        let reply = delete(parameters).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (200, ""),
            "{parameters}"
        );
    }
    // Two are gone and forgotten, one stays.
    eventually("the records are gone", async || {
        let left = deleted(&server, DATABASES).await;
        match &left[..] {
            [(name, true)] if name.starts_with("b-") => Ok(()),
            _ => Err(format!("{left:?}")),
        }
    })
    .await;
    until_files(&server, "dbs", 1).await;
    let hard = "SELECT count(hard_deletion_time) AS n FROM system.databases";
    assert_eq!(server.database("_internal").number(hard).await, 0);
}

#[tokio::test]
async fn what_was_deleted_for_good_does_not_come_back_after_a_kill() {
    let mut server = server().flag("--wal-snapshot-size", "2").start().await;
    for round in 0..6 {
        let db = server.database("db");
        db.write(format!("keep f={round} {round}")).await;
        for time in 0..3 {
            db.write(format!("gone,round=r{round} f=1 {time}")).await;
        }
        let delete = [
            "delete",
            "table",
            "-d",
            "db",
            "-y",
            "--hard-delete",
            "now",
            "gone",
        ];
        server.command_line().success(&delete);
        // At another moment of what follows each time.
        let wanted = round.min(4);
        eventually("a little happens", async || {
            let log = server.count_logged("made a snapshot");
            (log >= wanted).then_some(()).ok_or(format!("{log}"))
        })
        .await;
        server.kill_9();
        server.restart().await;
        let db = server.database("db");
        db.try_query("SELECT * FROM gone")
            .await
            .check_refused(400, "not found");
        let count = db.number("SELECT count(*) AS n FROM keep").await;
        assert_eq!(count, i64::try_from(round).expect("small") + 1);
    }
    // Nothing is left but the files of the table that is kept.
    eventually("no other files", async || {
        let all = files(&server, "dbs").len();
        let kept = "SELECT count(*) AS n FROM system.parquet_files WHERE table_name = 'keep'";
        let kept = server.database("db").number(kept).await;
        (i64::try_from(all) == Ok(kept))
            .then_some(())
            .ok_or(format!("{all}, not {kept}"))
    })
    .await;
}

#[tokio::test]
async fn a_table_is_created_with_its_columns() {
    let server = server().start().await;
    let cli = server.command_line();
    let create = [
        "create",
        "table",
        "-d",
        "db",
        "--tags",
        "room,floor",
        "--fields",
        "temp:float64,n:int64,u:uint64,s:utf8,b:bool",
        "home",
    ];
    cli.check(&create, "Table \"db\".\"home\" created successfully\n");
    let exists = "[409 Conflict]: attempted to create a resource that already exists";
    cli.check_refused(&create, 1, exists);
    cli.check(
        &["create", "table", "-d", "db", "bare"],
        "Table \"db\".\"bare\" created successfully\n",
    );
    let db = server.database("db");
    let columns = "SELECT column_name AS c, data_type AS t FROM information_schema.columns \
                   WHERE table_name = 'home' ORDER BY c";
    let expected = [
        ("b", "Boolean"),
        ("floor", "Dictionary(Int32, Utf8)"),
        ("n", "Int64"),
        ("room", "Dictionary(Int32, Utf8)"),
        ("s", "Utf8"),
        ("temp", "Float64"),
        ("time", "Timestamp(ns)"),
        ("u", "UInt64"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(c, t)| json!({ "c": c, "t": t }))
        .collect();
    assert_eq!(db.query(columns).await, json!(expected));
    let refused = db.write_with(&[], "home temp=1i 1").await;
    refused.check_refused(400, "invalid column type for column 'temp'");
    db.write("home,room=hall temp=20 1").await;
    assert_eq!(db.number("SELECT count(*) AS n FROM home").await, 1);
    assert_eq!(db.number("SELECT count(*) AS n FROM bare").await, 0);
}

#[tokio::test]
async fn tables_that_make_no_sense_are_refused() {
    let server = server().start().await;
    let path = "/api/v3/configure/table";
    for (body, part) in [
        (
            json!({ "db": "db", "table": "x", "tags": [] }),
            "missing field `fields`",
        ),
        (
            json!({ "db": "db", "table": "", "tags": [], "fields": [] }),
            "cannot be empty",
        ),
        (
            json!({ "db": "db", "table": "x", "tags": ["a", "a"], "fields": [] }),
            "named twice",
        ),
        (
            json!({ "db": "db", "table": "x", "tags": ["time"], "fields": [] }),
            "\"time\"",
        ),
        (
            json!({ "db": "_internal", "table": "x", "tags": [], "fields": [] }),
            "_internal",
        ),
        (
            json!({ "db": "db", "table": "x", "tags": [], "fields": [{ "name": "f", "type": "float" }] }),
            "unknown variant `float`",
        ),
    ] {
        server
            .client()
            .post(path, &body)
            .await
            .check_refused(400, part);
    }
    let made = json!({ "db": "new", "table": "x", "tags": ["a"], "fields": [] });
    let reply = server.client().post(path, &made).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(
        server
            .database("new")
            .number("SELECT count(*) AS n FROM x")
            .await,
        0
    );
}
