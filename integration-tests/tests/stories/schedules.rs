//! Triggers that fire when it is time.

use serde_json::json;

use crate::server;

/// Reports every call with its time and how far its row lies behind it.
const CALLS: &str = "
from datetime import datetime

def process_scheduled_call(influxdb3_local, call_time, args=None):
    assert call_time.tzinfo is None and call_time.microsecond == 0, call_time
    line = LineBuilder('calls').tag('call_time', call_time.isoformat())
    line.int64_field('second', call_time.second).string_field('args', str(args))
    influxdb3_local.write(line)
";

#[tokio::test]
async fn every_fires_at_each_tick_once_with_the_scheduled_time() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "calls.py")
        .spec("every:1s")
        .argument("a", "b")
        .create()
        .await;
    db.until_logged("t", 1, "next runs: ").await;
    let three = "SELECT count(*) >= 3 AS enough FROM calls";
    db.until(three, json!([{ "enough": true }])).await;
    db.disable("t").await;

    // No tick twice, and none left out between the first and the last.
    let sql = "SELECT count(*) AS calls, count(DISTINCT call_time) AS times, \
               to_unixtime(CAST(max(call_time) AS TIMESTAMP)) - \
               to_unixtime(CAST(min(call_time) AS TIMESTAMP)) + 1 AS seconds, \
               max(args) AS args FROM calls";
    let row = &db.query(sql).await[0];
    assert_eq!(row["calls"], row["times"], "{row}");
    assert_eq!(row["calls"], row["seconds"], "{row}");
    assert_eq!(row["args"], "{'a': 'b'}");
}

#[tokio::test]
async fn cron_fires_and_says_when() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "calls.py")
        .spec("cron:*/2 * * * * *")
        .create()
        .await;
    let even = "SELECT count(*) >= 1 AS some, sum(second % 2) AS odd FROM calls";
    db.until(even, json!([{ "some": true, "odd": 0 }])).await;
    let started = "SELECT count(*) >= 1 AS started FROM system.processing_engine_logs \
                   WHERE log_text LIKE 'starting execution with scheduled time 20%UTC'";
    db.until(started, json!([{ "started": true }])).await;
}

/// Fails on the first attempt at every time.
const FAILS_ONCE: &str = "
def process_scheduled_call(influxdb3_local, call_time, args=None):
    if influxdb3_local.attempt == 1:
        raise ValueError('not yet')
    line = LineBuilder('calls').int64_field('attempt', influxdb3_local.attempt)
    influxdb3_local.write(line)
";

#[tokio::test]
async fn retry_calls_again_for_the_same_time() {
    let server = server().plugin("p.py", FAILS_ONCE).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").spec("every:1h").create().await;
    db.trigger("now", "p.py")
        .spec("every:1s")
        .error_behavior("retry")
        .create()
        .await;
    let second = "SELECT min(attempt) AS first, max(attempt) AS last FROM calls";
    db.until(second, json!([{ "first": 2, "last": 2 }])).await;
}

#[tokio::test]
async fn a_schedule_that_never_fires_is_refused() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    for (spec, part) in [
        ("cron:0 0 0 30 2 *", "never fires"),
        ("cron:* *", "2 fields"),
        ("cron:0 60 * * * *", "the minute cannot be \"60\""),
        ("every:0s", "at least 1ms"),
        ("every:13M", "over 1 year"),
    ] {
        let refused = db.trigger("t", "calls.py").spec(spec).try_create().await;
        refused.check_refused(400, part);
        refused.check_refused(400, "expected one of");
    }
}
