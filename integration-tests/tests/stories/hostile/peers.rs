//! Peers that say too much, hear nothing, or speak while they are being bound: the server's
//! memory stays as it is, and nobody else notices.

use outrigger_integration_tests::{Builder, Database, Server};
use serde_json::json;

use super::check_reason;
use crate::server;

/// Far more than any noise, far less than what the attacks send.
const GROWTH_MIB_MAX: u64 = 150;

/// A server with a hostile trigger and one that must not notice.
struct Field {
    server: Server,
    db: Database,
    peak_mib: u64,
}

impl Field {
    async fn new(builder: Builder) -> Self {
        let server = builder
            .plugin("witness.py", crate::WRITE_REPORTS)
            .allow_log("a plugin's worker ended", "the plugin provokes it")
            .start()
            .await;
        let db = server.database("db").create().await;
        let witness = db.trigger("witness", "witness.py").spec("table:alive");
        witness.create().await;
        db.write("alive f=1 1").await;
        db.until_logged("witness", 1, "finished execution").await;
        let peak_mib = server.peak_mib();
        Self {
            server,
            db,
            peak_mib,
        }
    }

    async fn create(&self, plugin: &str, timeout: &'static str) {
        let trigger = self.db.trigger("t", plugin).spec("table:attack");
        trigger.timeout(timeout).create().await;
    }

    /// Writers are answered, and the other trigger runs.
    async fn others_go_on(&self, time: usize) {
        self.db.write(format!("alive f=1 {time}")).await;
        let finished = "finished execution";
        self.db.until_logged("witness", time, finished).await;
    }

    #[track_caller]
    fn check_memory(&self) {
        let grown = self.server.peak_mib() - self.peak_mib;
        assert!(
            grown < GROWTH_MIB_MAX,
            "the server has grown by {grown} MiB"
        );
    }
}

/// Sends 350 MB of log messages, each within its limit, past what the plugin host counts.
const FLOOD: &str = "
import gc
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

def process_writes(influxdb3_local, table_batches, args=None):
    outbox = next(o for o in gc.get_objects() if isinstance(o, Outbox))
    run, text = influxdb3_local.invocation_id, 'x' * 70_000
    for _ in range(5_000):
        outbox.send_for(run, m.FromWorker(log=m.Log(invocation=run, level=1, text=text)))
";

#[tokio::test]
async fn a_flood_of_log_messages_is_dropped_and_counted() {
    let field = Field::new(server().plugin("flood.py", FLOOD)).await;
    field.create("flood.py", "60s").await;
    field.db.write("attack f=1 1").await;
    field.others_go_on(2).await;
    field.db.until_logged("t", 1, "finished execution").await;
    let logs = field.db.logs("t").await;
    let stored: usize = logs.iter().map(|row| row.text.len()).sum();
    assert!(stored < 40 << 20, "{stored} bytes were stored");
    let dropped = logs
        .iter()
        .filter(|row| row.text.contains("lines were dropped"));
    let dropped: u64 = dropped
        .filter_map(|row| row.text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    let kept = logs
        .iter()
        .filter(|row| row.text.starts_with("xxx"))
        .count() as u64;
    assert_eq!(kept + dropped, 5_000);
    field.check_memory();
    field.others_go_on(3).await;
}

/// From its first run on, what the server says is not taken any more.
const DEAF: &str = "
import gc, time
from outrigger_plugin_host._worker import Worker

class Deaf:
    def __init__(self, real):
        self.get = real.get
    def put(self, message):
        time.sleep(600)

def process_writes(influxdb3_local, table_batches, args=None):
    worker = next(o for o in gc.get_objects() if isinstance(o, Worker))
    worker._tasks = Deaf(worker._tasks)
";

#[tokio::test]
async fn a_worker_that_reads_nothing_any_more_is_ended_at_its_deadline() {
    let field = Field::new(server().plugin("deaf.py", DEAF)).await;
    field.create("deaf.py", "2s").await;
    field.db.write("attack f=1 1").await;
    field.db.until_logged("t", 1, "finished execution").await;
    // They queue, with rows that would be much to keep.
    let text = "y".repeat(100_000);
    for time in 2..=40 {
        field.db.write(format!("attack s=\"{text}\" {time}")).await;
    }
    field.others_go_on(2).await;
    let failed = field.db.until_said("t", "deadline of 2s").await;
    assert_eq!(failed[0].level, "ERROR");
    let outcome = "SELECT DISTINCT outcome FROM system.plugin_invocations \
                   WHERE trigger_name = 't' AND outcome <> 'ok'";
    let expected = json!([{ "outcome": "deadline_exceeded" }]);
    field.db.until(outcome, expected).await;
    field.check_memory();
    field.db.disable("t").await;
    field.others_go_on(3).await;
}

/// A package, which is imported while it is bound, and speaks meanwhile.
const HASTY: &str = "
import gc, time
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

outbox = next(o for o in gc.get_objects() if isinstance(o, Outbox))
outbox.send(m.FromWorker(completed=m.Completed(invocation='1-2-3', ok={})))
time.sleep(60)

def process_writes(influxdb3_local, table_batches, args=None):
    pass
";

#[tokio::test]
async fn a_message_out_of_turn_while_binding_ends_the_worker() {
    let field = Field::new(server().plugin("hasty/__init__.py", HASTY)).await;
    field.create("hasty", "30s").await;
    field.db.write("attack f=1 1").await;
    field.others_go_on(2).await;
    let text = "the worker broke the protocol";
    let failures = field.db.until_logged("t", 1, text).await;
    check_reason(&failures[0].text, "completed came instead of ready");
    field.check_memory();
    let mended = "def process_writes(influxdb3_local, table_batches, args=None):\n    \
                  influxdb3_local.info('mended')\n";
    field.server.write_plugin("hasty/__init__.py", mended);
    field.db.write("attack f=1 2").await;
    field.db.until_logged("t", 1, "mended").await;
    field.others_go_on(3).await;
}
