//! Plugins that close what is not theirs, or open more than there is.

use super::Arena;

#[tokio::test]
async fn a_plugin_that_closes_all_descriptors_gets_a_new_worker() {
    let arena = Arena::new(
        "
import os

def attack(influxdb3_local, args):
    os.closerange(0, 4096)
    influxdb3_local.info('into the void')
    influxdb3_local.query('SELECT 1')
",
    )
    .await;
    arena.create("t", "5s").await;
    let failure = arena.suffers("t", "error executing").await;
    let reasons = [
        "exited with code",
        "broke the protocol",
        "deadline",
        "ended by signal",
    ];
    let known = reasons.iter().any(|reason| failure.text.contains(reason));
    assert!(known, "{failure:?}");
    arena.recovers("t").await;
}

#[tokio::test]
async fn a_plugin_that_runs_out_of_descriptors_is_told_so() {
    let arena = Arena::new(
        "
import os

kept = []

def attack(influxdb3_local, args):
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))
",
    )
    .await;
    arena.create("t", "30s").await;
    arena.suffers("t", "OSError: [Errno 24]").await;
    // It still has none, and nevertheless gets its rows or a reason; a changed source brings a
    // worker no relief, a disabled trigger does.
    arena.db.disable("t").await;
    arena.db.enable("t").await;
    arena.recovers("t").await;
}
