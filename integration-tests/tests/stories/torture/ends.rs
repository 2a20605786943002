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
const OVERFLOW: &str = "deep = []
    for _ in range(2_000_000): deep = [deep]
    sys.setrecursionlimit(2**31 - 1)
    repr(deep)";

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

/// Several plugins that cannot be imported, on one server; then each is mended.
#[tokio::test]
async fn every_end_in_the_import() {
    let overflow = OVERFLOW.replace("\n    ", "\n");
    let cases = [
        ("overflow", overflow.as_str(), "signal 11 (SIGSEGV)"),
        ("exit", "os._exit(3)", "the worker exited with code 3"),
        ("segfault", "ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("abort", "os.abort()", "signal 6 (SIGABRT)"),
        (
            "interrupt",
            "raise KeyboardInterrupt('mine')",
            "KeyboardInterrupt: mine",
        ),
        ("leave", "sys.exit(0)", "SystemExit: 0"),
        (
            "generator",
            "raise GeneratorExit('mine')",
            "GeneratorExit: mine",
        ),
    ];
    let mut builder = server();
    for (name, statement, _) in cases {
        let source = format!("import ctypes, os, sys\n{statement}\n");
        builder = builder.plugin(&format!("{name}.py"), &source);
    }
    let arena = Arena::with(builder, "").await;
    for (name, _, expected) in cases {
        arena
            .db
            .trigger(name, &format!("{name}.py"))
            .spec(&format!("table:{name}"))
            .create()
            .await;
        arena.suffers(name, expected).await;
    }
    for (name, ..) in cases {
        arena.server.write_plugin(&format!("{name}.py"), WITNESS);
        arena.db.write(format!("{name} n=7i 7")).await;
        arena.db.until_logged(name, 1, "witnessed 7").await;
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
