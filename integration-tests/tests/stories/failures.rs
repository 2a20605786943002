//! Plugins that fail in every way they can. The server goes on answering, says what happened,
//! and runs the next batch.

use outrigger_integration_tests::{Database, LogRow, eventually};
use serde_json::json;

use crate::server;

/// Fails as its argument says when it gets a row of `fail`; else reports its process.
const FAILING: &str = "
import ctypes, os

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] == 'fail':
            influxdb3_local.write(LineBuilder('runs').int64_field('pid', -1))
            if args['how'] == 'raise':
                raise ValueError('boom')
            if args['how'] == 'leave':
                raise SystemExit(4)
            if args['how'] == 'exit':
                os._exit(3)
            if args['how'] == 'segfault':
                ctypes.string_at(0)
        if batch['table_name'] == 'work':
            influxdb3_local.write(LineBuilder('runs').int64_field('pid', os.getpid()))
";

const WORKER_ENDED: (&str, &str) = ("a plugin's worker ended", "the plugin ends it on purpose");

/// What came of a plugin that failed between two batches.
struct Story {
    failure: LogRow,
    pids: Vec<i64>,
}

async fn run(how: &str, expected: &str) -> Story {
    let (text, reason) = WORKER_ENDED;
    let server = server()
        .plugin("failing.py", FAILING)
        .allow_log(text, reason)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "failing.py")
        .argument("how", how)
        .create()
        .await;
    db.write("work f=1 1").await;
    let count = "SELECT count(*) AS runs FROM runs";
    db.until(count, json!([{ "runs": 1 }])).await;

    db.write("fail f=1 1").await;
    let failure = until_failed(&db, expected).await;
    db.write("work f=1 2").await;
    // What a failed run had buffered is not written, so there are two rows and not three.
    db.until(count, json!([{ "runs": 2 }])).await;

    let rows = db.query("SELECT pid FROM runs ORDER BY time").await;
    let pids = rows.as_array().expect("rows").iter();
    let pids = pids
        .map(|row| row["pid"].as_i64().expect("a pid"))
        .collect();
    Story { failure, pids }
}

/// Waits for the failure, and uses the server all the while.
async fn until_failed(db: &Database, first_line: &str) -> LogRow {
    let mut written = 0;
    let failure = eventually("the failure is logged", async || {
        written += 1;
        db.write(format!("alive f=1 {written}")).await;
        let rows = db.number("SELECT count(*) AS n FROM alive").await;
        assert_eq!(rows, written, "what was acknowledged can be read");
        let logs = db.logs("t").await;
        let failed = logs.iter().find(|row| row.level == "ERROR");
        failed.cloned().ok_or_else(|| format!("{logs:#?}"))
    })
    .await;
    assert_eq!(
        failure.text.lines().next(),
        Some(first_line),
        "{}",
        failure.text
    );
    failure
}

#[tokio::test]
async fn a_plugin_that_raises_is_logged_with_its_traceback() {
    let story = run("raise", "error executing wal plugin: ValueError: boom").await;
    let text = &story.failure.text;
    assert!(
        text.contains("Traceback (most recent call last):"),
        "{text}"
    );
    assert!(text.contains("raise ValueError('boom')"), "{text}");
    assert!(
        text.contains("failing.py\", line 9, in process_writes"),
        "{text}"
    );
    assert_eq!(story.pids[0], story.pids[1], "an exception ends no worker");
}

#[tokio::test]
async fn a_plugin_that_leaves_ends_its_run_only() {
    let story = run("leave", "error executing wal plugin: SystemExit: 4").await;
    assert_eq!(story.pids[0], story.pids[1], "SystemExit ends no worker");
}

#[tokio::test]
async fn a_plugin_that_ends_its_process_gets_a_new_one() {
    let expected = "error executing wal plugin: the worker exited with code 3";
    let story = run("exit", expected).await;
    assert_ne!(story.pids[0], story.pids[1]);
}

