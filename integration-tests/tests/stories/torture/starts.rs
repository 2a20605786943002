//! Workers that never say hello, or a wrong one, and hosts that cannot fork.

use outrigger_integration_tests::eventually;

use super::{Arena, WITNESS};
use crate::server;

/// Part of a virtual environment: every fork hangs while there is a file.
const HANGS_AFTER_FORK: &str = "
import os, time

def hang():
    while os.path.exists(FLAG):
        time.sleep(0.05)

os.register_at_fork(after_in_child=hang)
";

/// Where modules of a virtual environment lie.
fn site_packages(venv: &std::path::Path) -> std::path::PathBuf {
    let lib = std::fs::read_dir(venv.join("lib")).expect("it has been made");
    let python = lib.flatten().find(|entry| entry.file_name() != "lib64");
    python.expect("a Python").path().join("site-packages")
}

/// Has Python run this in the environment whenever it starts. Not as `sitecustomize`, because some
/// distributions have their own.
fn customize(venv: &std::path::Path, source: &str) {
    let packages = site_packages(venv);
    for (name, text) in [
        ("for_this_story.py", source),
        ("for_this_story.pth", "import for_this_story\n"),
    ] {
        std::fs::write(packages.join(name), text).expect("write into the environment");
    }
}

/// A server with an environment of its own, in which this runs whenever Python starts.
async fn customized(source: &str) -> outrigger_integration_tests::Builder {
    drop(server().start().await);
    let builder = server()
        .own_virtual_environment()
        .plugin("late.py", WITNESS)
        .flag("--plugin-spare-workers", "0");
    let venv = builder.directory().join("venv");
    let flag = builder.directory().join("venv/flag");
    let source = format!("FLAG = '{}'\n{source}", flag.display());
    customize(&venv, &source);
    builder
}

/// As long as there is a file, every worker pretends to be another process.
const PRETENDS: &str = "
import os

def pretend():
    if not os.path.exists(FLAG):
        return
    from outrigger_plugin_host import _worker
    real = _worker._hello
    def hello(token):
        said = real(token)
        said.pid = 1
        return said
    _worker._hello = hello

os.register_at_fork(after_in_child=pretend)
";

#[tokio::test]
async fn a_worker_that_says_another_number_than_its_own_is_refused() {
    let builder = customized(PRETENDS)
        .await
        .allow_log("cannot start a worker", "it pretends on purpose");
    let flag = builder.directory().join("venv/flag");
    let arena = Arena::with(builder, "").await;
    std::fs::write(&flag, "").expect("write the flag");
    let db = &arena.db;
    db.trigger("t", "late.py").spec("table:t").create().await;
    db.write("t n=1i 1").await;
    eventually("the reason is logged", async || {
        arena.others_go_on().await;
        let logs = db.logs("t").await;
        let found = logs.iter().any(|row| {
            row.text
                .contains("was expected, but 1 said hello from process")
        });
        found.then_some(()).ok_or(format!("{logs:#?}"))
    })
    .await;
    std::fs::remove_file(&flag).expect("remove the flag");
    db.until_logged("t", 1, "witnessed 1").await;
}

/// A library of the environment starts a thread in the host.
const STARTS_A_THREAD: &str = "
import sys, threading, time

if sys.orig_argv[-1] == 'host':
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
";

#[tokio::test]
async fn a_host_with_a_second_thread_starts_fresh_interpreters_and_says_so() {
    let reason = "the environment starts a thread";
    let builder = customized(STARTS_A_THREAD)
        .await
        .allow_log("2 threads in the host", reason);
    let arena = Arena::with(builder, "").await;
    let text = "is started without a fork, which is slower";
    assert!(arena.server.has_logged(text));
    arena.others_go_on().await;
}

#[tokio::test]
async fn a_worker_that_hangs_before_its_hello_is_replaced() {
    drop(server().start().await);
    let builder = server()
        .own_virtual_environment()
        .plugin("late.py", WITNESS)
        .flag("--plugin-spare-workers", "0")
        .allow_log("cannot start a worker", "it hangs on purpose");
    let flag = builder.directory().join("venv/hang");
    let source = format!("FLAG = {flag:?}\n{HANGS_AFTER_FORK}");
    customize(&builder.directory().join("venv"), &source);
    let arena = Arena::with(builder, "").await;
    std::fs::write(&flag, "").expect("write the flag");
    let db = &arena.db;
    db.trigger("t", "late.py").spec("table:t").create().await;
    db.write("t n=1i 1").await;
    eventually("the reason is logged", async || {
        arena.others_go_on().await;
        let logs = db.logs("t").await;
        let found = logs
            .iter()
            .any(|row| row.text.contains("the worker was not ready within 30s"));
        found.then_some(()).ok_or(format!("{logs:#?}"))
    })
    .await;
    std::fs::remove_file(&flag).expect("remove the flag");
    db.until_logged("t", 1, "witnessed 1").await;
}
