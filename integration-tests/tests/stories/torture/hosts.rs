//! Hosts that are killed, and servers that are.

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

#[tokio::test]
async fn a_killed_host_is_replaced_and_leaves_nothing() {
    let builder = server()
        .flag("--sandbox", "off")
        .allow_log("the plugin host ended", "the plugin kills it")
        .allow_log(
            "cannot start a worker",
            "the host is gone while one is forked",
        );
    let arena = Arena::with(builder, KILLS_ITS_HOST).await;
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
    for pid in &arena.left("t").await {
        until_gone(pid).await;
    }
    arena.recovers("t").await;
}
