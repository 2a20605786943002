//! What can be seen of the plugins while they run and afterwards: by SQL, by the command line,
//! and in the metrics.

use outrigger_integration_tests::{Database, Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const WORKER_ENDED: (&str, &str) = ("a plugin's worker ended", "the plugin ends it on purpose");

/// Does what the names of the tables say that have rows.
const COSTS: &str = "
import os, signal, time

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        table, rows = batch['table_name'], batch['rows']
        if table == 'busy':
            sum(n * n for n in range(2_000_000))
        if table == 'large':
            memory = b'x' * 50_000_000
        if table == 'sized':
            memory = b'x' * rows[0]['bytes']
        if table == 'lines':
            influxdb3_local.info('said once')
            for row in rows:
                influxdb3_local.write_to_db('out', LineBuilder('out').int64_field('n', row['n']))
        if table == 'raise':
            raise ValueError('boom')
        if table == 'again' and influxdb3_local.attempt == 1:
            raise ValueError('not yet')
        if table == 'exit':
            os._exit(3)
        if table == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if table == 'hang':
            time.sleep(600)
";

const BROKEN: &str = "
def process_writes(influxdb3_local, table_batches, args=None)
    pass
";

/// Waits for the only account of a trigger, or for the one with this attempt.
async fn account(db: &Database, trigger: &str, attempt: u64) -> Value {
    let sql = format!(
        "SELECT * FROM system.plugin_invocations \
         WHERE trigger_name = '{trigger}' AND attempt = {attempt}"
    );
    eventually(&format!("there is an account of {trigger}"), async || {
        let rows = db.query(&sql).await;
        let row = rows.get(0).cloned();
        row.ok_or_else(|| "none".to_owned())
    })
    .await
}

#[track_caller]
fn number(row: &Value, column: &str) -> u64 {
    let value = row[column].as_u64();
    value.unwrap_or_else(|| panic!("{column} is no number in {row:#}"))
}

async fn create(db: &Database, tables: &[&str]) {
    for table in tables {
        let trigger = db.trigger(table, "costs.py");
        trigger.spec(&format!("table:{table}")).create().await;
    }
}

#[tokio::test]
async fn an_invocation_is_accounted_for_and_the_account_survives_a_restart() {
    let mut server = server().plugin("costs.py", COSTS).start().await;
    let db = server.database("db").create().await;
    create(&db, &["busy", "large", "lines"]).await;
    let again = db.trigger("again", "costs.py").spec("table:again");
    again.error_behavior("retry").create().await;
    let elsewhere = server.database("elsewhere").create().await;
    create(&elsewhere, &["lines"]).await;

    db.write("lines n=1i 1\nlines n=2i 2\nlines n=3i 3").await;
    let lines = account(&db, "lines", 1).await;
    assert_eq!(lines["outcome"], "ok", "{lines:#}");
    assert_eq!(lines["database_name"], "db");
    assert_eq!(lines["detail"], Value::Null, "{lines:#}");
    for (column, expected) in [("rows_in", 3), ("lines_out", 3), ("log_lines", 1)] {
        assert_eq!(number(&lines, column), expected, "{column}: {lines:#}");
    }
    for column in [
        "pid",
        "bytes_in",
        "bytes_out",
        "wall_us",
        "bind_us",
        "plugin_us",
    ] {
        assert!(number(&lines, column) > 0, "{column}: {lines:#}");
    }

    db.write("busy f=1 1").await;
    let busy = account(&db, "busy", 1).await;
    let cpu = |row| number(row, "user_cpu_us") + number(row, "system_cpu_us");
    assert!(cpu(&busy) > 10_000, "two million steps: {busy:#}");
    assert!(cpu(&busy) > cpu(&lines), "{busy:#} {lines:#}");

    db.write("large f=1 1").await;
    let large = account(&db, "large", 1).await;
    let memory = |row| number(row, "peak_memory_bytes");
    assert!(
        memory(&large) > memory(&busy) + 40_000_000,
        "{large:#} {busy:#}"
    );

    db.write("again f=1 1").await;
    let second = account(&db, "again", 2).await;
    assert_eq!(second["outcome"], "ok", "{second:#}");
    let first = account(&db, "again", 1).await;
    assert_eq!(first["outcome"], "plugin_error", "{first:#}");
    assert_eq!(first["detail"], "ValueError: not yet", "{first:#}");
    assert_eq!(first["invocation_id"], second["invocation_id"]);

    elsewhere.write("lines n=1i 1").await;
    account(&elsewhere, "lines", 1).await;
    let count = "SELECT count(*) AS n FROM system.plugin_invocations";
    assert_eq!(elsewhere.number(count).await, 1, "only its own");
    let all = "SELECT * FROM system.plugin_invocations";
    let internal = server.database("_internal");
    let before = internal.query(all).await;
    assert_eq!(before.as_array().map(Vec::len), Some(6), "{before:#}");
    check_order(&before);

    server.stop();
    server.restart().await;
    assert_eq!(server.database("_internal").query(all).await, before);
}

#[tokio::test]
async fn an_invocation_is_not_charged_for_the_memory_of_the_one_before() {
    let server = server().plugin("costs.py", COSTS).start().await;
    let db = server.database("db").create().await;
    create(&db, &["sized"]).await;
    let all = "SELECT * FROM system.plugin_invocations ORDER BY start_time";
    let mut accounts = Vec::new();
    for bytes in [100_000_000, 1] {
        db.write(format!("sized bytes={bytes}i")).await;
        let another = async || {
            let rows = db.query(all).await;
            let row = rows.get(accounts.len()).cloned();
            row.ok_or_else(|| rows.to_string())
        };
        let account = eventually("there is another account", another).await;
        assert_eq!(account["outcome"], "ok", "{account:#}");
        accounts.push(account);
    }
    let [large, small] = &accounts[..] else {
        unreachable!("two were written")
    };
    assert_eq!(large["pid"], small["pid"], "one worker: {accounts:#?}");
    let memory = |row| number(row, "peak_memory_bytes");
    assert!(memory(large) > memory(small) + 90_000_000, "{accounts:#?}");
}

#[track_caller]
fn check_order(rows: &Value) {
    let rows = rows.as_array().expect("rows");
    let times: Vec<_> = rows.iter().map(|row| row["start_time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn every_way_to_fail_has_its_word() {
    let server = server()
        .plugin("costs.py", COSTS)
        .plugin("broken.py", BROKEN)
        .allow_log(WORKER_ENDED.0, WORKER_ENDED.1)
        .start()
        .await;
    let db = server.database("db").create().await;
    create(&db, &["raise", "exit", "kill"]).await;
    let broken = db.trigger("broken", "broken.py").spec("table:broken");
    broken.create().await;
    let hang = ["create", "trigger", "-d", "db", "--path", "costs.py"];
    let more = ["--trigger-spec", "table:hang", "--timeout", "1s", "hang"];
    server.command_line().success(&[&hang[..], &more].concat());

    for (trigger, outcome, detail) in [
        ("raise", "plugin_error", "ValueError: boom"),
        ("broken", "load_error", "SyntaxError: "),
        ("exit", "code", "the worker exited with code 3"),
        (
            "kill",
            "signal",
            "the worker was ended by signal 9 (SIGKILL), which was not ours",
        ),
        ("hang", "deadline_exceeded", "deadline of 1s"),
    ] {
        db.write(format!("{trigger} f=1 1")).await;
        let row = account(&db, trigger, 1).await;
        assert_eq!(row["outcome"], outcome, "{row:#}");
        let given = row["detail"].as_str().unwrap_or_default();
        assert!(given.contains(detail), "{row:#}");
        check_failed(&db, trigger, detail).await;
    }
}

/// The table of triggers says the same about it.
async fn check_failed(db: &Database, trigger: &str, detail: &str) {
    let row = trigger_row(db, trigger).await;
    for column in ["invocations", "failures", "failures_in_a_row"] {
        assert_eq!(row[column], 1, "{row:#}");
    }
    let error = row["last_error"].as_str().unwrap_or_default();
    assert!(error.contains(detail), "{row:#}");
}

async fn trigger_row(db: &Database, trigger: &str) -> Value {
    let sql = format!("SELECT * FROM system.plugin_triggers WHERE trigger_name = '{trigger}'");
    let rows = db.query(&sql).await;
    rows.get(0).cloned().unwrap_or_else(|| panic!("{rows:#}"))
}

/// Waits until the file `go` is in the plugin directory.
const HANGING: &str = "
import os, time

def process_writes(influxdb3_local, table_batches, args=None):
    # What comes while it runs appears in its own directory only afterwards.
    plugins = os.path.dirname(os.path.realpath('hanging.py'))
    while not os.path.exists(os.path.join(plugins, 'go')):
        time.sleep(0.01)
";

#[tokio::test]
async fn lag_grows_while_a_plugin_hangs_and_ends_with_it() {
    let server = server().plugin("hanging.py", HANGING).start().await;
    let db = server.database("db").create().await;
    db.trigger("slow", "hanging.py")
        .spec("table:m")
        .create()
        .await;
    db.trigger("asked", "hanging.py")
        .spec("request:x")
        .create()
        .await;
    db.trigger("off", "hanging.py").disabled().create().await;
    let other = server.database("other").create().await;

    db.write("m f=1 1\nm f=2 2").await;
    let busy = "SELECT count(*) AS n FROM system.plugin_workers WHERE state = 'busy'";
    db.until(busy, json!([{ "n": 1 }])).await;
    db.write("m f=3 3\nelsewhere f=1 1").await;
    db.write("elsewhere f=2 2").await;
    let slow = trigger_row(&db, "slow").await;
    let expected = json!({
        "database_name": "db", "state": "running", "running": 1, "waiting": 0,
        "lag_entries": 2, "lag_rows": 3, "invocations": 0, "failures": 0, "run_async": false,
    });
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(&slow[column], value, "{column}: {slow:#}");
    }
    assert!(slow["lag_seconds"].as_f64() > Some(0.0), "{slow:#}");
    assert_eq!(trigger_row(&db, "off").await["state"], "disabled");
    let asked = trigger_row(&db, "asked").await;
    assert_eq!(
        (&asked["state"], &asked["lag_rows"]),
        (&json!("idle"), &Value::Null)
    );
    check_worker(&server, &db, &other).await;
    let metrics = scrape(&server).await;
    let lag = r#"outrigger_trigger_lag_rows{database="db",trigger="slow"}"#;
    assert_eq!(metric(&metrics, lag), 3);
    assert_eq!(metric(&metrics, "outrigger_trigger_lag_rows_max"), 3);

    server.write_plugin("go", "");
    let done = "SELECT state, running, lag_entries, lag_rows, lag_seconds \
                FROM system.plugin_triggers WHERE trigger_name = 'slow'";
    let idle = json!([{
        "state": "idle", "running": 0, "lag_entries": 0, "lag_rows": 0, "lag_seconds": 0.0,
    }]);
    db.until(done, idle).await;
    assert_eq!(metric(&scrape(&server).await, lag), 0);
}

/// A database sees its own workers and the spares, the server's own database all.
async fn check_worker(server: &Server, db: &Database, other: &Database) {
    let sql = "SELECT * FROM system.plugin_workers WHERE state = 'busy'";
    for seer in [db, &server.database("_internal")] {
        let rows = seer.query(sql).await;
        let worker = &rows[0];
        assert_eq!(worker["trigger_name"], "slow", "{rows:#}");
        assert_eq!(worker["database_name"], "db", "{rows:#}");
        assert_eq!(worker["purpose"], "trigger", "{rows:#}");
        assert!(number(worker, "pid") > 1, "{rows:#}");
        let invocation = worker["invocation_id"].as_str().unwrap_or_default();
        assert!(!invocation.is_empty(), "{rows:#}");
        assert!(worker["running_since"].is_string(), "{rows:#}");
    }
    assert_eq!(other.query(sql).await, json!([]));
    let triggers = "SELECT count(*) AS n FROM system.plugin_triggers";
    assert_eq!(other.number(triggers).await, 0);
    assert_eq!(server.database("_internal").number(triggers).await, 3);
    // Spares belong to nobody.
    let spares = "SELECT count(*) >= 1 AS some FROM system.plugin_workers \
                  WHERE state = 'idle' AND purpose = 'spare' AND trigger_name IS NULL";
    other.until(spares, json!([{ "some": true }])).await;
}

/// Kills its own process.
const SUICIDAL: &str = "
import os, signal

def process_writes(influxdb3_local, table_batches, args=None):
    os.kill(os.getpid(), signal.SIGKILL)
";
const MENDED: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info('mended')
";

#[tokio::test]
async fn a_paused_trigger_says_why_and_enabling_it_ends_the_pause() {
    let server = server()
        .plugin("p.py", SUICIDAL)
        .allow_log(WORKER_ENDED.0, WORKER_ENDED.1)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    // Six deaths are too many. After the first pause a seventh begins a longer one, which
    // leaves time to look at it.
    for death in 1..=7 {
        db.write(format!("m f=1 {death}")).await;
        db.until_logged(
            "t",
            death,
            "error executing wal plugin: the worker was ended",
        )
        .await;
    }
    db.write("m f=1 8").await;
    db.until_logged(
        "t",
        2,
        "the plugin pauses because its workers die too often",
    )
    .await;
    let row = trigger_row(&db, "t").await;
    assert_eq!(row["state"], "paused", "{row:#}");
    let reason = "the worker was ended by signal 9 (SIGKILL), which was not ours";
    assert_eq!(row["paused_reason"], reason, "{row:#}");
    assert_eq!(row["last_error"], reason, "{row:#}");
    assert_eq!(
        row["failures_in_a_row"], 7,
        "pauses are no failures: {row:#}"
    );
    let since = row["paused_since"].as_str().expect("a time").to_owned();
    let next = row["next_retry"].as_str().expect("a time").to_owned();
    assert!(since < next, "{row:#}");
    let deaths = r#"outrigger_worker_deaths_total{reason="signal"}"#;
    let metrics = scrape(&server).await;
    assert_eq!(metric(&metrics, deaths), 7);
    assert_eq!(metric(&metrics, r#"outrigger_triggers{state="paused"}"#), 1);

    server.write_plugin("p.py", MENDED);
    let cli = server.command_line();
    cli.success(&["enable", "trigger", "-d", "db", "t"]);
    db.until_logged("t", 1, "mended").await;
    let began = format!(
        "SELECT start_time < '{next}' AS early FROM system.plugin_invocations \
         WHERE outcome = 'ok'"
    );
    db.until(&began, json!([{ "early": true }])).await;
    let calm = "SELECT state, failures_in_a_row FROM system.plugin_triggers \
                WHERE paused_since IS NULL AND paused_reason IS NULL AND next_retry IS NULL";
    let idle = json!([{ "state": "idle", "failures_in_a_row": 0 }]);
    db.until(calm, idle).await;
}

#[tokio::test]
async fn without_plugins_triggers_are_off() {
    let mut builder = server().plugin("p.py", MENDED);
    let data = builder.directory().join("kept");
    builder = builder.data_directory(&data);
    let mut with = builder.start().await;
    let db = with.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    with.stop();

    let without = server()
        .data_directory(&data)
        .without("--plugin-dir")
        .allow_log("triggers don't run", "the server has no plugin directory")
        .start()
        .await;
    let db = without.database("db");
    db.write("m f=1 1").await;
    let sql = "SELECT state, lag_rows FROM system.plugin_triggers";
    assert_eq!(
        db.query(sql).await,
        json!([{ "state": "off", "lag_rows": 1 }])
    );
    let workers = "SELECT count(*) AS n FROM system.plugin_workers";
    assert_eq!(db.number(workers).await, 0);
    scrape(&without).await;
}

#[tokio::test]
async fn the_tables_are_listed_and_shown_by_the_command_line() {
    let server = server().plugin("costs.py", COSTS).start().await;
    let db = server.database("db").create().await;
    create(&db, &["lines"]).await;
    db.write("lines n=1i 1").await;
    account(&db, "lines", 1).await;
    let cli = server.command_line();
    let tables = ["plugin_invocations", "plugin_triggers", "plugin_workers"];
    for database in ["db", "_internal"] {
        let list = cli.success(&["show", "system", "-d", database, "table-list"]);
        let summary = cli.success(&["show", "system", "-d", database, "summary"]);
        for table in tables {
            assert!(list.contains(table), "{list}");
            let heading = format!("{table} summary:");
            assert!(summary.contains(&heading), "{summary}");
        }
    }
    let show = ["show", "system", "-d", "db", "table", "--format", "csv"];
    let select = ["-s", "trigger_name,state", "plugin_triggers"];
    let shown = cli.success(&[&show[..], &select].concat());
    assert_eq!(shown, "trigger_name,state\nlines,idle\n");
}

/// The metrics, which must be well formed.
async fn scrape(server: &Server) -> String {
    let reply = server.client().call(Method::GET, "/metrics").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        reply.content_type,
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(reply.body.ends_with("\n# EOF\n"), "{}", reply.body);
    for line in reply.body.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').expect(line);
        let plain = name.split('{').next().unwrap_or_default();
        assert!(
            plain.starts_with("outrigger_") || plain.starts_with("process_"),
            "{line}"
        );
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let described = format!("# TYPE {} ", family(plain));
        assert!(
            reply.body.contains(&described) || reply.body.contains(&format!("# TYPE {plain} ")),
            "{line} has no type"
        );
    }
    reply.body
}

/// What the parts of a histogram belong to.
fn family(name: &str) -> &str {
    let suffixes = ["_bucket", "_sum", "_count"];
    let stripped = suffixes.iter().find_map(|part| name.strip_suffix(part));
    stripped.unwrap_or(name)
}

#[track_caller]
fn metric(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} is not in:\n{text}"));
    value.parse().expect("a count")
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = server().plugin("costs.py", COSTS).start().await;
    let db = server.database("db").create().await;
    let lines = "outrigger_write_lines_total";
    let accepted = format!(r#"{lines}{{result="accepted",writer="client"}}"#);
    assert_eq!(metric(&scrape(&server).await, &accepted), 0);
    create(&db, &["lines", "raise"]).await;
    db.write("lines n=1i 1\nlines n=2i 2").await;
    account(&db, "lines", 1).await;
    db.write("raise f=1 1").await;
    account(&db, "raise", 1).await;
    let refused = db.write_with(&[], "m f=1 1\nbad\nworse").await;
    refused.check_refused(400, "partial write");
    db.try_query("SELECT nothing FROM nowhere")
        .await
        .check_refused(400, "nowhere");
    let nowhere = server.client().call(Method::GET, "/no/such/path").await;
    assert_eq!(nowhere.status, 404);

    check_counts(&scrape(&server).await, &accepted);
}

#[track_caller]
fn check_counts(text: &str, accepted: &str) {
    let lines = "outrigger_write_lines_total";
    let write = |status| {
        format!(
            "outrigger_http_requests_total{{method=\"POST\",route=\"/api/v3/write_lp\",status=\"{status}\"}}"
        )
    };
    for (name, expected) in [
        (accepted.to_owned(), 4),
        (
            format!(r#"{lines}{{result="rejected",writer="client"}}"#),
            2,
        ),
        (
            format!(r#"{lines}{{result="accepted",writer="plugin"}}"#),
            2,
        ),
        (write(204), 2),
        (write(400), 1),
        (
            r#"outrigger_http_requests_total{method="GET",route="none",status="404"}"#.to_owned(),
            1,
        ),
        (
            r#"outrigger_invocations_total{kind="wal",outcome="ok"}"#.to_owned(),
            1,
        ),
        (
            r#"outrigger_invocations_total{kind="wal",outcome="plugin_error"}"#.to_owned(),
            1,
        ),
        (r#"outrigger_queries_total{outcome="error"}"#.to_owned(), 1),
        ("outrigger_invocation_wall_seconds_count".to_owned(), 2),
        ("outrigger_invocation_queue_seconds_count".to_owned(), 2),
        ("outrigger_invocation_bind_seconds_count".to_owned(), 2),
        (r#"outrigger_workers{state="bound"}"#.to_owned(), 2),
        (r#"outrigger_triggers{state="idle"}"#.to_owned(), 2),
        ("outrigger_trigger_lag_seconds_max".to_owned(), 0),
        ("outrigger_plugin_log_lines_dropped_total".to_owned(), 0),
    ] {
        assert_eq!(metric(text, &name), expected, "{name} in:\n{text}");
    }
    for name in [
        "outrigger_log_entries_total",
        "outrigger_log_bytes_total",
        "outrigger_log_flush_seconds_count",
        "outrigger_query_seconds_count",
        "outrigger_worker_forks_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(metric(text, name) > 0, "{name} in:\n{text}");
    }
}

/// Logs more bytes than is allowed.
const FLOOD: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for n in range(300):
        influxdb3_local.info('x' * 60_000)
";

#[tokio::test]
async fn lines_that_are_dropped_are_counted() {
    let server = server().plugin("p.py", FLOOD).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    db.write("m f=1 1").await;
    let row = account(&db, "t", 1).await;
    let dropped = metric(
        &scrape(&server).await,
        "outrigger_plugin_log_lines_dropped_total",
    );
    let logged = number(&row, "log_lines");
    assert!(dropped > 0, "{row:#}");
    assert_eq!(dropped + logged, 300, "{row:#}");
}
