//! Triggers on Parquet files: who is told of which files, exactly once, whatever happens.

use std::path::Path;

use outrigger_integration_tests::{Builder, Database, Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{deletion::files, server};

/// Writes down each file that it gets, in another database, and what is in it.
pub(crate) const WRITE_DOWN: &str = "
import json

def process_persisted(influxdb3_local, files, args=None):
    if args:
        influxdb3_local.query(f\"SELECT * FROM {args['wait_for']}\")
    for number, file in enumerate(files):
        table = file.to_arrow()
        times = table['time'].cast('int64').to_pylist()
        rows = table.drop_columns('time').to_pylist()
        rows = [dict(row, time=time) for row, time in zip(rows, times)]
        assert sum(batch.num_rows for batch in file.to_batches()) == len(rows)
        # Whatever comes twice is there twice.
        line = LineBuilder('files').tag('number', str(number))
        line.string_field('file', json.dumps(file, sort_keys=True))
        line.string_field('rows', json.dumps(rows)).int64_field('row_count', len(rows))
        line.string_field('path', file['path']).string_field('reason', file['reason'])
        influxdb3_local.write_to_db('told', line)
    influxdb3_local.info(f'got {len(files)} files, attempt {influxdb3_local.attempt}')
";

/// A snapshot after every second entry of the log, and files stay what they are.
fn snapshots() -> Builder {
    joining().flag("--compaction-memory", "0")
}

fn joining() -> Builder {
    server()
        .flag("--wal-snapshot-size", "2")
        .plugin("write_down.py", WRITE_DOWN)
}

async fn follow(db: &Database, name: &str, spec: &str) {
    db.trigger(name, "write_down.py").spec(spec).create().await;
}

/// What was written down: what was said of each file, and its rows, in the order of the tables.
async fn told(server: &Server) -> Vec<(Value, Value)> {
    let reply = server
        .database("told")
        .try_query("SELECT file, rows FROM files ORDER BY time, path")
        .await;
    if reply.status != 200 {
        return Vec::new();
    }
    let rows = reply.json();
    let text = |value: &Value| -> Value {
        let text = value.as_str().expect("text");
        serde_json::from_str(text).expect("JSON")
    };
    let rows = rows.as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| (text(&row["file"]), text(&row["rows"])))
        .collect()
}

/// Waits until so many files were written down.
async fn until_told(server: &Server, count: usize) -> Vec<(Value, Value)> {
    eventually(&format!("{count} files were told"), async || {
        let found = told(server).await;
        if found.len() == count {
            return Ok(found);
        }
        let logs = server.database("db").logs("t").await;
        Err(format!("{found:#?}\n{logs:#?}"))
    })
    .await
}

/// Waits until a database's rows are in files. Each entry of the log brings the next snapshot
/// nearer: those that are written here are another database's.
pub(crate) async fn until_in_files(server: &Server, db: &Database, rows: i64) {
    let sql = "SELECT sum(row_count) AS n FROM system.parquet_files";
    eventually(&format!("{rows} rows are in files"), async || {
        server.database("nudge").write("x f=1 1").await;
        let found = db.number(sql).await;
        (found == rows).then_some(()).ok_or(format!("{found}"))
    })
    .await;
}

fn lag_of(trigger: &str) -> String {
    format!(
        "SELECT lag_entries, lag_rows, lag_seconds > 0 AS lags FROM system.plugin_triggers \
         WHERE trigger_name = '{trigger}'"
    )
}

#[tokio::test]
async fn a_trigger_gets_the_files_of_a_snapshot_and_what_is_in_them() {
    let server = snapshots().start().await;
    let db = server.database("db").create().await;
    follow(&db, "t", "parquet:all_tables").await;
    db.write("m,host=a f=1.5,i=2i,s=\"x\" 1\nm,host=b f=2.5,b=true 1200\nn f=-1 7")
        .await;
    until_in_files(&server, &db, 3).await;
    let told = until_told(&server, 3).await;
    // What is said of a file is what SQL says of it.
    let sql = "SELECT * FROM system.parquet_files ORDER BY path";
    let mut expected = db.query(sql).await;
    let expected = expected.as_array_mut().expect("rows");
    for file in &mut *expected {
        file["reason"] = "snapshot".into();
        file["replaces"] = json!([]);
    }
    let mut said: Vec<Value> = told.iter().map(|(file, _)| file.clone()).collect();
    said.sort_by_key(|file| file["path"].to_string());
    assert_eq!(&said, expected);
    // And so are the rows, each point once.
    let mut rows: Vec<Value> = Vec::new();
    for (file, of_file) in &told {
        if file["table_name"] == "m" {
            rows.extend(of_file.as_array().expect("rows").clone());
        }
    }
    rows.sort_by_key(|row| row["time"].as_i64());
    let sql = "SELECT *, CAST(time AS BIGINT) AS ns FROM m ORDER BY ns";
    let mut stored = db.query(sql).await;
    for (row, stored) in rows.iter_mut().zip(stored.as_array_mut().expect("rows")) {
        let stored = stored.as_object_mut().expect("a row");
        stored["time"] = stored["ns"].clone();
        stored.remove("ns");
        // SQL leaves nulls out, and a file has the columns that its rows have.
        stored.retain(|_, value| !value.is_null());
        row.as_object_mut()
            .expect("a row")
            .retain(|_, value| !value.is_null());
        assert_eq!(row, &Value::Object(stored.clone()));
    }
    assert_eq!(rows.len(), 2);
    db.until_logged("t", 1, "starting execution of parquet plugin.")
        .await;
    db.until_logged("t", 1, "got 3 files, attempt 1").await;
    db.until(
        &lag_of("t"),
        json!([{ "lag_entries": 0, "lag_rows": 0, "lags": false }]),
    )
    .await;
    let account = "SELECT outcome, attempt, rows_in, lines_out, bytes_in > 100 AS fetched FROM \
                   system.plugin_invocations WHERE trigger_name = 't'";
    db.until(
        account,
        json!([{ "outcome": "ok", "attempt": 1, "rows_in": 3, "lines_out": 3, "fetched": true }]),
    )
    .await;
    let metrics = server.client().call(Method::GET, "/metrics").await.body;
    let counted = r#"outrigger_invocations_total{kind="parquet",outcome="ok"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    let spec = "SELECT trigger_specification AS spec FROM system.processing_engine_triggers";
    assert_eq!(
        db.query(spec).await,
        json!([{ "spec": "\"all_tables_parquet_persist\"" }])
    );
}

/// The times of the points that were told of a table, in their order: in seconds, as they were
/// written.
async fn times_of(server: &Server, table: &str) -> Vec<i64> {
    let told = told(server).await.into_iter();
    let of_table = told.filter(|(file, _)| file["table_name"] == table);
    let rows = of_table.flat_map(|(_, rows)| rows.as_array().cloned().unwrap_or_default());
    let times = rows.filter_map(|row| row["time"].as_i64());
    let mut times: Vec<_> = times.map(|time| time / 1_000_000_000).collect();
    times.sort_unstable();
    times
}

async fn until_times(server: &Server, table: &str, expected: &[i64]) {
    eventually(&format!("{expected:?} were told of {table}"), async || {
        let found = times_of(server, table).await;
        (found == expected)
            .then_some(())
            .ok_or(format!("{found:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_trigger_sees_its_own_tables_and_what_is_committed_after_it() {
    let server = snapshots().start().await;
    let (db, other) = (server.database("db"), server.database("other"));
    db.write("a f=1 1\nb f=1 1").await;
    until_in_files(&server, &db, 2).await;
    follow(&db, "t", "parquet:b").await;
    let other = other.create().await;
    follow(&other, "theirs", "parquet:all_tables").await;
    db.write("a f=1 2\nb f=1 2").await;
    other.write("b f=1 3\nx f=1 3").await;
    until_in_files(&server, &db, 4).await;
    until_in_files(&server, &other, 2).await;
    // Of its own `b` what came after it; and the other one's.
    until_times(&server, "b", &[2, 3]).await;
    until_times(&server, "x", &[3]).await;

    // What is committed while it is disabled, it never sees.
    db.disable("t").await;
    db.write("b f=1 4").await;
    until_in_files(&server, &db, 5).await;
    db.enable("t").await;
    db.write("b f=1 5").await;
    until_in_files(&server, &db, 6).await;
    until_times(&server, "b", &[2, 3, 5]).await;
    assert!(times_of(&server, "a").await.is_empty());
}

/// Has it wait until a table is there, which is a failure for as long.
async fn wait_for(db: &Database, name: &str, behavior: &'static str) {
    db.trigger(name, "write_down.py")
        .spec("parquet:all_tables")
        .argument("wait_for", "gate")
        .error_behavior(behavior)
        .create()
        .await;
}

#[tokio::test]
async fn files_are_told_exactly_once_though_the_server_is_killed() {
    let mut server = snapshots().start().await;
    let db = server.database("db").create().await;
    wait_for(&db, "t", "retry").await;
    let mut points = 0;
    for round in 0..3 {
        let db = server.database("db");
        for _ in 0..4 {
            db.write(format!("m f={points} {points}")).await;
            points += 1;
        }
        // Of the last round, some rows are in the log only.
        if round < 2 {
            until_in_files(&server, &db, points).await;
        }
        db.until_said("t", "error executing parquet plugin: QueryError")
            .await;
        let sql = "SELECT count(*) AS n FROM system.parquet_files";
        let (lag, found) = (db.query(&lag_of("t")).await, db.number(sql).await);
        let entries = lag[0]["lag_entries"].as_i64().expect("it lags");
        assert!((1..=found).contains(&entries), "{lag} {found}");
        assert_eq!(lag[0]["lags"], json!(true));
        server.kill_9();
        server.restart().await;
    }
    let db = server.database("db");
    // The gate is in the same database: the plugin asks there.
    db.write(format!("gate open=true {points}")).await;
    until_in_files(&server, &db, points + 1).await;
    let times: Vec<i64> = (0..points).collect();
    until_times(&server, "m", &times).await;
    until_times(&server, "gate", &[points]).await;
    let once = "SELECT count(*) - count(DISTINCT path) AS twice FROM files";
    assert_eq!(server.database("told").number(once).await, 0);
}

#[tokio::test]
async fn whenever_the_server_is_killed_each_file_counts_once() {
    let mut server = joining().start().await;
    let db = server.database("db").create().await;
    follow(&db, "t", "parquet:m").await;
    let mut points = 0;
    for round in 0..10 {
        let db = server.database("db");
        let snapshots = server.count_logged("made a snapshot");
        let finished = server.count_logged("finished execution");
        for _ in 0..6 {
            db.write(format!("m f={points} {points}")).await;
            points += 1;
        }
        // Behind a snapshot, or behind a run.
        eventually("something has happened", async || {
            let made = server.count_logged("made a snapshot") > snapshots;
            let ran = server.count_logged("finished execution") > finished;
            let is_enough = if round % 2 == 0 { made } else { ran };
            server.database("nudge").write("x f=1 1").await;
            is_enough.then_some(()).ok_or("nothing yet".to_owned())
        })
        .await;
        server.kill_9();
        server.restart().await;
    }
    let db = server.database("db");
    until_in_files(&server, &db, points).await;
    let seen = "SELECT sum(CASE WHEN reason = 'snapshot' THEN row_count END) AS points, count(*) - \
                count(DISTINCT path) AS twice FROM files";
    let told = server.database("told");
    told.until(seen, json!([{ "points": points, "twice": 0 }]))
        .await;
}

/// The names of the files that lie there.
fn lying(server: &Server) -> Vec<String> {
    let node = server.data_directory();
    let names = files(server, "dbs").into_iter();
    let name = |path: String| {
        let path = Path::new(&path).strip_prefix(&node).expect("it is there");
        path.display().to_string()
    };
    names.map(name).collect()
}

/// Waits until no file lies there but those that the databases' tables have.
async fn until_only_named(server: &Server, databases: &[&str]) {
    eventually("only what tables have lies there", async || {
        let mut named = Vec::new();
        for name in databases {
            let sql = "SELECT path FROM system.parquet_files";
            let rows = server.database(name).query(sql).await;
            let rows = rows.as_array().cloned().unwrap_or_default();
            let paths = rows.iter().filter_map(|row| row["path"].as_str());
            named.extend(paths.map(str::to_owned));
        }
        let mut found = lying(server);
        named.sort();
        found.sort();
        (named == found)
            .then_some(())
            .ok_or(format!("{named:#?} {found:#?}"))
    })
    .await;
}

#[tokio::test]
async fn files_that_were_joined_stay_until_a_slow_trigger_has_seen_them() {
    let mut server = joining().start().await;
    let db = server.database("db").create().await;
    wait_for(&db, "t", "retry").await;
    for time in 0..60 {
        db.write(format!("m f={time} {time}")).await;
    }
    until_in_files(&server, &db, 60).await;
    // The name of a joined file has a second number.
    let joined = "SELECT count(*) AS n FROM system.parquet_files WHERE path ~ '-[0-9]+[.]parquet$'";
    eventually("files are joined", async || {
        let joined = db.number(joined).await;
        (joined > 0).then_some(()).ok_or("none".to_owned())
    })
    .await;
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    let named = "SELECT count(*) AS n FROM system.parquet_files";
    let kept = lying(&server).into_iter();
    let kept = kept.filter(|path| path.contains("/dbs/1/1/")).count();
    assert!(
        i64::try_from(kept).expect("few") > db.number(named).await,
        "what was joined is still there"
    );
    db.write("gate open=true 1").await;
    let paths = "SELECT count(*) AS n, count(DISTINCT path) AS paths, sum(CASE WHEN reason = \
                 'compaction' THEN 1 ELSE 0 END) > 0 AS joined, sum(CASE WHEN reason = 'snapshot' \
                 AND file LIKE '%\"table_name\": \"m\"%' THEN row_count END) AS points FROM files";
    let seen = eventually("all points were told", async || {
        let reply = server.database("told").try_query(paths).await;
        let seen = if reply.status == 200 {
            reply.json()
        } else {
            Value::Null
        };
        let are_all = seen[0]["points"] == 60 && seen[0]["joined"] == true;
        are_all.then_some(seen).ok_or(format!("{reply:?}"))
    })
    .await;
    assert_eq!(seen[0]["n"], seen[0]["paths"], "{seen}");
    // Whatever took the place of others says which.
    let all = told(&server).await;
    let names: Vec<&str> = all
        .iter()
        .filter_map(|(file, _)| file["path"].as_str())
        .collect();
    for (file, _) in &all {
        let replaces = file["replaces"].as_array().expect("a list");
        assert_eq!(
            file["reason"] == "compaction",
            !replaces.is_empty(),
            "{file}"
        );
        for replaced in replaces {
            assert!(
                names.contains(&replaced.as_str().expect("a name")),
                "{file}"
            );
        }
    }
    db.disable("t").await;
    until_only_named(&server, &["db", "told", "nudge"]).await;
}

const FAILS: &str = "
def process_persisted(influxdb3_local, files, args=None):
    influxdb3_local.write_to_db('told', LineBuilder('never').int64_field('n', 1))
    influxdb3_local.info(files[0]['table_name'])
    raise ValueError('boom')
";

#[tokio::test]
async fn a_plugin_that_fails_is_treated_as_its_trigger_says() {
    let server = snapshots().plugin("fails.py", FAILS).start().await;
    let db = server.database("db").create().await;
    for behavior in ["log", "retry", "disable"] {
        db.trigger(behavior, "fails.py")
            .spec("parquet:m")
            .error_behavior(behavior)
            .create()
            .await;
    }
    db.write("m f=1 1").await;
    until_in_files(&server, &db, 1).await;
    let error = "error executing parquet plugin: ValueError: boom";
    for behavior in ["log", "retry", "disable"] {
        let rows = db.until_said(behavior, error).await;
        assert!(rows[0].text.contains("in process_persisted"), "{rows:?}");
    }
    db.until_said("retry", "trying again").await;
    db.until_logged(
        "disable",
        1,
        "the trigger was disabled because its plugin failed",
    )
    .await;
    db.until_logged("log", 1, error).await;
    let states = "SELECT trigger_name, state FROM system.plugin_triggers WHERE trigger_name <> \
                  'retry' ORDER BY trigger_name";
    db.until(
        states,
        json!([
            { "trigger_name": "disable", "state": "disabled" },
            { "trigger_name": "log", "state": "idle" },
        ]),
    )
    .await;
    // The next file is the next event.
    db.write("m f=1 2").await;
    until_in_files(&server, &db, 2).await;
    db.until_logged("log", 2, error).await;
    let never = server
        .database("told")
        .try_query("SELECT * FROM never")
        .await;
    never.check_refused(404, "told");
}

#[tokio::test]
async fn asynchronous_runs_get_each_file_once() {
    let server = snapshots().start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "write_down.py")
        .spec("parquet:m")
        .asynchronous()
        .create()
        .await;
    for time in 0..40 {
        db.write(format!("m f={time} {time}")).await;
    }
    until_in_files(&server, &db, 40).await;
    let times: Vec<i64> = (0..40).collect();
    until_times(&server, "m", &times).await;
}

const STEALS: &str = "
def process_persisted(influxdb3_local, files, args=None):
    for what in ({'file': {'index': 99}}, {'batch': 0}):
        try:
            influxdb3_local._fetch_ticket(**what)
        except Exception as error:
            influxdb3_local.info(type(error).__name__, error)
    kept = influxdb3_local.cache.get('kept')
    influxdb3_local.cache.put('kept', files[0])
    if kept is not None:
        kept.to_arrow()
";

#[tokio::test]
async fn a_worker_gets_the_files_of_its_own_run_and_no_others() {
    let server = snapshots().plugin("steals.py", STEALS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "steals.py")
        .spec("parquet:m")
        .create()
        .await;
    db.write("m f=1 1").await;
    until_in_files(&server, &db, 1).await;
    db.until_logged("t", 1, "FetchError the event has no such file")
        .await;
    db.until_logged("t", 1, "FetchError the event has no such table")
        .await;
    db.write("m f=1 2").await;
    until_in_files(&server, &db, 2).await;
    db.until_said("t", "error executing parquet plugin: RunEndedError")
        .await;
}

#[tokio::test]
async fn a_plugin_is_tried_with_the_files_that_there_are() {
    let server = snapshots().start().await;
    let (cli, db) = (server.command_line(), server.database("db"));
    let test = ["test", "persisted_plugin", "-d", "db", "write_down.py"];
    cli.check_refused(&test, 1, "couldn't find db");
    let db = db.create().await;
    let report = |arguments: &[&str]| -> Value {
        let output = cli.success(&[&test[..], arguments].concat());
        serde_json::from_str(&output).expect("JSON")
    };
    let none = report(&["--table", "m"]);
    let text = "INFO: the plugin was not called: \"db\" has no table \"m\" with Parquet files yet; \
                snapshots make them";
    assert_eq!(none["log_lines"], json!([text]));
    // One file of each table in each round.
    for round in 1..=3 {
        db.write(format!("m f={round} {round}\nn f=1 {round}"))
            .await;
        until_in_files(&server, &db, 2 * round).await;
    }
    let newest = "SELECT path FROM system.parquet_files WHERE table_name = 'm' ORDER BY path DESC";
    let newest = db.query(newest).await;
    let tried = report(&["--table", "m"]);
    assert_eq!(tried["errors"], json!([]));
    let written = tried["database_writes"]["told"].as_array().expect("lines");
    let line = written[0].as_str().expect("a line");
    assert_eq!(written.len(), 1);
    assert!(
        line.contains(newest[0]["path"].as_str().expect("a path")),
        "{line}"
    );
    assert!(line.contains("row_count=1i"), "{line}");
    assert_eq!(tried["log_lines"][1], "INFO: got 1 files, attempt 1");
    let all = report(&["--files", "100"]);
    assert_eq!(all["log_lines"][1], "INFO: got 6 files, attempt 1");
    assert_eq!(
        report(&["--table", "m", "--files", "2"])["log_lines"][1],
        "INFO: got 2 files, attempt 1"
    );
    for bad in ["0", "101"] {
        let wanted = [&test[..], &["--files", bad]].concat();
        cli.check_refused(&wanted, 1, "the number of files must be from 1 to 100");
    }
    let body = json!({ "filename": "write_down.py", "database": "db", "table": "n" });
    let reply = server
        .client()
        .post("/api/v3/plugin_test/persisted", &body)
        .await;
    assert_eq!(
        (reply.status, &reply.json()["errors"]),
        (200, &json!([])),
        "{reply:?}"
    );
    // Nothing of it was stored.
    let there = server
        .database("told")
        .try_query("SELECT * FROM files")
        .await;
    there.check_refused(404, "told");
}

#[tokio::test]
async fn specifications_that_are_none_are_refused_with_what_would_be_one() {
    let server = snapshots().start().await;
    let (cli, db) = (server.command_line(), server.database("db").create().await);
    let grammar = "parquet:all_tables Parquet files of any table of the database were committed";
    let create = |spec: &'static str| {
        let start = ["create", "trigger", "-d", "db", "--path", "write_down.py"];
        [&start[..], &["--trigger-spec", spec, "t"]].concat()
    };
    for (spec, reason) in [
        (
            "parquet:",
            "it names no table: parquet:all_tables, or parquet:<name>",
        ),
        ("parquet", "it has none of the known forms"),
        ("Parquet:m", "it has none of the known forms"),
    ] {
        let trigger = db.trigger("t", "write_down.py").spec(spec);
        let reply = trigger.try_create().await;
        reply.check_refused(400, reason);
        reply.check_refused(400, grammar);
        cli.check_refused(&create(spec), 2, reason);
    }
    let earliest = [&create("parquet:m")[..], &["--start", "earliest"]].concat();
    cli.check_refused(&earliest, 1, "trigger on files");
    cli.success(&create("parquet:with space"));
    let spec = "SELECT trigger_specification AS spec FROM system.processing_engine_triggers";
    assert_eq!(
        db.query(spec).await,
        json!([{ "spec": "{\"single_table_parquet_persist\":{\"table_name\":\"with space\"}}" }])
    );
}

#[tokio::test]
async fn a_server_may_take_no_triggers_on_files() {
    let server = snapshots()
        .flag("--restrict-plugin-triggers-to", "wal,schedule")
        .start()
        .await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "write_down.py").spec("parquet:m");
    let refused = trigger.try_create().await;
    refused.check_refused(400, "ParquetFiles");
}

#[tokio::test]
async fn what_an_older_table_had_is_no_event_of_a_newer_one() {
    let server = snapshots().start().await;
    let db = server.database("db").create().await;
    wait_for(&db, "t", "retry").await;
    db.write("m f=1 1").await;
    until_in_files(&server, &db, 1).await;
    db.until_said("t", "trying again").await;
    let gone = [
        "delete",
        "table",
        "-d",
        "db",
        "-y",
        "--hard-delete",
        "now",
        "m",
    ];
    server.command_line().success(&gone);
    let lag = "SELECT lag_entries FROM system.plugin_triggers";
    db.until(lag, json!([{ "lag_entries": 0 }])).await;
    db.write("m g=1i 1\ngate open=true 1").await;
    until_in_files(&server, &db, 2).await;
    // The event that was under way is finished with what it was handed; what comes is the new
    // table's.
    eventually("the new table's file", async || {
        let told = told(&server).await;
        let new = told.iter().any(|(_, rows)| rows[0].get("g").is_some());
        new.then_some(()).ok_or(format!("{told:#?}"))
    })
    .await;
    eventually("what was deleted has gone", async || {
        let left: Vec<_> = lying(&server)
            .into_iter()
            .filter(|path| path.contains("/dbs/1/1/"))
            .collect();
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
}
