//! How a server ends that has a plugin that does not, and what one leaves that is killed.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use outrigger_integration_tests::{Server, eventually};
use reqwest::Method;

use super::{Arena, until_gone};
use crate::server;

const LATE: &str = "names who is late";

const HANGS: &str = "
import os, subprocess, time

def attack(influxdb3_local, args):
    left = subprocess.Popen(['sleep', '600'], start_new_session=True).pid
    say_left('hangs', left)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
";

/// A server in which a trigger hangs, and the pid of what that has detached.
async fn hanging() -> (Server, String) {
    let builder = server()
        .flag("--shutdown-timeout", "1s")
        .flag("--sandbox", "off")
        .allow_log("shutdown phase is late", LATE)
        .allow_log("told to end again", LATE)
        .allow_log("workers did not end in time", "one ignores everything")
        .allow_log("the plugin host did not end in time", "the machine is slow");
    let arena = Arena::with(builder, HANGS).await;
    arena.create("hangs", "10m").await;
    arena.db.write("hangs n=1i 1").await;
    let left = arena.left("hangs").await;
    arena.others_go_on().await;
    (arena.server, left[0].clone())
}

async fn until_logged(server: &Server, text: &str) {
    eventually(&format!("the server logs {text:?}"), async || {
        let logged = server.has_logged(text);
        logged.then_some(()).ok_or("nothing yet".to_owned())
    })
    .await;
}

async fn told_twice(signal: Signal, code: i32) {
    let (mut server, left) = hanging().await;
    server.signal(signal);
    until_logged(&server, "told to end, shutting down").await;
    server.signal(signal);
    server.ends_with(code);
    assert!(server.has_logged("told to end again, ending at once"));
    until_gone(&left).await;
}

#[tokio::test]
async fn a_second_sigterm_ends_the_server_at_once() {
    told_twice(Signal::SIGTERM, 143).await;
}

#[tokio::test]
async fn a_second_sigint_ends_the_server_at_once() {
    told_twice(Signal::SIGINT, 130).await;
}

#[tokio::test]
async fn one_sigint_ends_the_server_in_order_and_it_says_who_is_late() {
    let (mut server, left) = hanging().await;
    server.signal(Signal::SIGINT);
    server.ends_with(0);
    assert!(server.has_logged("shutdown phase is late"));
    assert!(server.has_logged(r#"trigger \"hangs\", invocation "#));
    assert!(server.has_logged("server has ended"));
    until_gone(&left).await;
}

#[tokio::test]
async fn a_request_that_the_shutdown_breaks_off_is_accounted_as_that() {
    let builder = server()
        .flag("--shutdown-timeout", "1s")
        .flag("--sandbox", "off")
        .allow_log("shutdown phase is late", LATE)
        .allow_log("workers did not end in time", "one ignores everything");
    let mut arena = Arena::with(builder, HANGS).await;
    let trigger = arena.db.trigger("t", "victim.py").spec("request:t");
    trigger.create().await;
    let client = arena.server.client();
    let call = client.send(client.request(Method::GET, "/api/v3/engine/t"));
    let stop = async {
        let left = arena.left("hangs").await;
        arena.server.signal(Signal::SIGTERM);
        left
    };
    let (reply, left) = tokio::join!(call, stop);
    // It may have had an answer, or only seen the connection end.
    if let Ok(reply) = reply {
        assert_eq!(reply.status, 503, "{reply:?}");
    }
    arena.server.ends_with(0);
    until_gone(&left[0]).await;
    arena.server.restart().await;
    let outcomes = "SELECT outcome, wall_us > 0 AS took FROM system.plugin_invocations \
                    WHERE trigger_name = 't'";
    let expected = serde_json::json!([{ "outcome": "stopped", "took": true }]);
    let db = arena.server.client().database("db");
    db.until(outcomes, expected).await;
}

/// The directories of servers below the temporary one.
fn run_directories(temporary: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(temporary).expect("it is there").flatten();
    let found = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("outrigger-")
    });
    found.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn what_a_killed_server_leaves_is_removed_by_the_next() {
    let mut server = server().start().await;
    let temporary = server.directory().to_owned();
    let first = run_directories(&temporary);
    assert_eq!(first.len(), 1, "{first:?}");
    server.kill_9();
    assert_eq!(run_directories(&temporary), first);
    server.restart().await;
    let second = run_directories(&temporary);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(first, second);
    assert!(second[0].join("supervisor.sock").exists());
    server.stop();
    assert_eq!(run_directories(&temporary), Vec::<PathBuf>::new());
}
