//! Between what a plugin returned and its place in the log: whoever is killed there, what it
//! wrote counts once. The log is made to refuse entries, so that the result waits in the buffer.

use std::{fs, path::PathBuf};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrigger_integration_tests::{Database, Server, eventually};
use serde_json::json;

use super::{lives, until_gone};
use crate::server;

/// Reports each row under a name of the run's own, and returns when the story says so.
const WAITING: &str = "
import os, time, uuid

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            line = LineBuilder('reports').tag('run', uuid.uuid4().hex)
            influxdb3_local.write(line.int64_field('n', row['n']))
            with open(f'began-{row[\"n\"]}.new', 'w') as file:
                print(os.getpid(), os.getppid(), file=file)
            os.rename(f'began-{row[\"n\"]}.new', f'began-{row[\"n\"]}')
            while not os.path.exists(f'end-{row[\"n\"]}'):
                time.sleep(0.01)
";

/// A server whose log can be taken away.
struct Stage {
    server: Server,
}

/// Who runs a plugin that has just returned.
struct Cast {
    worker: String,
    host: String,
}

impl Stage {
    async fn new() -> Self {
        let server = server()
            .plugin("waiting.py", WAITING)
            .allow_log("cannot write the log", "the story takes it away")
            .allow_log("the plugin host ended", "the story kills it")
            .allow_log("cannot start a worker", "its host was killed")
            .allow_log("cannot commit", "the log is away")
            .start()
            .await;
        let db = server.database("db").create().await;
        let trigger = db.trigger("t", "waiting.py").spec("table:rows");
        trigger.error_behavior("retry").create().await;
        Self { server }
    }

    fn db(&self) -> Database {
        self.server.database("db")
    }

    /// Where the trigger keeps files.
    fn own_directory(&self) -> PathBuf {
        let state = self.server.data_directory().join("node/plugin-state");
        state.join("trigger-1")
    }

    fn log(&self) -> PathBuf {
        self.server.data_directory().join("node/log")
    }

    /// Has the plugin return its report of row `n`, which the log then refuses.
    #[expect(
        clippy::disallowed_methods,
        reason = "the log is not to be used meanwhile"
    )]
    async fn returned(&self, n: i64) -> Cast {
        let db = self.db();
        db.write(format!("rows n={n}i {n}")).await;
        let own = self.own_directory();
        let began = eventually("the plugin runs", async || {
            fs::read_to_string(own.join(format!("began-{n}"))).map_err(|e| e.to_string())
        })
        .await;
        self.until_at_rest().await;
        let log = self.log();
        fs::rename(&log, log.with_file_name("log.away")).expect("take the log away");
        fs::write(&log, "").expect("nothing can be made in a file");
        fs::write(own.join(format!("end-{n}")), "").expect("let the plugin return");
        let state = "SELECT state FROM system.plugin_workers WHERE trigger_name = 't'";
        db.until(state, json!([{ "state": "bound" }])).await;
        eventually("the log refuses its report", async || {
            let refused = self.server.has_logged("cannot write the log");
            refused.then_some(()).ok_or_else(String::new)
        })
        .await;
        let mut pids = began.split_whitespace().map(ToOwned::to_owned);
        let mut pid = || pids.next().expect("two of them");
        Cast {
            worker: pid(),
            host: pid(),
        }
    }

    /// Waits until nothing waits for the log: that a run began is logged before it.
    async fn until_at_rest(&self) {
        let mut before = usize::MAX;
        let db = self.db();
        eventually("all is in the log", async || {
            let entries = fs::read_dir(self.log()).expect("it is there").count();
            let begun = db.logs("t").await.last().map(|row| row.text.clone());
            let begun = begun.is_some_and(|text| text.starts_with("starting execution"));
            let rests = begun && entries == before;
            before = entries;
            rests.then_some(()).ok_or(format!("{entries} entries"))
        })
        .await;
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the log is not to be used meanwhile"
    )]
    fn give_back(&self) {
        let log = self.log();
        fs::remove_file(&log).expect("it is a file");
        fs::rename(log.with_file_name("log.away"), &log).expect("give the log back");
    }

    /// Every row up to `n` is reported once.
    async fn counted(&self, n: i64) {
        let db = self.db();
        let sql = "SELECT count(*) AS n, count(DISTINCT n) AS d FROM reports";
        db.until(sql, json!([{ "n": n, "d": n }])).await;
    }

    /// The trigger goes on, and nothing came late.
    async fn goes_on(&self, n: i64) {
        let own = self.own_directory();
        fs::write(own.join(format!("end-{n}")), "").expect("nothing to wait for");
        self.db().write(format!("rows n={n}i {n}")).await;
        self.counted(n).await;
    }
}

fn kill_9(pid: &str) {
    let pid = pid.parse().expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
}

#[tokio::test]
async fn a_worker_killed_between_result_and_commit_counts_once() {
    let stage = Stage::new().await;
    let cast = stage.returned(1).await;
    kill_9(&cast.worker);
    until_gone(&cast.worker).await;
    stage.give_back();
    stage.counted(1).await;
    stage.goes_on(2).await;
}

#[tokio::test]
async fn a_host_killed_between_result_and_commit_counts_once() {
    let stage = Stage::new().await;
    let cast = stage.returned(1).await;
    kill_9(&cast.host);
    until_gone(&cast.worker).await;
    stage.give_back();
    stage.counted(1).await;
    stage.goes_on(2).await;
}

#[tokio::test]
async fn a_server_killed_between_result_and_commit_counts_once() {
    let mut stage = Stage::new().await;
    let cast = stage.returned(1).await;
    stage.server.kill_9();
    assert!(!lives(&cast.worker) && !lives(&cast.host));
    stage.give_back();
    stage.server.restart().await;
    // It was not in the log, so it is run again.
    stage.counted(1).await;
    stage.goes_on(2).await;
}

#[tokio::test]
async fn a_server_and_its_host_killed_at_once_leave_nothing() {
    let mut stage = Stage::new().await;
    let cast = stage.returned(1).await;
    // Neither has time to see the other's end.
    for pid in [&cast.host, &stage.server.pid().to_string()] {
        kill_9(pid);
    }
    stage.server.kill_9();
    assert!(!lives(&cast.worker) && !lives(&cast.host));
    stage.give_back();
    stage.server.restart().await;
    stage.counted(1).await;
    stage.goes_on(2).await;
    let temporary = stage.server.directory();
    let left = fs::read_dir(temporary).expect("it is there").flatten();
    let left = left.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("outrigger-")
    });
    assert_eq!(left.count(), 1, "only that of the server that runs");
}
