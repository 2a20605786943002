//! Plugins that do not come back: their deadline ends them, whatever they do about it.

use std::collections::BTreeMap;

use futures::future::join_all;
use outrigger_integration_tests::{LogRow, Reply, eventually};
use reqwest::Method;

use super::Arena;

/// Hangs in the way that `how` says.
const HANGING: &str = "
import os, signal, time

def attack(influxdb3_local, args):
    how = args['how']
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
    if how == 'stopped':
        os.kill(os.getpid(), signal.SIGSTOP)
";

const SHAPES: [&str; 5] = [
    "python_loop",
    "c_loop",
    "blocked_call",
    "ignored_signals",
    "stopped",
];

/// The error says where a plugin hung, first of all, and nothing of it is said elsewhere; a
/// stopped process can say nothing.
fn check_dump(shapes: &BTreeMap<&str, Vec<LogRow>>) {
    for shape in SHAPES.iter().filter(|shape| **shape != "stopped") {
        let rows = &shapes[shape];
        let error = rows.iter().find(|row| row.level == "ERROR");
        let lines: Vec<_> = error.expect("it failed").text.lines().collect();
        assert_eq!(
            lines[1], "the plugin was here, most recent call first:",
            "{rows:#?}"
        );
        assert!(lines[2].ends_with(" in attack"), "{shape}: {rows:#?}");
        assert!(lines[2].contains("victim.py"), "{shape}: {rows:#?}");
        let warnings = rows.iter().filter(|row| row.level == "WARN");
        assert_eq!(warnings.count(), 0, "{shape}: {rows:#?}");
        let runtime = lines.iter().any(|line| line.contains("/grpc/"));
        assert!(!runtime, "{shape}: {rows:#?}");
    }
}

#[tokio::test]
async fn every_shape_of_hanging_ends_at_its_deadline() {
    let arena = Arena::new(HANGING).await;
    for shape in SHAPES {
        arena.create(shape, "2s").await;
    }
    let suffering = SHAPES.map(|shape| {
        let expected = "the plugin ran longer than its deadline of 2s and was killed";
        arena.suffers(shape, expected)
    });
    join_all(suffering).await;
    let mut logs = BTreeMap::new();
    for shape in SHAPES {
        logs.insert(shape, arena.db.logs(shape).await);
        arena.recovers(shape).await;
    }
    check_dump(&logs);
}

async fn call(arena: &Arena, path: &str, how: &str) -> Reply {
    let client = arena.server.client();
    let path = format!("/api/v3/engine/{path}?how={how}");
    client.call(Method::POST, &path).await
}

#[tokio::test]
async fn every_shape_of_hanging_is_answered_with_504() {
    let arena = Arena::new(HANGING).await;
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
