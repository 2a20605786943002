//! Plugins that do not come back: their deadline ends them, whatever they do about it.

use futures::future::join_all;
use outrigger_integration_tests::{LogRow, Reply, eventually};
use reqwest::Method;
use serde_json::json;

use super::{Arena, VICTIM, arena_builder};
use crate::server;

/// Hangs in the way that `how` says.
const HANG: &str = "
import os, signal, time

def hang(how):
    if how == 'python_loop':
        while True:
            pass
    if how == 'c_loop':
        sum(range(10**12))
    if how == 'blocked_call':
        os.read(os.pipe()[0], 1)
    if how == 'ignored_signals':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
    if how == 'mute':
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        time.sleep(600)
    if how == 'stopped':
        os.kill(os.getpid(), signal.SIGSTOP)
";
/// In the call, and says so when it is interrupted.
const IN_THE_CALL: &str = "
def attack(influxdb3_local, args):
    try:
        hang(args['how'])
    except KeyboardInterrupt:
        influxdb3_local.info('cleaned up')
        raise
";

const SHAPES: [&str; 6] = [
    "python_loop",
    "c_loop",
    "blocked_call",
    "ignored_signals",
    "mute",
    "stopped",
];

/// The error says where a plugin hung, first of all, and nothing of it is said elsewhere; or it
/// says why that is not known.
fn check_dump(shape: &str, rows: &[LogRow], file: &str) {
    let error = rows.iter().find(|row| row.level == "ERROR");
    let lines: Vec<_> = error.expect("it failed").text.lines().collect();
    let warnings = rows.iter().filter(|row| row.level == "WARN");
    assert_eq!(warnings.count(), 0, "{shape}: {rows:#?}");
    let runtime = lines.iter().any(|line| line.contains("/grpc/"));
    assert!(!runtime, "{shape}: {rows:#?}");
    if shape == "mute" {
        let why = "where the plugin was is not known: its process ignores SIGUSR1";
        let said = lines.iter().any(|line| line.starts_with(why));
        assert!(said, "{rows:#?}");
        return;
    }
    assert_eq!(
        lines[1], "the plugin was here, most recent call first:",
        "{shape}: {rows:#?}"
    );
    assert!(lines[2].ends_with(" in hang"), "{shape}: {rows:#?}");
    assert!(lines[2].contains(file), "{shape}: {rows:#?}");
    let stopped = "a signal had stopped the worker's process; it was continued for this";
    assert_eq!(lines.contains(&stopped), shape == "stopped", "{rows:#?}");
}

const LATE: &str = "the plugin ran longer than its deadline of 2s and was killed";

async fn hangs(shape: &str) {
    let arena = Arena::new(&format!("{HANG}{IN_THE_CALL}")).await;
    arena.create(shape, "2s").await;
    arena.suffers(shape, LATE).await;
    let logs = arena.db.logs(shape).await;
    check_dump(shape, &logs, "victim.py");
    // What it says when it is interrupted is heard.
    let hears = ["python_loop", "mute"].contains(&shape);
    let says = logs.iter().any(|row| row.text == "cleaned up");
    assert!(says || !hears, "{shape}: {logs:#?}");
    arena.recovers(shape).await;
}

#[tokio::test]
async fn an_endless_loop_in_python_ends_at_its_deadline() {
    hangs("python_loop").await;
}

#[tokio::test]
async fn an_endless_loop_in_c_ends_at_its_deadline() {
    hangs("c_loop").await;
}

#[tokio::test]
async fn a_blocked_system_call_ends_at_its_deadline() {
    hangs("blocked_call").await;
}

#[tokio::test]
async fn who_ignores_sigterm_ends_at_its_deadline() {
    hangs("ignored_signals").await;
}

#[tokio::test]
async fn who_hides_where_it_is_ends_at_its_deadline() {
    hangs("mute").await;
}

