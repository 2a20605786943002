//! Plugins that end their process, or raise what ends programs: in the call and in the import.

use super::{Arena, WITNESS};
use crate::server;

fn attack(statement: &str) -> String {
    format!("import ctypes, os, sys\n\ndef attack(influxdb3_local, args):\n    {statement}\n")
}

async fn call(statement: &str, expected: &str) -> String {
    let arena = Arena::new(&attack(statement)).await;
    arena.endures(expected).await.text
}

/// C code that calls itself until the stack is used up.
const OVERFLOW: &str = "overflow = ctypes.CDLL(None).regcomp
    overflow(ctypes.create_string_buffer(256), b'(' * 10_000_000, 1)";

#[tokio::test]
async fn exit_in_the_call() {
    call("os._exit(3)", "the worker exited with code 3").await;
}

#[tokio::test]
async fn segfault_in_the_call() {
    let text = call("ctypes.string_at(0)", "signal 11 (SIGSEGV)").await;
    assert!(text.contains("in attack"), "{text}");
}

#[tokio::test]
async fn abort_in_the_call() {
    let text = call("os.abort()", "signal 6 (SIGABRT)").await;
    assert!(text.contains("Fatal Python error: Aborted"), "{text}");
}

#[tokio::test]
async fn stack_overflow_in_the_call() {
    call(OVERFLOW, "signal 11 (SIGSEGV)").await;
}

#[tokio::test]
async fn keyboard_interrupt_in_the_call() {
    call("raise KeyboardInterrupt('mine')", "KeyboardInterrupt: mine").await;
}

#[tokio::test]
async fn system_exit_in_the_call() {
    call("sys.exit(0)", "SystemExit: 0").await;
}

#[tokio::test]
async fn generator_exit_in_the_call() {
    call("raise GeneratorExit('mine')", "GeneratorExit: mine").await;
}

/// A plugin that cannot be imported, and then is mended. `file` is where its source is.
async fn ends_in_the_import(file: &str, statement: &str, expected: &str) {
    let source = format!("import ctypes, os, sys\n{statement}\n");
    let arena = Arena::with(server().plugin(file, &source), "").await;
    let plugin = file.trim_end_matches("/__init__.py");
    arena.db.trigger("t", plugin).spec("table:t").create().await;
    arena.suffers("t", expected).await;
    arena.server.write_plugin(file, WITNESS);
    arena.db.write("t n=7i 7").await;
    arena.db.until_logged("t", 1, "witnessed 7").await;
}

/// Ends the import of a plugin, and of a package.
async fn crash_in_the_import(statement: &str, expected: &str) {
    ends_in_the_import("alone.py", statement, expected).await;
    ends_in_the_import("pack/__init__.py", statement, expected).await;
}

/// The same, by an exception that is not an error.
async fn raise_in_the_import(exception: &str, text: &str) {
    let statement = format!("raise {exception}('{text}')");
    let expected = format!("{exception}: {text}");
    ends_in_the_import("alone.py", &statement, &expected).await;
    let expected = format!("{exception}: Failed to import plugin module 'pack': {text}");
    ends_in_the_import("pack/__init__.py", &statement, &expected).await;
}

#[tokio::test]
async fn exit_in_the_import() {
    crash_in_the_import("os._exit(3)", "the worker exited with code 3").await;
}

#[tokio::test]
async fn exit_without_a_word_in_the_import() {
    crash_in_the_import("os._exit(0)", "the worker exited with code 0").await;
}

#[tokio::test]
async fn segfault_in_the_import() {
    crash_in_the_import("ctypes.string_at(0)", "signal 11 (SIGSEGV)").await;
}

#[tokio::test]
async fn abort_in_the_import() {
    crash_in_the_import("os.abort()", "signal 6 (SIGABRT)").await;
}

#[tokio::test]
async fn stack_overflow_in_the_import() {
    let statement = OVERFLOW.replace("\n    ", "\n");
    crash_in_the_import(&statement, "signal 11 (SIGSEGV)").await;
}

#[tokio::test]
async fn keyboard_interrupt_in_the_import() {
    raise_in_the_import("KeyboardInterrupt", "mine").await;
}

#[tokio::test]
async fn system_exit_in_the_import() {
    raise_in_the_import("SystemExit", "0").await;
}

#[tokio::test]
async fn generator_exit_in_the_import() {
    raise_in_the_import("GeneratorExit", "mine").await;
}

/// Ends its process some time after it has returned.
const LATER: &str = "
import ctypes, os, threading, time

def attack(influxdb3_local, args):
    def end():
        if args['how'] == 'segfault':
            ctypes.string_at(0)
        if args['how'] == 'exit':
            os._exit(6)
        os._exit(0)
    threading.Timer(0.5, end).start()
";

/// A death between two runs is in SQL, with what the worker said last.
#[tokio::test]
async fn a_worker_that_dies_between_two_runs_says_why() {
    let arena = Arena::new(LATER).await;
    for (name, expected) in [
        ("segfault", "the worker was ended by signal 11 (SIGSEGV)"),
        ("exit", "the worker exited with code 6"),
        ("leave", "the worker exited with code 0"),
    ] {
        arena.create(name, "30s").await;
        arena.db.write(format!("{name} n=1i 1")).await;
        let text = format!("the plugin's worker ended between two runs: {expected}");
        let rows = arena.db.until_logged(name, 1, &text).await;
        assert_eq!(rows[0].level, "ERROR");
        let stack = rows[0]
            .text
            .contains("Fatal Python error: Segmentation fault");
        assert_eq!(stack, name == "segfault", "{rows:#?}");
        let id = format!(
            "SELECT count(DISTINCT invocation_id) AS n FROM system.processing_engine_logs \
             WHERE trigger_name = '{name}' AND invocation_id NOT LIKE '%schedule'"
        );
        assert_eq!(arena.db.number(&id).await, 1);
        arena.recovers(name).await;
    }
}

/// The worker is killed between its answer and the commit, or shortly before or after.
#[tokio::test]
async fn a_worker_that_is_killed_around_its_answer_counts_every_row_once() {
    const KILLED: &str = "
import os, random, signal, threading, uuid

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            line = LineBuilder('reports').tag('run', uuid.uuid4().hex)
            influxdb3_local.write(line.int64_field('n', row['n']))
    if random.random() < 0.3:
        end = lambda: os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(random.uniform(0, 0.004), end).start()
";
    let builder = server()
        .plugin("killed.py", KILLED)
        // A pause for workers that die too often is not what this is about.
        .allow_log("cannot start a worker", "killed while it was forked");
    let arena = Arena::with(builder, "").await;
    let db = &arena.db;
    db.trigger("killed", "killed.py")
        .spec("table:rows")
        .error_behavior("retry")
        .create()
        .await;
    for n in 1..=12 {
        db.write(format!("rows n={n}i {n}")).await;
        let counted = format!("SELECT count(*) AS n FROM reports WHERE n = {n}");
        outrigger_integration_tests::eventually("the row is counted", async || {
            let reply = db.try_query(&counted).await;
            if reply.status == 200 && reply.json()[0]["n"] == 1 {
                return Ok(());
            }
            // A worker that has died in a pause must not make this slow.
            db.enable("killed").await;
            Err(reply.body)
        })
        .await;
    }
    let all = "SELECT count(*) AS n, count(DISTINCT n) AS d FROM reports";
    assert_eq!(
        db.query(all).await,
        serde_json::json!([{ "n": 12, "d": 12 }])
    );
    arena.others_go_on().await;
}
