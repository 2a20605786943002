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

/// Several plugins that cannot be imported, on one server; then each is mended. `file` is where
/// the source of a plugin is, and `said` what comes before what an import raised.
async fn ends_in_the_import(file: fn(&str) -> String, said: fn(&str) -> String) {
    let overflow = OVERFLOW.replace("\n    ", "\n");
    let crashes = [
        ("overflow", overflow.as_str(), "signal 11 (SIGSEGV)"),
        ("exit", "os._exit(3)", "the worker exited with code 3"),
        ("leave", "os._exit(0)", "the worker exited with code 0"),
        ("segfault", "ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("abort", "os.abort()", "signal 6 (SIGABRT)"),
    ];
    let raised = [
        ("interrupt", "KeyboardInterrupt", "mine"),
        ("quit", "SystemExit", "0"),
        ("generator", "GeneratorExit", "mine"),
    ];
    let crashes = crashes
        .map(|(name, statement, expected)| (name, statement.to_owned(), expected.to_owned()));
    let raised = raised.map(|(name, exception, text)| {
        let expected = format!("{exception}: {}{text}", said(name));
        (name, format!("raise {exception}('{text}')"), expected)
    });
    let cases: Vec<_> = crashes.into_iter().chain(raised).collect();
    let mut builder = server();
    for (name, statement, _) in &cases {
        let source = format!("import ctypes, os, sys\n{statement}\n");
        builder = builder.plugin(&file(name), &source);
    }
    let arena = Arena::with(builder, "").await;
    for (name, _, expected) in &cases {
        let plugin = file(name);
        arena
            .db
            .trigger(name, plugin.trim_end_matches("/__init__.py"))
            .spec(&format!("table:{name}"))
            .create()
            .await;
        arena.suffers(name, expected).await;
    }
    for (name, ..) in &cases {
        arena.server.write_plugin(&file(name), WITNESS);
        arena.db.write(format!("{name} n=7i 7")).await;
        arena.db.until_logged(name, 1, "witnessed 7").await;
    }
}

#[tokio::test]
async fn every_end_in_the_import() {
    ends_in_the_import(|name| format!("{name}.py"), |_| String::new()).await;
}

#[tokio::test]
async fn every_end_in_the_import_of_a_package() {
    let said = |name: &str| format!("Failed to import plugin module 'a_{name}': ");
    ends_in_the_import(|name| format!("a_{name}/__init__.py"), said).await;
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
