//! Plugins that use up what the kernel counts for a user as a whole, which may be the server's too.

use serde_json::json;

use super::{Arena, arena_builder};
use crate::{escapes::ordinary_server, server};

/// One epoll descriptor can watch each file once for each number that it has had.
const WATCHES: &str = "
import os, select, time

kept = []

def attack(influxdb3_local, args):
    watch = select.epoll()
    kept.append(watch)
    for _ in range(300):
        kept.append(os.eventfd(0))
        for number in range(500, 800):
            os.dup2(kept[-1], number)
            watch.register(number, 0)
    influxdb3_local.info('watches 90000')
    time.sleep(600)
";

/// Sends descriptors to itself until the kernel takes no more.
const IN_FLIGHT: &str = "
import errno, socket, time

kept = []

def attack(influxdb3_local, args):
    sent = 0
    for _ in range(100):
        pair = socket.socketpair()
        kept.extend(pair)
        pair[0].setblocking(False)
        try:
            while True:
                socket.send_fds(pair[0], [b'x'], [1] * 200)
                sent += 200
        except BlockingIOError:
            continue
        except OSError as error:
            influxdb3_local.info('refused', errno.errorcode[error.errno], 'after', sent)
            break
    time.sleep(600)
";

/// A server with the user that its workers have, where that can be.
async fn ordinary(attack: &str) -> Arena {
    let builder = ordinary_server().await.unwrap_or_else(server);
    Arena::on(arena_builder(builder, attack).start().await).await
}

#[tokio::test]
async fn a_plugin_that_has_epoll_watch_too_much_ends() {
    let arena = ordinary(WATCHES).await;
    let failure = arena.endures("too much open").await;
    assert!(failure.text.contains("max_user_watches"), "{failure:?}");
    let ended = "SELECT count(*) AS n FROM system.plugin_invocations \
                 WHERE outcome = 'too_much_open'";
    arena.db.until(ended, json!([{ "n": 1 }])).await;
}

#[tokio::test]
async fn descriptors_that_nobody_receives_keep_no_worker_from_starting() {
    let arena = ordinary(IN_FLIGHT).await;
    arena.create("t", "60s").await;
    arena.db.write("t n=1i 1").await;
    // More than there are spares, so that some are forked now.
    for number in 0..4 {
        let name = format!("later{number}");
        arena.create(&name, "30s").await;
        arena.recovers(&name).await;
    }
    let failure = arena.until_failed("t").await;
    assert!(failure.text.contains("and not received"), "{failure:?}");
    let logs = arena.db.logs("t").await;
    let refused = logs
        .iter()
        .find(|row| row.text.contains("refused ETOOMANYREFS"));
    let sent = refused.and_then(|row| row.text.rsplit(' ').next()?.parse::<u32>().ok());
    // Its own limit, and the message that went beyond it.
    assert!(sent.is_none_or(|sent| sent < 1500), "{sent:?}");
    arena.recovers("t").await;
}
