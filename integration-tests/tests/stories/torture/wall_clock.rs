//! The system's clock is set while the server works: what is due by it follows, everything that
//! only takes time does not notice.

use std::collections::BTreeSet;

use outrigger_integration_tests::{Reply, WallClock, eventually};
use reqwest::Method;
use tokio::task::JoinSet;

use super::{Arena, arena_builder};
use crate::server;

const HOUR: i64 = 3600;

/// The victim hangs until it is told to go on, or for good.
const WAITING: &str = "
import os, time

def attack(influxdb3_local, args):
    influxdb3_local.info('waiting', os.getpid())
    while not os.path.exists('go-on'):
        time.sleep(0.01)

def process_scheduled_call(influxdb3_local, call_time, args=None):
    line = LineBuilder('calls').tag('call_time', call_time.isoformat())
    influxdb3_local.write(line.int64_field('pid', os.getpid()))
";

/// The distinct times of a schedule's calls, of which none may have come twice.
async fn calls(arena: &Arena) -> Vec<String> {
    let reply = arena
        .db
        .try_query("SELECT call_time FROM calls ORDER BY time")
        .await;
    if reply.status != 200 {
        return Vec::new();
    }
    let rows = reply.json();
    let rows = rows.as_array().expect("rows").iter();
    let times: Vec<String> = rows
        .map(|row| row["call_time"].as_str().expect("a time").to_owned())
        .collect();
    let distinct: BTreeSet<_> = times.iter().collect();
    assert_eq!(distinct.len(), times.len(), "a time came twice: {times:?}");
    assert!(times.is_sorted(), "a time came late: {times:?}");
    times
}

/// Waits until so many further calls have come; all of them.
async fn further_calls(arena: &Arena, count: usize) -> Vec<String> {
    let before = calls(arena).await.len();
    eventually("the schedule goes on", async || {
        let now = calls(arena).await;
        if now.len() >= before + count {
            return Ok(now);
        }
        Err(format!("{now:?}"))
    })
    .await
}

/// Asks the plugin, which answers when it ends.
fn ask(arena: &Arena, path: &'static str) -> JoinSet<Reply> {
    let client = arena.server.client().clone();
    let mut asked = JoinSet::new();
    asked.spawn(async move { client.call(Method::GET, path).await });
    asked
}

#[tokio::test]
async fn a_wall_clock_that_is_set_moves_schedules_and_nothing_else() {
    let clock = WallClock::new();
    // With retirement and deadlines that a jump would reach if they went by this clock.
    let builder = clock.of(server()).flag("--plugin-idle-timeout", "30m");
    let server = arena_builder(builder, WAITING).start().await;
    let arena = Arena::on(server).await;
    for (name, timeout) in [("patient", "30m"), ("hung", "2s")] {
        let trigger = arena.db.trigger(name, "victim.py").timeout(timeout);
        trigger.spec(&format!("request:{name}")).create().await;
    }
    let ticks = arena.db.trigger("ticks", "victim.py").spec("every:1s");
    ticks.create().await;
    further_calls(&arena, 2).await;
    let mut patient = ask(&arena, "/api/v3/engine/patient");
    arena.db.until_logged("patient", 1, "waiting").await;

    clock.set(3 * HOUR);
    arena
        .db
        .until_logged("ticks", 1, "the system's clock was set forward by")
        .await;
    let times = further_calls(&arena, 3).await;
    // Of more than ten thousand times that have never been, one is made up for.
    assert!(times.len() < 1000, "{} calls", times.len());
    arena.others_go_on().await;
    assert!(
        patient.try_join_next().is_none(),
        "its deadline is not over"
    );

    clock.set(-2 * HOUR);
    // Half as often, and none again.
    further_calls(&arena, 3).await;
    arena.others_go_on().await;
    let hung = ask(&arena, "/api/v3/engine/hung").join_next().await;
    let hung = hung.expect("it was asked").unwrap();
    hung.check_refused(504, "deadline");
    assert!(
        patient.try_join_next().is_none(),
        "its deadline is not over"
    );

    clock.set(0);
    further_calls(&arena, 1).await;
    release(&arena);
    let patient = patient.join_next().await.expect("it was asked").unwrap();
    patient.check_success("it ends");
    arena.others_go_on().await;
    let pids = "SELECT count(DISTINCT pid) AS n FROM calls";
    assert_eq!(arena.db.number(pids).await, 1, "the worker was replaced");
}

/// Lets those who wait go on: what lies in the plugin directory appears to a worker before its
/// next run, so it goes into the trigger's own.
fn release(arena: &Arena) {
    for directory in arena.server.kept_directories() {
        std::fs::write(directory.join("go-on"), "").expect("let it go on");
    }
}
