//! Is a copy of the stored data, made as `docs/operations.md` says, all that it takes to go on?

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use outrigger_integration_tests::{Server, eventually};
use tempfile::TempDir;

use crate::server;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/backup.sh");

/// Snapshots are made and files are joined all the while, every other second.
fn busy() -> outrigger_integration_tests::Builder {
    server()
        .flag("--wal-snapshot-size", "150")
        .flag("--snapshotted-wal-files-to-keep", "3")
        .flag("--gen1-duration", "1m")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a story uses programs as an operator does"
)]
async fn back_up(node: PathBuf, target: PathBuf) {
    let run = move || {
        let script = Command::new(SCRIPT).arg(node).arg(target).output();
        let output = script.expect("the script can be started");
        assert!(output.status.success(), "{output:?}");
    };
    tokio::task::spawn_blocking(run).await.expect("it succeeds");
}

/// A server on the copy has the points 0, 1, 2, … up to some point, at least so many, and works.
async fn check_restored(copies: &Path, at_least: i64) -> i64 {
    let restored = busy().data_directory(copies).start().await;
    let db = restored.database("db");
    let count = db.number("SELECT count(*) AS n FROM m").await;
    let last = db.number("SELECT max(i) AS n FROM m").await;
    assert!(count >= at_least, "{count} points of {at_least}");
    assert_eq!(last, count - 1, "something in between is missing");
    db.write("n f=1 1").await;
    count
}

async fn write(server: &Server, number: i64) {
    let time = number * 1_000_000_000;
    let line = format!("m,t=t{} i={number}i {time}", number % 3);
    server.database("db").write(line).await;
}

#[tokio::test]
async fn a_copy_of_a_running_server_has_all_that_was_acknowledged_before() {
    let copies = TempDir::new().expect("a directory");
    let mut running = busy().start().await;
    running.database("db").create().await;
    let (acknowledged, ends) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (node, copy) = (
        running.data_directory().join("node"),
        copies.path().join("node"),
    );
    let writing = async {
        while !ends.load(Ordering::Relaxed) {
            let number = acknowledged.load(Ordering::Relaxed);
            write(&running, number).await;
            acknowledged.store(number + 1, Ordering::Relaxed);
        }
    };
    let copying = async {
        eventually("a snapshot is made", async || {
            match running.count_logged("made a snapshot") {
                0 | 1 => Err("none yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        let before = acknowledged.load(Ordering::Relaxed);
        back_up(node.clone(), copy.clone()).await;
        ends.store(true, Ordering::Relaxed);
        before
    };
    let ((), before) = tokio::join!(writing, copying);
    check_restored(copies.path(), before).await;

    // Of a server that has ended, a copy has everything. Here another server has gone on with it.
    running.stop();
    let all = acknowledged.load(Ordering::Relaxed);
    let copies = TempDir::new().expect("a directory");
    back_up(node, copies.path().join("node")).await;
    assert_eq!(check_restored(copies.path(), all).await, all);
}

/// What the server removes while the script looks at it was not needed any more.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a story uses programs as an operator does"
)]
fn what_goes_between_two_looks_is_no_error() {
    let directory = TempDir::new().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let entry = at("node/log/00000000000000000001.entry");
    for made in ["node/log", "programs"] {
        fs::create_dir_all(at(made)).expect("a directory");
    }
    fs::write(&entry, "covered").expect("a file");
    // As if it went just now: it could not be copied, and is gone once it has been compared.
    let goes = format!("#!/bin/sh\nrm -f '{}'\nexit 1\n", entry.display());
    for (program, text) in [("cp", "#!/bin/sh\nexit 1\n"), ("cmp", goes.as_str())] {
        let path = at("programs").join(program);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
    }
    let path = format!("{}:/usr/bin:/bin", at("programs").display());
    let script = Command::new(SCRIPT)
        .args([at("node"), at("copies")])
        .env("PATH", path)
        .output()
        .expect("the script can be started");
    assert!(script.status.success(), "{script:?}");
    assert!(!entry.exists());
}
