//! The plugins of `examples/`, with real packages, and with the commands that their READMEs show.

use std::{fs, io::Write as _, path::Path};

use flate2::{Compression, write::GzEncoder};
use outrigger_integration_tests::{Database, Readme, Reply, Server, Webhook, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

/// A server with the packages of the examples, into which they are uploaded.
async fn server_for_examples() -> Server {
    server()
        .with_packages()
        .plugin("other.py", "")
        .allow_log(
            "a plugin's worker ended",
            "a story kills it, maybe while it is busy",
        )
        .start()
        .await
}

/// Waits until the trigger has run so many more times.
async fn after_runs(db: &Database, trigger: &str, count: i64) {
    let sql = format!(
        "SELECT count(*) AS runs FROM system.processing_engine_logs \
         WHERE trigger_name = '{trigger}' AND log_text LIKE 'finished execution%'"
    );
    let before = db.number(&sql).await;
    eventually(&format!("{trigger} runs {count} more times"), async || {
        let now = db.number(&sql).await;
        if now >= before + count {
            Ok(())
        } else {
            Err(format!("{now} after {before}"))
        }
    })
    .await;
}

#[tokio::test]
async fn downsampling_computes_windows_and_late_rows() {
    let server = server_for_examples().await;
    let readme = Readme::new(&server, "downsampling");
    readme.run(&["create database", "create trigger"]);
    let db = server.database("weather");
    // Not the README's own, which may be another minute the next time.
    let now = "SELECT CAST(to_unixtime(now()) AS BIGINT) / 60 * 60 AS now";
    let readme = readme.variable("NOW", &db.number(now).await.to_string());
    readme.run(&["temperature=20"]);
    let kitchen = "SELECT temperature_avg, temperature_max, humidity_max, humidity_p90 \
                   FROM climate_1m WHERE room = 'kitchen'";
    let row = |average: f64, max: f64| {
        json!([{ "temperature_avg": average, "temperature_max": max,
                 "humidity_max": 44, "humidity_p90": 44.0 }])
    };
    db.until(kitchen, row(21.0, 22.0)).await;
    readme.run(&["temperature=27"]);
    db.until(kitchen, row(23.0, 27.0)).await;

    // A new worker knows from the target where to go on, and does not begin with the backfill.
    server.kill_workers().await;
    after_runs(&db, "downsampling", 2).await;
    readme.run(&["temperature=27"]);
    after_runs(&db, "downsampling", 2).await;
    assert_eq!(db.query(kitchen).await, row(23.0, 27.0));
    assert_eq!(db.number("SELECT count(*) AS n FROM climate_1m").await, 2);
    db.until_logged("downsampling", 1, "in 60 windows").await;
}

#[tokio::test]
async fn downsampling_writes_to_another_database_and_names_mistakes() {
    let server = server_for_examples().await;
    Readme::new(&server, "downsampling").run(&["create database", "create trigger"]);
    let db = server.database("weather");
    db.write("energy,meter=a kwh=2i,state=\"on\" 1700000000000000000\nenergy,meter=b kwh=3i 1700000001000000000")
        .await;
    db.trigger("archive", "downsampling.py")
        .spec("every:1s")
        .argument("source_table", "energy")
        .argument("aggregations", "kwh:sum count state:last")
        .argument("interval", "1d")
        .argument("tags", "")
        .argument("backfill", "7300d")
        .argument("target_database", "archive")
        .create()
        .await;
    let expected = json!([{ "time": "2023-11-14T00:00:00", "kwh_sum": 5, "kwh_count": 2, "state_last": "on" }]);
    let days = "SELECT time, kwh_sum, kwh_count, state_last FROM energy_1d";
    server.database("archive").until(days, expected).await;

    for (name, argument, value, part) in [
        (
            "unit",
            "interval",
            "1x",
            "interval='1x': expected a number with s, m, h or d, such as 10m",
        ),
        (
            "function",
            "aggregations",
            "avg mean",
            "'mean' names no function; there are avg, sum",
        ),
        (
            "field",
            "aggregations",
            "watt:avg",
            "'energy' has no field 'watt', only ['kwh', 'state']",
        ),
        ("typo", "intervall", "1m", "unknown arguments ['intervall']"),
    ] {
        let trigger = db.trigger(name, "downsampling.py").spec("every:1s");
        let trigger = trigger
            .argument("source_table", "energy")
            .argument("interval", "1m");
        let trigger = trigger
            .argument("aggregations", "avg")
            .argument(argument, value);
        trigger.create().await;
        until_error(&db, name, part).await;
    }
}

/// Waits until a run of the trigger has failed with this.
async fn until_error(db: &Database, trigger: &str, part: &str) {
    eventually(&format!("{trigger} fails with {part:?}"), async || {
        let logs = db.logs(trigger).await;
        let failed = |text: &str| text.starts_with("error executing") && text.contains(part);
        if logs.iter().any(|row| failed(&row.text)) {
            Ok(())
        } else {
            Err(format!("{logs:#?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn deadman_check_tells_once_of_silence_and_once_of_recovery() {
    let server = server_for_examples().await;
    let webhook = Webhook::start().await;
    webhook.answer_next(&[503]);
    let readme = Readme::new(&server, "deadman_check").variable("WEBHOOK", &webhook.url());
    readme.run(&["create database", "create trigger", "up=true"]);
    let db = server.database("plant");
    let posts = webhook.until(2).await;
    assert_eq!([posts[0].status, posts[1].status], [503, 204]);
    assert_eq!(posts[0].body, posts[1].body);
    let key = |index: usize| posts[index].headers["idempotency-key"].clone();
    assert_eq!(key(0), key(1));
    assert_eq!(posts[1].body["status"], "silent");
    assert_eq!(posts[1].body["series"], json!({ "host": "pump1" }));

    // It stays silent; neither the same worker nor a new one says so again.
    after_runs(&db, "deadman", 2).await;
    server.kill_workers().await;
    after_runs(&db, "deadman", 2).await;
    assert_eq!(webhook.posts().len(), 2);

    readme.run(&["up=t'"]);
    let posts = webhook.until(3).await;
    assert_eq!(posts[2].body["status"], "recovered");
    let notices = "SELECT watched, host, status FROM deadman_notices ORDER BY time LIMIT 2";
    let expected = json!([
        { "watched": "heartbeat", "host": "pump1", "status": "silent" },
        { "watched": "heartbeat", "host": "pump1", "status": "recovered" },
    ]);
    db.until(notices, expected).await;
}

#[tokio::test]
async fn deadman_check_tries_again_in_the_next_run() {
    let server = server_for_examples().await;
    let webhook = Webhook::start().await;
    // The first run's attempt and its three retries, and the second run's.
    webhook.answer_next(&[500, 500, 500, 500]);
    let readme = Readme::new(&server, "deadman_check").variable("WEBHOOK", &webhook.url());
    readme.run(&["create database", "create trigger", "up=true"]);
    let db = server.database("plant");
    let posts = webhook.until(5).await;
    assert_eq!(posts[4].status, 204);
    until_error(
        &db,
        "deadman",
        "the webhook was not reached: silent of heartbeat[host=pump1]",
    )
    .await;
    after_runs(&db, "deadman", 2).await;
    assert_eq!(webhook.posts().len(), 5);
}

const ALERTS: &str = "SELECT severity, previous, value, notified FROM alerts ORDER BY time";

fn alert(severity: &str, previous: &str, value: f64, notified: bool) -> Value {
    json!({ "severity": severity, "previous": previous, "value": value, "notified": notified })
}

#[tokio::test]
async fn threshold_alert_counts_from_write_to_write() {
    let server = server_for_examples().await;
    let webhook = Webhook::start().await;
    let readme = Readme::new(&server, "threshold_alert").variable("WEBHOOK", &webhook.url());
    readme.run(&["create database", "create trigger", "temperature=85"]);
    let db = server.database("ovens");
    let warning = alert("warning", "ok", 86.0, true);
    db.until(ALERTS, json!([warning])).await;
    readme.run(&["temperature=96"]);
    let alerts = json!([
        warning,
        alert("critical", "warning", 96.0, true),
        alert("warning", "critical", 74.0, true),
        alert("ok", "warning", 73.0, true),
    ]);
    db.until(ALERTS, alerts).await;
    let told: Vec<_> = webhook
        .posts()
        .into_iter()
        .map(|post| post.body["severity"].clone())
        .collect();
    assert_eq!(told, ["warning", "critical", "warning", "ok"]);
}

#[tokio::test]
async fn threshold_alert_remembers_severities_after_its_workers_death() {
    let server = server_for_examples().await;
    let webhook = Webhook::start().await;
    webhook.answer_next(&[410]);
    let readme = Readme::new(&server, "threshold_alert").variable("WEBHOOK", &webhook.url());
    readme.run(&["create database", "create trigger", "temperature=85"]);
    let db = server.database("ovens");
    let warning = alert("warning", "ok", 86.0, false);
    db.until(ALERTS, json!([warning])).await;
    after_runs_of_writes(&db, "hot_oven", 1).await;
    server.kill_workers().await;

    // The count of one for `critical` is gone with the worker, the severity is not.
    db.write("oven,id=a temperature=96 1700000003000000000")
        .await;
    after_runs_of_writes(&db, "hot_oven", 2).await;
    assert_eq!(db.query(ALERTS).await, json!([warning]));
    db.write("oven,id=a temperature=97 1700000004000000000")
        .await;
    db.until(
        ALERTS,
        json!([warning, alert("critical", "warning", 97.0, true)]),
    )
    .await;
    assert_eq!(webhook.posts().len(), 2);
}

/// Waits until the trigger has had so many runs in all.
async fn after_runs_of_writes(db: &Database, trigger: &str, count: usize) {
    db.until_logged(trigger, count, "finished execution").await;
}

#[tokio::test]
async fn transformation_writes_converted_rows_to_another_database() {
    let server = server_for_examples().await;
    let readme = Readme::new(&server, "transformation");
    readme.run(&["create database", "create trigger", "influxdb3 write"]);
    let time = "2023-11-14T22:13:20";
    let expected = json!([
        { "location": "hall", "temperature": 20.0, "time": time },
        { "location": "roof", "temperature": 100.0, "pressure": 1013.53,
          "count": 9_007_199_254_740_993_i64, "time": time },
    ]);
    let clean = server.database("clean");
    clean
        .until("SELECT * FROM climate ORDER BY location", expected)
        .await;
    let types = "SELECT data_type FROM information_schema.columns \
                 WHERE table_name = 'climate' AND column_name = 'location'";
    clean
        .until(types, json!([{ "data_type": "Dictionary(Int32, Utf8)" }]))
        .await;

    let db = server.database("raw");
    for (name, conversion, part) in [
        ("unknown", "temp:degF:kelwin", "'kelwin' is not defined"),
        (
            "unfit",
            "temp:degF:meter",
            "temp: degF cannot be converted to meter",
        ),
        (
            "text",
            "debug:m:cm",
            "'debug' is string, and only numbers can be converted",
        ),
    ] {
        let trigger = db.trigger(name, "transformation.py").spec("table:sensors");
        let trigger = trigger.argument("target_database", "clean");
        trigger.argument("conversions", conversion).create().await;
        db.write("sensors,loc=roof temp=1,debug=\"x\"").await;
        until_error(&db, name, part).await;
    }
}

async fn ingest(server: &Server, path: &str, body: impl Into<Vec<u8>>) -> Reply {
    let request = server
        .client()
        .request(Method::POST, &format!("/api/v3/engine/{path}"));
    server.client().answer(request.body(body.into())).await
}

/// Waits until the path has a trigger; it starts just after it was created.
async fn until_routed(server: &Server, path: &str) {
    eventually("the path is answered", async || {
        let reply = ingest(server, path, "").await;
        if reply.status == 404 {
            Err(format!("{reply:?}"))
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn json_ingest_answers_with_what_was_wrong_in_each_record() {
    let server = server_for_examples().await;
    let readme = Readme::new(&server, "json_ingest");
    readme.run(&["create database", "create trigger"]);
    until_routed(&server, "ingest").await;
    let db = server.database("devices");
    assert_eq!(readme.run(&["\"battery\": 97"]), "{\"written\": 2}");
    // The answer came after the rows could be queried.
    let first = json!([
        { "device": "d1", "room": "hall", "temperature": 20.5, "battery": 97, "time": "2026-01-31T12:00:00.500" },
        { "device": "d2", "temperature": 19.0, "time": "2026-01-31T12:00:00" },
    ]);
    let rows = "SELECT * FROM climate ORDER BY device";
    assert_eq!(db.query(rows).await, first);

    let refused: Value = serde_json::from_str(&readme.run(&["yesterday"])).expect("it is JSON");
    assert_eq!(
        (&refused["written"], &refused["rejected"]),
        (&json!(0), &json!(3))
    );
    let paths: Vec<_> = (0..3)
        .map(|index| refused["errors"][index]["path"].clone())
        .collect();
    assert_eq!(paths, ["data.temp", "meta.id", "ts"]);
    assert_eq!(db.query(rows).await, first, "nothing was written");

    assert_eq!(readme.run(&["gzip"]), "{\"written\": 1}");
    let zone = "SELECT time FROM climate WHERE device = 'd4'";
    assert_eq!(
        db.query(zone).await,
        json!([{ "time": "2026-01-31T12:00:00" }])
    );
}

#[tokio::test]
async fn json_ingest_takes_every_body_it_can_and_refuses_the_others() {
    let server = server_for_examples().await;
    Readme::new(&server, "json_ingest").run(&["create database", "create trigger"]);
    let db = server.database("devices");
    db.write("strict n=1.5").await;
    for (name, table, partial) in [("all", "strict", "false"), ("some", "loose", "true")] {
        let trigger = db
            .trigger(name, "json_ingest")
            .spec(&format!("request:{name}"));
        let trigger = trigger
            .argument("table", table)
            .argument("partial", partial);
        let trigger = trigger
            .argument("fields", "n:n:int")
            .argument("max_records", "3");
        trigger.create().await;
        until_routed(&server, name).await;
    }
    for (body, status, part) in [
        ("", 400, "the body is empty"),
        ("{", 400, "the body is not JSON"),
        ("[]", 400, "the array of records is empty"),
        ("[1]", 400, "expected an object, not a number"),
        ("{\"n\": 1e999}", 400, "rejected"),
        ("{\"n\": 1.5}", 400, "expected a whole number"),
        ("[{}, {}, {}, {}]", 413, "4 records are too many"),
    ] {
        ingest(&server, "some", body)
            .await
            .check_refused(status, part);
    }
    // The table has a float there: only the server can know.
    let conflict = ingest(&server, "all", "{\"n\": 1}").await;
    conflict.check_refused(400, "\"rejected\": 1");

    let partly = ingest(&server, "some", "[{\"n\": 1}, {\"n\": \"x\"}]").await;
    partly.check_refused(400, "\"written\": 1, \"rejected\": 1");
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"{\"n\": 7}").unwrap();
    let taken = ingest(&server, "some", packed.finish().unwrap()).await;
    assert_eq!(
        (taken.status, taken.body.as_str()),
        (200, "{\"written\": 1}")
    );
    let sum = "SELECT sum(n) AS sum FROM loose";
    assert_eq!(db.query(sum).await, json!([{ "sum": 8 }]));
}

#[tokio::test]
async fn anomaly_detector_keeps_its_models_between_runs() {
    let server = server_for_examples().await;
    let readme = Readme::new(&server, "anomaly_detector");
    readme.run(&["create database", "create trigger"]);
    let db = server.database("machines");
    // It learns all that the README writes but its last row, and nothing from the past.
    db.trigger("cold", "anomaly_detector.py")
        .spec("table:vibration")
        .argument("fields", "value")
        .argument("warm_up", "401")
        .argument("history", "0")
        .argument("target_table", "cold_scores")
        .create()
        .await;
    readme.run(&["random.seed"]);
    let scored = "SELECT count(*) AS rows, sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS bad \
                  FROM anomaly_scores";
    db.until(scored, json!([{ "rows": 200, "bad": 0 }])).await;
    db.until_logged("cold", 1, "finished execution").await;
    readme.run(&["value=32.5"]);
    let last = "SELECT value, is_anomaly, learned FROM anomaly_scores ORDER BY time DESC LIMIT 1";
    db.until(
        last,
        json!([{ "value": 32.5, "is_anomaly": true, "learned": 401 }]),
    )
    .await;
    let cold = "SELECT value, learned FROM cold_scores ORDER BY time DESC";
    db.until(cold, json!([{ "value": 32.5, "learned": 401 }]))
        .await;
    db.until_logged("cold", 2, "finished execution").await;
    // A series without the tag is another one, and has learned nothing yet.
    db.write("vibration value=20 1700000401500000000").await;
    db.until_logged("anomalies", 1, "new model for vibration[], 0 rows")
        .await;

    // A new worker learns from the table, or begins from nothing, as it was told.
    db.until_logged("anomalies", 3, "finished execution").await;
    db.until_logged("cold", 3, "finished execution").await;
    server.kill_workers().await;
    db.write("vibration,machine=a value=20.2 1700000402000000000")
        .await;
    db.until(
        last,
        json!([{ "value": 20.2, "is_anomaly": false, "learned": 402 }]),
    )
    .await;
    db.until_logged("cold", 4, "finished execution").await;
    assert_eq!(db.number("SELECT count(*) AS n FROM cold_scores").await, 1);
}

/// Reads what was exported, as any program could.
const READ_EXPORT: &str = "
import glob
import pyarrow.parquet as pq

def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    found = sorted(glob.glob(args['directory'] + '/**/*.parquet', recursive=True))
    rows = [row for path in found for row in pq.ParquetFile(path).read().to_pylist()]
    return {'files': [path[len(args['directory']) + 1:] for path in found],
            'rows': sorted((row['room'], row['temp']) for row in rows)}
";

/// What copies of the files that a table has are called.
async fn names_of_copies(db: &Database, table: &str) -> Vec<String> {
    let sql =
        format!("SELECT path FROM system.parquet_files WHERE table_name = '{table}' ORDER BY path");
    let name = |row: &Value| {
        let path = row["path"].as_str().unwrap_or_default();
        let parts: Vec<_> = path.rsplitn(4, '/').take(3).collect();
        format!("{table}/{}/{}/{}", parts[2], parts[1], parts[0])
    };
    let there = db.query(&sql).await;
    there.as_array().into_iter().flatten().map(name).collect()
}

#[tokio::test]
async fn file_export_copies_each_file_once_and_replaces_joined_ones() {
    let start = server().flag("--wal-snapshot-size", "2");
    let export = start.directory().join("export");
    let mirror = export.join("mirror");
    fs::create_dir_all(&mirror).expect("the second place");
    let grant = format!("rw:{}", export.display());
    let server = start
        .flag("--plugin-paths", &grant)
        .plugin("read_export.py", READ_EXPORT)
        .start()
        .await;
    let place = export.join("copies").display().to_string();
    let readme = Readme::new(&server, "file_export").variable("EXPORT", &place);
    readme.run(&["create database", "create trigger"]);
    let db = server.database("weather");
    let mirror = mirror.display().to_string();
    for (name, directory) in [("copies", &place), ("mirror", &mirror)] {
        db.trigger(&format!("read_{name}"), "read_export.py")
            .spec(&format!("request:{name}"))
            .argument("directory", directory)
            .create()
            .await;
    }
    db.trigger("mirror", "file_export.py")
        .spec("parquet:home")
        .argument("directory", &mirror)
        .argument("compacted", "replace")
        .error_behavior("retry")
        .create()
        .await;
    readme.run(&["room=kitchen", "room=hall"]);
    let read = async |name: &str| {
        let path = format!("/api/v3/engine/{name}");
        let reply = server.client().call(Method::GET, &path).await;
        // A copy may go while it is about to be read.
        let is_whole = reply.status == 200;
        is_whole.then(|| reply.json()).unwrap_or(json!(reply.body))
    };
    let rows = json!([["hall", 19.0], ["kitchen", 21.5]]);
    for name in ["copies", "mirror"] {
        eventually("both rows are there", async || {
            let found = read(name).await;
            (found["rows"] == rows)
                .then_some(())
                .ok_or(format!("{found:#}"))
        })
        .await;
    }
    readme.run(&["LIKE '%rows of home%'", "test persisted_plugin"]);
    for number in 0..30 {
        db.write(format!("home,room=r{number} temp=1 1700000000000000000"))
            .await;
    }
    // The mirror has what the server has; the copies have each point once.
    eventually("the mirror has the same files", async || {
        let (copies, mirror) = (read("copies").await, read("mirror").await);
        let there = names_of_copies(&db, "home").await;
        let is_done = server.has_logged("joined files")
            && mirror["files"] == json!(there)
            && mirror["rows"] == copies["rows"]
            && copies["rows"]
                .as_array()
                .is_some_and(|rows| rows.len() == 32);
        is_done
            .then_some(())
            .ok_or(format!("{there:#?} {mirror:#} {copies:#}"))
    })
    .await;
}

#[tokio::test]
async fn file_export_names_mistakes() {
    let start = server().flag("--wal-snapshot-size", "2");
    let plugin = include_str!("../../../examples/file_export/file_export.py");
    let server = start.plugin("file_export.py", plugin).start().await;
    let db = server.database("db").create().await;
    for (name, argument, value, part) in [
        ("typo", "dir", "/x", "unknown arguments ['dir']"),
        ("relative", "directory", "x", "required: an absolute path"),
        ("mode", "compacted", "maybe", "expected skip or replace"),
    ] {
        let trigger = db.trigger(name, "file_export.py").spec("parquet:home");
        let trigger = trigger.argument("directory", "/x");
        trigger.argument(argument, value).create().await;
        until_export_error(&db, name, part).await;
    }
}

/// Writes until a run of the trigger has failed with this.
async fn until_export_error(db: &Database, name: &str, part: &str) {
    let mut number = 0;
    eventually(&format!("{name} fails with {part:?}"), async || {
        number += 1;
        db.write(format!("home,room=x temp=1 {number}")).await;
        let logs = db.logs(name).await;
        let is_there = logs.iter().any(|row| row.text.contains(part));
        is_there.then_some(()).ok_or(format!("{logs:#?}"))
    })
    .await;
}

/// The lines of a text, without what is around each: quotes may be indented differently.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_plugin_guide_quotes_what_the_examples_hold() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let guide = fs::read_to_string(docs.join("plugin-guide.md")).expect("it is there");
    let mut source = None;
    let mut quotes = 0;
    // Outside of code every second part begins, and what is said last names the source;
    // a quote that goes on is from the same one.
    for (index, part) in guide.split("```").enumerate() {
        if index % 2 == 0 {
            let said = part.rsplit("](").next().unwrap_or_default();
            let link = said.split(')').next().unwrap_or_default();
            let found = part.contains("](") && link.contains(".py");
            source = if part.trim().starts_with("and") {
                source
            } else {
                found.then(|| link.to_owned())
            };
            continue;
        }
        if let (Some(source), Some(quote)) = (&source, part.strip_prefix("python\n")) {
            let text = fs::read_to_string(docs.join(source)).expect("the link leads to a file");
            let is_there = trimmed(&text).contains(trimmed(quote).trim());
            assert!(is_there, "{source} does not hold\n{quote}");
            quotes += 1;
        }
    }
    assert!(quotes >= 10, "{quotes} quotes were found");
}
