//! How many workers there are, who gets one, and when one is replaced.

use futures::future::join_all;
use outrigger_integration_tests::{Database, PATIENCE, eventually};
use serde_json::json;

use crate::server;

/// Says which process it is, since when, and how often it has run there.
const WHO: &str = "
import os

def process_writes(influxdb3_local, table_batches, args=None):
    args = args or {}
    runs = influxdb3_local.cache.get('runs', 0) + 1
    if args.get('keep') != 'nothing':
        influxdb3_local.cache.put('runs', runs)
    for batch in table_batches:
        for row in batch['rows']:
            line = LineBuilder('who').tag('n', str(row['n'])).int64_field('pid', os.getpid())
            line.int64_field('runs', runs)
            influxdb3_local.write_to_db(args.get('to', 'out'), line)
";

/// Writes a point, and returns which process has seen it and how often that had run.
async fn who(db: &Database, out: &Database, n: i64) -> (i64, i64) {
    db.write(format!("m n={n}i {n}")).await;
    let count = format!("SELECT count(*) AS n FROM who WHERE n = '{n}'");
    eventually("the plugin has run", async || {
        let reply = out.try_query(&count).await;
        let done = reply.status == 200 && reply.json()[0]["n"] == 1;
        done.then_some(()).ok_or(format!("{reply:?}"))
    })
    .await;
    let row = out
        .query(&format!("SELECT pid, runs FROM who WHERE n = '{n}'"))
        .await;
    let number = |key: &str| row[0][key].as_i64().expect("a number");
    (number("pid"), number("runs"))
}

