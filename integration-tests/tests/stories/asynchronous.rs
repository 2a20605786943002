//! Triggers whose invocations may overlap, and how many of them do.

use outrigger_integration_tests::{Database, Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server;

/// Meets others: says that it is there, and goes on once so many have said so. A run that
/// is alone waits until it gives up.
const MEETING: &str = "
import os, time

def meet(influxdb3_local, who, count, place='present'):
    line = LineBuilder(place).tag('who', str(who)).int64_field('pid', os.getpid())
    influxdb3_local.write_sync_to_db('meeting', line, no_sync=False)
    for _ in range(600):
        rows = influxdb3_local.query(f'SELECT count(*) AS n FROM {place}', database='meeting')
        if rows[0]['n'] >= count:
            return True
        time.sleep(0.02)
    return False

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            met = meet(influxdb3_local, row['n'], int(args['count']))
            influxdb3_local.write(LineBuilder('met').tag('n', str(row['n'])).bool_field('met', met))

def process_scheduled_call(influxdb3_local, call_time, args=None):
    met = meet(influxdb3_local, call_time, int(args['count']))
    influxdb3_local.write(LineBuilder('met').tag('n', str(call_time)).bool_field('met', met))

def process_request(influxdb3_local, query, headers, body, args=None):
    return {'met': meet(influxdb3_local, query['who'], int(args['count'])), 'pid': os.getpid()}
";

async fn start(concurrency: &str) -> Server {
    server()
        .plugin("meeting.py", MEETING)
        .flag("--trigger-concurrency", concurrency)
        .start()
        .await
}

/// Writes points one after the other, each in a log entry of its own.
async fn write_each(db: &Database, points: std::ops::Range<i64>) {
    for n in points {
        db.write(format!("m n={n}i {n}")).await;
    }
}

async fn until_met(db: &Database, count: i64) {
    let sql = "SELECT count(*) AS n FROM met WHERE met";
    eventually("the runs have met", async || {
        let reply = db.try_query(sql).await;
        let met = reply.status == 200 && reply.json()[0]["n"].as_i64() >= Some(count);
        met.then_some(()).ok_or(format!("{reply:?}"))
    })
    .await;
}

#[tokio::test]
async fn runs_on_writes_overlap_and_each_row_is_dealt_with_once() {
    let mut server = start("3").await;
    let db = server.database("db").create().await;
    server.command_line().check(
        &[
            "create",
            "trigger",
            "--database",
            "db",
            "--path",
            "meeting.py",
            "--trigger-spec",
            "table:m",
            "--trigger-arguments",
            "count=3",
            "--run-asynchronous",
            "meeting",
        ],
        "Trigger meeting created successfully\n",
    );
    write_each(&db, 0..3).await;
    until_met(&db, 3).await;
    let pids = "SELECT count(DISTINCT pid) AS n FROM present";
    assert_eq!(server.database("meeting").number(pids).await, 3);
    server.stop();
    server.restart().await;
    // What was dealt with is not delivered again; what comes next is.
    let db = server.database("db");
    write_each(&db, 3..4).await;
    until_met(&db, 4).await;
    let runs = db.query("SELECT n FROM met ORDER BY n").await;
    assert_eq!(
        runs,
        json!([{ "n": "0" }, { "n": "1" }, { "n": "2" }, { "n": "3" }])
    );
}

#[tokio::test]
async fn no_more_runs_overlap_than_are_allowed() {
    const BUSY: &str = "
import time

def process_writes(influxdb3_local, table_batches, args=None):
    begin = time.monotonic_ns()
    time.sleep(0.1)
    for batch in table_batches:
        for row in batch['rows']:
            line = LineBuilder('spans').tag('n', str(row['n'])).int64_field('begin', begin)
            influxdb3_local.write_to_db('out', line.int64_field('end', time.monotonic_ns()))
";
    let server = server()
        .plugin("busy.py", BUSY)
        .flag("--trigger-concurrency", "2")
        .start()
        .await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("busy", "busy.py").spec("table:m");
    trigger.asynchronous().create().await;
    write_each(&db, 0..10).await;
    let out = server.database("out");
    out.until("SELECT count(*) AS n FROM spans", json!([{ "n": 10 }]))
        .await;
    let spans = out.query("SELECT begin, \"end\" FROM spans").await;
    let spans = spans.as_array().expect("rows");
    let time = |span: &Value, key: &str| span[key].as_i64().expect("a time");
    // Rows that were delivered together have the same span.
    let overlap = |span: &Value| {
        let at = time(span, "begin");
        let running = spans
            .iter()
            .filter(|other| time(other, "begin") <= at && at < time(other, "end"));
        running
            .map(|other| time(other, "begin"))
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    let most = spans.iter().map(overlap).max();
    assert!(most <= Some(2), "{most:?} at the same time: {spans:?}");
}

#[tokio::test]
async fn a_run_that_fails_and_is_tried_again_does_not_hold_up_others() {
    const PICKY: &str = "
import os

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            if row['n'] == 0 and not os.path.exists(args['permit']):
                raise ValueError('not yet')
            influxdb3_local.write(LineBuilder('done').tag('n', str(row['n'])).int64_field('f', 1))
";
    let mut server = server()
        .plugin("picky.py", PICKY)
        .flag("--trigger-concurrency", "2")
        .start()
        .await;
    let permit = server.plugin_directory().join("permit");
    let db = server.database("db").create().await;
    let trigger = db.trigger("picky", "picky.py").spec("table:m");
    let trigger = trigger.argument("permit", permit.to_str().expect("it is UTF-8"));
    trigger
        .error_behavior("retry")
        .asynchronous()
        .create()
        .await;
    write_each(&db, 0..1).await;
    db.until_logged("picky", 1, "not yet").await;
    write_each(&db, 1..3).await;
    let done = "SELECT n FROM done ORDER BY n";
    db.until(done, json!([{ "n": "1" }, { "n": "2" }])).await;
    // The range that is not dealt with is known after a restart too, and the others are not
    // delivered again.
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    db.until_logged("picky", 2, "not yet").await;
    std::fs::write(&permit, "").expect("written");
    db.until(done, json!([{ "n": "0" }, { "n": "1" }, { "n": "2" }]))
        .await;
    assert_eq!(db.number("SELECT sum(f) AS n FROM done").await, 3);
}

#[tokio::test]
async fn a_schedule_goes_on_in_time_while_an_earlier_run_goes_on() {
    let server = start("3").await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("often", "meeting.py").spec("every:200ms");
    trigger.argument("count", "3").asynchronous().create().await;
    until_met(&db, 3).await;
}

#[tokio::test]
async fn requests_are_answered_at_the_same_time() {
    let server = start("2").await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("meet", "meeting.py").spec("request:meet");
    trigger.argument("count", "2").asynchronous().create().await;
    let mut requests = JoinSet::new();
    for who in ["a", "b"] {
        let client = server.client().clone();
        let path = format!("/api/v3/engine/meet?who={who}");
        requests.spawn(async move { client.call(Method::GET, &path).await });
    }
    let answers: Vec<Value> = requests
        .join_all()
        .await
        .iter()
        .map(|reply| reply.json())
        .collect();
    assert!(
        answers.iter().all(|answer| answer["met"] == true),
        "{answers:?}"
    );
    assert_ne!(answers[0]["pid"], answers[1]["pid"], "{answers:?}");
}