#[tokio::test]
async fn a_plugin_that_crashes_python_gets_a_new_process() {
    let expected = "error executing wal plugin: the worker was ended by signal 11 (SIGSEGV)";
    let story = run("segfault", expected).await;
    let text = &story.failure.text;
    assert!(
        text.contains("Fatal Python error: Segmentation fault"),
        "{text}"
    );
    assert!(text.contains("in process_writes"), "{text}");
    assert_ne!(story.pids[0], story.pids[1]);
}

/// Fails twice, then works; and says which rows it got each time.
const THIRD_TIME: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    values = [row['n'] for batch in table_batches for row in batch['rows']]
    influxdb3_local.info(f'attempt {influxdb3_local.attempt} at {values}')
    if influxdb3_local.attempt < 3:
        raise ValueError('not yet')
    for value in values:
        influxdb3_local.write_to_db('done', LineBuilder('done').int64_field('n', value).time_ns(value))
";

#[tokio::test]
async fn retry_repeats_a_batch_until_it_succeeds_and_loses_nothing() {
    let server = server().plugin("third.py", THIRD_TIME).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "third.py")
        .error_behavior("retry")
        .create()
        .await;
    db.write("m n=1i 1\nm n=2i 2").await;
    db.until_logged("t", 1, "attempt 1 at [1, 2]").await;
    // What comes meanwhile waits its turn.
    db.write("m n=3i 3").await;
    let expected = json!([{ "n": 1 }, { "n": 2 }, { "n": 3 }]);
    server
        .database("done")
        .until("SELECT n FROM done ORDER BY n", expected)
        .await;
    for attempt in 1..=3 {
        db.until_logged("t", 1, &format!("attempt {attempt} at [1, 2]"))
            .await;
    }
    let failures = db.until_logged("t", 4, "ValueError: not yet").await;
    assert!(
        failures.iter().all(|row| row.level == "ERROR"),
        "{failures:?}"
    );
}

/// Fails until its file is replaced.
const ALWAYS: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    raise ValueError('broken')
";
const MENDED: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    values = [row['n'] for batch in table_batches for row in batch['rows']]
    influxdb3_local.info(f'got {values}')
";

#[tokio::test]
async fn disable_stops_a_failing_trigger_until_it_is_enabled_also_over_a_restart() {
    let mut server = server()
        .plugin("p.py", ALWAYS)
        .plugin("witness.py", MENDED)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py")
        .error_behavior("disable")
        .create()
        .await;
    db.trigger("witness", "witness.py").create().await;
    db.write("m n=1i 1").await;
    let disabled =
        "SELECT disabled FROM system.processing_engine_triggers WHERE trigger_name = 't'";
    db.until(disabled, json!([{ "disabled": true }])).await;
    db.until_logged("t", 1, "ValueError: broken").await;

    server.stop();
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.query(disabled).await, json!([{ "disabled": true }]));
    server.write_plugin("p.py", MENDED);
    db.write("m n=2i 2").await;
    db.until_logged("witness", 1, "got [2]").await;

    db.enable("t").await;
    db.write("m n=3i 3").await;
    let rows = db.until_logged("t", 1, "got ").await;
    assert_eq!(rows[0].text, "got [3]");
}

#[tokio::test]
async fn a_failing_plugin_disturbs_no_other() {
    let (text, reason) = WORKER_ENDED;
    let server = server()
        .plugin("failing.py", FAILING)
        .plugin("good.py", MENDED)
        .allow_log(text, reason)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("bad", "failing.py")
        .argument("how", "exit")
        .spec("table:fail")
        .create()
        .await;
    db.trigger("good", "good.py").create().await;
    for n in 1..=5 {
        db.write(format!("fail n={n}i {n}")).await;
        db.until_logged("good", 1, &format!("got [{n}]")).await;
    }
    db.until_logged("bad", 5, "the worker exited with code 3")
        .await;
}