#[tokio::test]
async fn a_worker_is_replaced_after_as_many_runs_as_it_may_have() {
    let server = server()
        .plugin("who.py", WHO)
        .variable("INFLUXDB3_PLUGIN_MAX_INVOCATIONS", "20")
        .start()
        .await;
    let (db, out) = (
        server.database("db").create().await,
        server.database("out").create().await,
    );
    db.trigger("t", "who.py").spec("table:m").create().await;
    let mut seen = vec![who(&db, &out, 0).await];
    for n in 1..50 {
        seen.push(who(&db, &out, n).await);
    }
    let pids: std::collections::BTreeSet<i64> = seen.iter().map(|(pid, _)| *pid).collect();
    // A tenth more or less for each.
    let most = seen.iter().map(|(_, runs)| *runs).max();
    assert!((18..=22).contains(&most.unwrap_or(0)), "{seen:?}");
    assert_eq!(pids.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn an_idle_worker_ends_unless_it_keeps_something() {
    let server = server()
        .plugin("who.py", WHO)
        .flag("--plugin-idle-timeout", "1s")
        .start()
        .await;
    let out = server.database("out").create().await;
    let (empty, keeping) = (
        server.database("empty").create().await,
        server.database("keeping").create().await,
    );
    let trigger = empty.trigger("empty", "who.py").spec("table:m");
    trigger.argument("keep", "nothing").create().await;
    keeping
        .trigger("keeping", "who.py")
        .spec("table:m")
        .create()
        .await;
    let (first, _) = who(&empty, &out, 0).await;
    let (kept, _) = who(&keeping, &out, 1).await;
    eventually("the empty one has ended", async || {
        let retired = server.has_logged(&format!(r#""pid":{first},"reason":"idle""#));
        retired.then_some(()).ok_or_else(String::new)
    })
    .await;
    assert_ne!(who(&empty, &out, 2).await.0, first);
    assert_eq!(who(&keeping, &out, 3).await, (kept, 2));
}

#[tokio::test]
async fn the_first_run_of_a_trigger_has_a_worker_that_was_there_before() {
    let server = server().plugin("who.py", WHO).start().await;
    let (db, out) = (
        server.database("db").create().await,
        server.database("out").create().await,
    );
    // The first trigger brings the spares.
    db.trigger("first", "who.py").spec("table:m").create().await;
    who(&db, &out, 0).await;
    let other = server.database("other").create().await;
    let spares = "FROM system.plugin_workers WHERE state = 'idle'";
    let count = format!("SELECT count(*) AS n {spares}");
    other.until(&count, json!([{ "n": 2 }])).await;
    let warm = other.query(&format!("SELECT pid {spares}")).await;
    let second = other.trigger("second", "who.py").spec("table:m");
    second.create().await;
    let (pid, _) = who(&other, &out, 1).await;
    let warm: Vec<_> = warm.as_array().expect("rows").iter().collect();
    assert!(
        warm.iter().any(|row| row["pid"] == pid),
        "{pid} of {warm:?}"
    );
}

/// How many rows of it there are, also before there is a table.
async fn rows_of_who(out: &Database) -> i64 {
    let reply = out.try_query("SELECT count(*) AS n FROM who").await;
    if reply.status != 200 {
        return 0;
    }
    reply.json()[0]["n"].as_i64().expect("a number")
}

#[tokio::test]
async fn where_workers_are_scarce_every_trigger_has_its_turn() {
    let server = server()
        .plugin("who.py", WHO)
        .flag("--plugin-workers", "2")
        .start()
        .await;
    let out = server.database("out").create().await;
    let db = server.database("db").create().await;
    for name in ["a", "b", "c", "d", "e"] {
        let trigger = db.trigger(name, "who.py").spec("table:m");
        trigger.argument("to", name).create().await;
    }
    drop(out);
    for n in 0..3 {
        db.write(format!("m n={n}i {n}")).await;
    }
    let outs = ["a", "b", "c", "d", "e"].map(|name| server.database(name));
    let mut done = 0;
    while done < 15 {
        // Each turn may need a new process, so it is only the next one that is waited for.
        done = eventually("another row was dealt with", async || {
            let now: i64 = join_all(outs.iter().map(rows_of_who)).await.iter().sum();
            (now > done).then_some(now).ok_or(format!("{now} of 15"))
        })
        .await;
    }
    for out in &outs {
        assert_eq!(rows_of_who(out).await, 3);
    }
}

#[tokio::test]
async fn what_runs_ends_when_its_trigger_is_disabled_or_deleted() {
    const LOOPING: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info('looping')
    while True:
        pass

def process_request(influxdb3_local, query, headers, body, args=None):
    influxdb3_local.info('looping')
    while True:
        pass
";
    const MENDED: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info('mended')
";
    let server = server().plugin("looping.py", LOOPING).start().await;
    let db = server.database("db").create().await;
    for name in ["disabled", "deleted"] {
        db.trigger(name, "looping.py")
            .spec("table:m")
            .create()
            .await;
    }
    db.trigger("asked", "looping.py")
        .spec("request:asked")
        .create()
        .await;
    let client = server.client().clone();
    let mut asked = tokio::task::JoinSet::new();
    asked.spawn(async move {
        let request = client.request(reqwest::Method::GET, "/api/v3/engine/asked");
        // It is open while the story waits for several other things.
        client.answer(request.timeout(5 * PATIENCE)).await
    });
    db.write("m n=0i 0").await;
    for name in ["disabled", "deleted", "asked"] {
        db.until_logged(name, 1, "looping").await;
    }
    db.disable("disabled").await;
    db.disable("asked").await;
    db.delete_trigger("deleted", true)
        .await
        .check_success("delete it");
    server.write_plugin("looping.py", MENDED);
    db.enable("disabled").await;
    db.write("m n=1i 1").await;
    let ended = db
        .until_logged("disabled", 1, "its trigger was disabled or deleted")
        .await;
    assert!(
        ended[0]
            .text
            .contains("nobody waits for the plugin any more")
    );
    db.until_logged("disabled", 1, "mended").await;
    let answer = asked.join_next().await.expect("it was asked").unwrap();
    answer.check_refused(503, "nobody waits");
    db.until_logged("deleted", 1, "its trigger was disabled or deleted")
        .await;
}
