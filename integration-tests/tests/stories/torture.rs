//! Plugins, workers, hosts and servers that end badly, in every way that others have been hurt
//! by. Each story has the same frame: while one trigger suffers, writers are answered and another
//! trigger goes on; the reason is in SQL; the trigger works again; and nothing is left behind
//! (which the harness checks whenever a server ends).
//!
//! A virtual environment that is removed while the server runs is in `environment_faults`, a
//! worker that speaks out of turn in `hostile`, a server that is killed while it works in
//! `crashes`; `integration-tests/README.md` says which test shows what.

mod children;
mod deadlines;
mod descriptors;
mod ends;
mod floods;
mod hosts;
mod kernel_counts;
mod memory;
mod moments;
mod pids;
mod server_descriptors;
mod shutdown;
mod starts;
mod table;
mod wall_clock;

use std::sync::atomic::{AtomicU32, Ordering};

use outrigger_integration_tests::{Builder, Database, LogRow, Server, eventually};
use serde_json::json;

use crate::server;

/// Says that it has seen a row.
const WITNESS: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            influxdb3_local.info('witnessed', row['n'])
";

/// What follows the attack in each plugin: it attacks when it gets a 1, and otherwise says that
/// it works.
const VICTIM: &str = "
import os as _os

def say_left(name, *pids):
    # A log line may not arrive when the process ends at once.
    with open('saying-' + name, 'w') as file:
        print(*pids, file=file)
    _os.rename('saying-' + name, 'left-' + name)

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            if row['n'] == 1:
                influxdb3_local.write(LineBuilder('halves').int64_field('n', 1))
                attack(influxdb3_local, args)
            else:
                influxdb3_local.write(LineBuilder('works').int64_field('pid', _os.getpid()))

def process_request(influxdb3_local, query, headers, body, args=None):
    attack(influxdb3_local, query)
    return 'survived'
";

/// A server with a witness and a victim.
struct Arena {
    server: Server,
    db: Database,
    witnessed: AtomicU32,
}

/// A server for an arena.
fn arena_builder(builder: Builder, attack: &str) -> Builder {
    builder
        .plugin("witness.py", WITNESS)
        .plugin("victim.py", &format!("{attack}{VICTIM}"))
        .allow_log("a plugin's worker ended", "the plugin ends it on purpose")
}

impl Arena {
    /// `attack` is Python that defines `attack(influxdb3_local, args)`.
    async fn new(attack: &str) -> Self {
        Self::with(server(), attack).await
    }

    /// For plugins that start processes, or signal others.
    async fn unconfined(attack: &str) -> Self {
        Self::with(server().flag("--sandbox", "off"), attack).await
    }

    async fn with(builder: Builder, attack: &str) -> Self {
        Self::on(arena_builder(builder, attack).start().await).await
    }

    /// On a server that was made for it.
    async fn on(server: Server) -> Self {
        let db = server.database("db").create().await;
        db.trigger("witness", "witness.py")
            .spec("table:witness")
            .create()
            .await;
        let arena = Self {
            server,
            db,
            witnessed: AtomicU32::new(0),
        };
        arena.others_go_on().await;
        arena
    }

    /// Writers are answered, what they wrote can be read, and the witness sees it.
    async fn others_go_on(&self) {
        let n = 1 + self.witnessed.fetch_add(1, Ordering::Relaxed);
        self.db.write(format!("witness n={n}i {n}")).await;
        let seen = "SELECT count(*) AS n FROM witness";
        // Several may be at it.
        assert!(self.db.number(seen).await >= i64::from(n));
        self.db
            .until_logged("witness", 1, &format!("witnessed {n}"))
            .await;
    }

    /// Creates the victim, which is attacked by its first row, and then works as before.
    async fn endures(&self, expected: &str) -> LogRow {
        self.create("t", "30s").await;
        let failure = self.suffers("t", expected).await;
        self.recovers("t").await;
        failure
    }

    /// A victim that listens to the table of its name.
    async fn create(&self, name: &str, timeout: &'static str) {
        self.db
            .trigger(name, "victim.py")
            .spec(&format!("table:{name}"))
            .argument("how", name)
            .timeout(timeout)
            .create()
            .await;
    }

    /// Attacks the victim and waits until it is logged how that ended.
    async fn suffers(&self, name: &str, expected: &str) -> LogRow {
        self.db.write(format!("{name} n=1i 1")).await;
        // Now, while it suffers.
        self.others_go_on().await;
        let failure = self.until_failed(name).await;
        let text = &failure.text;
        assert!(
            text.lines().next().is_some_and(|l| l.contains(expected)),
            "expected {expected:?} in {text}"
        );
        // What it had written before counts for nothing.
        let halves = self.db.try_query("SELECT * FROM halves").await;
        assert!(
            halves.status == 400 || halves.json() == json!([]),
            "{halves:?}"
        );
        failure
    }

    async fn until_failed(&self, name: &str) -> LogRow {
        eventually(&format!("the failure of {name} is logged"), async || {
            let logs = self.db.logs(name).await;
            let failed = logs
                .iter()
                .find(|row| row.level == "ERROR" && row.text.contains("error executing"));
            failed.cloned().ok_or_else(|| format!("{logs:#?}"))
        })
        .await
    }

    /// Waits until it is logged that a run was broken off, by whoever.
    async fn until_broken_off(&self, name: &str) {
        eventually(&format!("{name} is broken off"), async || {
            let logs = self.db.logs(name).await;
            let parts = ["error executing", "the worker's host ended"];
            let found = logs
                .iter()
                .any(|row| parts.iter().any(|part| row.text.contains(part)));
            found.then_some(()).ok_or_else(|| format!("{logs:#?}"))
        })
        .await;
    }

    /// The processes that a plugin has said to have left.
    async fn left(&self, name: &str) -> Vec<String> {
        eventually("the plugin says what it has left", async || {
            let said = self.server.kept(&format!("left-{name}"));
            let said = said.ok_or_else(|| "nothing yet".to_owned())?;
            Ok(said.split_whitespace().map(ToOwned::to_owned).collect())
        })
        .await
    }

    /// The trigger works on its next row, and so do all others.
    async fn recovers(&self, name: &str) {
        let works = "SELECT count(*) AS n FROM works";
        let before = match self.db.try_query(works).await {
            reply if reply.status == 200 => reply.json()[0]["n"].as_i64().expect("a number"),
            _ => 0,
        };
        self.db.write(format!("{name} n=2i 2")).await;
        self.db.until(works, json!([{ "n": before + 1 }])).await;
        self.others_go_on().await;
    }
}

/// Whether a process is there and has not ended.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Waits until a process has ended.
async fn until_gone(pid: &str) {
    eventually(&format!("process {pid} is gone"), async || {
        if lives(pid) {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            return Err(format!("{command:?}"));
        }
        Ok(())
    })
    .await;
}