#[tokio::test]
async fn who_stops_itself_ends_at_its_deadline() {
    hangs("stopped").await;
}

/// Importing a package is part of the invocation, and ends with it.
#[tokio::test]
async fn every_shape_of_hanging_in_the_import_of_a_package_ends_at_its_deadline() {
    let file = |shape| format!("in_{shape}/__init__.py");
    let mut builder = arena_builder(server(), "");
    for shape in SHAPES {
        let source = format!("{HANG}print('importing')\nhang('{shape}')\n");
        builder = builder.plugin(&file(shape), &source);
    }
    let arena = Arena::on(builder.start().await).await;
    for shape in SHAPES {
        arena
            .db
            .trigger(shape, &format!("in_{shape}"))
            .spec(&format!("table:{shape}"))
            .timeout("2s")
            .create()
            .await;
    }
    join_all(SHAPES.map(|shape| arena.suffers(shape, LATE))).await;
    for shape in SHAPES {
        let logs = arena.db.until_logged(shape, 1, "importing").await;
        assert_eq!(logs[0].level, "INFO");
        let logs = arena.db.logs(shape).await;
        check_dump(shape, &logs, "__init__.py");
        let costs = format!(
            "SELECT outcome, wall_us > 0 AS took FROM system.plugin_invocations \
             WHERE trigger_name = '{shape}'"
        );
        let expected = json!([{ "outcome": "deadline_exceeded", "took": true }]);
        arena.db.until(&costs, expected).await;
        arena.server.write_plugin(&file(shape), VICTIM);
        arena.recovers(shape).await;
    }
}

#[tokio::test]
async fn a_package_that_nobody_wants_any_more_ends_while_it_is_imported() {
    let source = format!("{HANG}print('importing')\nhang('python_loop')\n");
    let builder = arena_builder(server(), "").plugin("pack/__init__.py", &source);
    let arena = Arena::on(builder.start().await).await;
    let trigger = arena.db.trigger("t", "pack").spec("table:t");
    trigger.create().await;
    arena.db.write("t n=1i 1").await;
    arena.db.until_logged("t", 1, "importing").await;
    arena.db.disable("t").await;
    let text = "nobody waits for the plugin any more, and it was ended";
    arena.db.until_logged("t", 1, text).await;
    let workers = "SELECT count(*) AS n FROM system.plugin_workers WHERE trigger_name = 't'";
    arena.db.until(workers, json!([{ "n": 0 }])).await;
    arena.others_go_on().await;
}

async fn call(arena: &Arena, path: &str, how: &str) -> Reply {
    let client = arena.server.client();
    let path = format!("/api/v3/engine/{path}?how={how}");
    client.call(Method::POST, &path).await
}

#[tokio::test]
async fn every_shape_of_hanging_is_answered_with_504() {
    let arena = Arena::new(&format!("{HANG}{IN_THE_CALL}")).await;
    for shape in SHAPES {
        arena
            .db
            .trigger(shape, "victim.py")
            .spec(&format!("request:{shape}"))
            .timeout("2s")
            .create()
            .await;
        eventually("the path is answered", async || {
            let reply = call(&arena, shape, "not_at_all").await;
            (reply.status == 200)
                .then_some(())
                .ok_or(format!("{reply:?}"))
        })
        .await;
    }
    let calls = join_all(SHAPES.map(|shape| call(&arena, shape, shape)));
    let (replies, ()) = tokio::join!(calls, arena.others_go_on());
    for (shape, reply) in SHAPES.iter().zip(replies) {
        assert_eq!(reply.status, 504, "{shape}: {reply:?}");
        assert_eq!(reply.content_type, "application/json", "{shape}");
        let error = reply.json()["error"].as_str().expect("a text").to_owned();
        assert!(error.contains("deadline of 2s"), "{shape}: {error}");
        let reply = call(&arena, shape, "not_at_all").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "survived"));
    }
    arena.others_go_on().await;
}
