//! Plugins that want more memory than there is.

use outrigger_integration_tests::MemoryGroup;
use serde_json::json;

use super::{Arena, arena_builder};
use crate::server;

/// Takes memory until somebody says no.
const GREEDY: &str = "
import resource

def attack(influxdb3_local, args):
    if args['how'] == 'limited':
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        kept = bytearray(64 << 30)
    kept = []
    while args['how'] == 'greedy':
        kept.append(b'x' * (4 << 20))
";

const MIB: u64 = 1024 * 1024;

/// Where the system refuses memory, Python says so, and only the run ends.
#[tokio::test]
async fn memory_that_is_refused_is_an_error_of_the_run() {
    let arena = Arena::new(GREEDY).await;
    refused(&arena).await;
}

async fn refused(arena: &Arena) {
    arena.create("limited", "30s").await;
    arena.suffers("limited", "MemoryError").await;
    arena.recovers("limited").await;
}

/// Where the system gives what it does not have, the kernel kills: the worker, which has most.
#[tokio::test]
async fn a_worker_that_the_kernel_kills_for_want_of_memory_is_named_so() {
    let group = MemoryGroup::new(500 * MIB);
    let server = arena_builder(server(), GREEDY).start().await;
    if let Ok(group) = &group {
        group.add(server.pid());
        // The spawner has begun already, and what it starts is where it is.
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        let children = std::fs::read_to_string(children).expect("list the server's children");
        for child in children.split_whitespace() {
            group.add(child.parse().expect("a process"));
        }
    }
    let arena = Arena::on(server).await;
    if let Err(reason) = &group {
        eprintln!(
            "NOT TESTED here: a kill by the kernel ({reason}). Instead: memory that is refused. \
             The evidence of a kill is tested on recorded files, in host/memory.rs."
        );
        return refused(&arena).await;
    }
    arena.create("greedy", "60s").await;
    let expected = "the worker was ended by signal 9 (SIGKILL) for want of memory: the kernel's \
                    out-of-memory killer has struck 1 times in the server's control group";
    let failure = arena.suffers("greedy", expected).await;
    assert!(failure.text.contains("it had up to"), "{failure:?}");
    let outcome = "SELECT outcome FROM system.plugin_invocations \
                   WHERE trigger_name = 'greedy' AND outcome <> 'ok'";
    let expected = json!([{ "outcome": "out_of_memory" }]);
    arena.db.until(outcome, expected).await;
    arena.recovers("greedy").await;
    drop(arena);
    drop(group);
}
