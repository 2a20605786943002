//! Hosts that are killed, and servers that are.

use outrigger_integration_tests::eventually;
use reqwest::Method;
use serde_json::json;

use super::{Arena, until_gone};
use crate::server;

/// Kills its worker's host, once, after it has left a detached process.
const KILLS_ITS_HOST: &str = "
import os, signal, subprocess, time

def attack(influxdb3_local, args):
    if influxdb3_local.attempt == 1 and not os.path.exists('killed'):
        open('killed', 'w').close()
        left = subprocess.Popen(['sleep', '600'], start_new_session=True).pid
        say_left('t', left)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    raise ValueError('has a new host')
";

fn arena() -> outrigger_integration_tests::Builder {
    server()
        .flag("--sandbox", "off")
        .allow_log("the plugin host ended", "the plugin kills it")
        .allow_log(
            "cannot start a worker",
            "the host is gone while one is forked",
        )
}

#[tokio::test]
async fn a_killed_host_is_replaced_and_leaves_nothing() {
    let arena = Arena::with(arena(), KILLS_ITS_HOST).await;
    arena.create("t", "30s").await;
    arena.db.write("t n=1i 1").await;
    // Whatever ended the host says nothing about the plugin: the event comes again.
    arena
        .db
        .until_logged("t", 1, "ValueError: has a new host")
        .await;
    arena
        .db
        .until_logged("t", 1, "the worker's host ended, and the worker with it")
        .await;
    let outcomes = "SELECT attempt, outcome FROM system.plugin_invocations \
                    WHERE trigger_name = 't' ORDER BY attempt";
    let expected = json!([
        { "attempt": 1, "outcome": "host_lost" },
        { "attempt": 2, "outcome": "plugin_error" },
    ]);
    arena.db.until(outcomes, expected).await;
    for pid in &arena.left("t").await {
        until_gone(pid).await;
    }
    arena.recovers("t").await;
}

#[tokio::test]
async fn a_request_whose_host_is_killed_is_said_to_have_run() {
    let arena = Arena::with(arena(), KILLS_ITS_HOST).await;
    let trigger = arena.db.trigger("t", "victim.py").spec("request:t");
    trigger.create().await;
    let call = async || {
        let client = arena.server.client();
        client.call(Method::POST, "/api/v3/engine/t").await
    };
    let broken_off = eventually("the request is broken off", async || {
        let reply = call().await;
        if reply.status == 404 {
            return Err(format!("{reply:?}"));
        }
        Ok(reply)
    })
    .await;
    let text = "the worker's host ended, and the worker with it, while the plugin ran: it may \
                have done some of its work";
    broken_off.check_refused(503, text);
    let outcome = "SELECT outcome FROM system.plugin_invocations WHERE trigger_name = 't'";
    let expected = json!([{ "outcome": "host_lost" }]);
    arena.db.until(outcome, expected).await;
    call().await.check_refused(500, "has a new host");
}
