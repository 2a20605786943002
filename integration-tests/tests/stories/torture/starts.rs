//! Workers that never say hello.

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

#[tokio::test]
async fn a_worker_that_hangs_before_its_hello_is_replaced() {
    drop(server().start().await);
    let builder = server()
        .own_virtual_environment()
        .plugin("late.py", WITNESS)
        .flag("--plugin-spare-workers", "0")
        .allow_log("cannot start a worker", "it hangs on purpose");
    let flag = builder.directory().join("hang");
    let path = site_packages(&builder.directory().join("venv")).join("sitecustomize.py");
    let source = format!("FLAG = {flag:?}\n{HANGS_AFTER_FORK}");
    std::fs::write(path, source).expect("write into the environment");
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
            .any(|row| row.text.contains("the worker did not connect within 30s"));
        found.then_some(()).ok_or(format!("{logs:#?}"))
    })
    .await;
    std::fs::remove_file(&flag).expect("remove the flag");
    db.until_logged("t", 1, "witnessed 1").await;
}
