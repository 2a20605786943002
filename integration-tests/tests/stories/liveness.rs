//! Plugins that hang, each in its own way: the log says in which way, and only a deadline ends
//! them.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrigger_integration_tests::{Database, eventually};

use crate::server;

/// Hangs as its argument says.
const HANGING: &str = "
import ctypes, os, re, signal

def process_writes(influxdb3_local, table_batches, args=None):
    # Not a log line: it may not leave the process any more.
    line = LineBuilder('pids').tag('how', args['how']).int64_field('pid', os.getpid())
    influxdb3_local.write_sync(line)
    if args['how'] == 'stop':
        os.kill(os.getpid(), signal.SIGSTOP)
        influxdb3_local.info('goes on')
    if args['how'] == 'c':
        # A regular expression that needs years, and keeps the interpreter for itself.
        re.match('(a+)+$', 'a' * 60 + 'b')
    if args['how'] == 'read':
        reader, _writer = os.pipe()
        os.read(reader, 1)
    if args['how'] == 'loop':
        while True:
            pass
";

const HOWS: [&str; 4] = ["stop", "c", "read", "loop"];

async fn until_warned(db: &Database, trigger: &str, text: &str) {
    let rows = db.until_logged(trigger, 1, text).await;
    assert_eq!(rows[0].level, "WARN");
}

async fn pid(db: &Database, how: &str) -> Pid {
    let sql = format!("SELECT pid FROM pids WHERE how = '{how}'");
    let pid = db.number(&sql).await;
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}

/// In one story, since each takes as long as all four do.
#[tokio::test]
async fn each_way_to_hang_is_reported_for_what_it_means() {
    let server = server()
        .plugin("hanging.py", HANGING)
        .allow_log("a plugin's worker ended", "the story kills what hangs")
        .start()
        .await;
    let db = server.database("db").create().await;
    for how in HOWS {
        let trigger = db.trigger(how, "hanging.py").spec("table:m");
        trigger.argument("how", how).create().await;
    }
    db.write("m f=1 1").await;

    until_warned(&db, "stop", "has not reacted for ").await;
    let rows = db.until_logged("stop", 1, "a signal has stopped it").await;
    assert!(rows[0].text.contains(", since 20"), "{rows:?}");
    kill(pid(&db, "stop").await, Signal::SIGCONT).expect("it lives");
    db.until_logged("stop", 1, "goes on").await;

    until_warned(&db, "c", "C code holds the interpreter's lock").await;
    until_warned(&db, "read", "it is blocked in a system call").await;
    until_warned(&db, "loop", "a loop in one place").await;
    for how in ["c", "read", "loop"] {
        let warnings = db.logs(how).await;
        let warnings = warnings.iter().filter(|row| row.level == "WARN");
        assert_eq!(warnings.count(), 1, "{how}: {:#?}", db.logs(how).await);
    }

    // They still run: nothing but a deadline ends them. Somebody else may.
    for how in ["c", "read", "loop"] {
        kill(pid(&db, how).await, Signal::SIGKILL).expect("it lives");
        let killed = "ended by signal 9 (SIGKILL), which was not ours";
        let rows = db.until_logged(how, 1, killed).await;
        assert_eq!(rows[0].level, "ERROR");
    }
}

/// Is stopped, and is let go on, in the same run.
const STOPPED: &str = "
import os, signal, time

def process_writes(influxdb3_local, table_batches, args=None):
    line = LineBuilder('pids').tag('how', 't').int64_field('pid', os.getpid())
    influxdb3_local.write_sync(line)
    os.kill(os.getpid(), signal.SIGSTOP)
    influxdb3_local.info('goes on')
    while not os.path.exists(args['end']):
        time.sleep(0.1)
";

#[tokio::test]
async fn a_worker_that_comes_back_is_reported_too() {
    let server = server().plugin("stopped.py", STOPPED).start().await;
    let db = server.database("db").create().await;
    let end = server.plugin_directory().join("end");
    db.trigger("t", "stopped.py")
        .spec("table:m")
        .argument("end", &end.display().to_string())
        .create()
        .await;
    db.write("m f=1 1").await;
    until_warned(&db, "t", "a signal has stopped it").await;
    kill(pid(&db, "t").await, Signal::SIGCONT).expect("it lives");
    let rows = db.until_logged("t", 1, "process reacts again").await;
    assert_eq!(rows[0].level, "INFO");
    std::fs::write(&end, "").expect("write");
    db.until_logged("t", 1, "finished execution").await;
    // The worker is as good as before.
    eventually("the next run", async || {
        let logs = db.logs("t").await;
        logs.iter()
            .any(|row| row.text.contains("goes on"))
            .then_some(())
            .ok_or(format!("{logs:?}"))
    })
    .await;
}
