//! The virtual environment: made at the first start, or a clear error.

use std::fs;

use crate::{WRITE_REPORTS, server};

#[tokio::test]
async fn the_first_start_makes_the_environment_and_shows_its_progress() {
    let builder = server().plugin("write_reports.py", WRITE_REPORTS);
    let location = builder.directory().join("venv");
    let mut server = builder.virtual_environment(&location).start().await;
    assert!(server.has_logged("making the virtual environment"));
    assert!(server.has_logged("installing the plugin host"));
    assert!(
        server.has_logged("Successfully installed"),
        "pip's lines are shown"
    );
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py")
        .spec("table:m")
        .create()
        .await;
    db.write("m f=1 1").await;
    db.until_logged("reports", 1, "finished execution").await;

    server.stop();
    fs::remove_file(server.directory().join("stdout.log")).expect("forget the first start");
    server.restart().await;
    assert!(
        !server.has_logged("installing the plugin host"),
        "it is installed"
    );
}

/// As a server leaves it that was ended while it made the environment.
#[tokio::test]
async fn a_half_made_environment_is_made_again() {
    let builder = server();
    let location = builder.directory().join("venv");
    fs::create_dir_all(location.join("bin")).expect("make half of it");
    std::os::unix::fs::symlink("/usr/bin/python3", location.join("bin/python3"))
        .expect("make the other half");
    fs::write(location.join(".outrigger-unfinished"), "").expect("say that it is not whole");
    let mut server = builder.virtual_environment(&location).start().await;
    assert!(server.has_logged("a start was ended while it made the virtual environment"));
    assert!(server.has_logged("Successfully installed"));
    server.stop();
    server.restart().await;
    assert_eq!(server.count_logged("making the virtual environment"), 1);
}

#[tokio::test]
async fn a_failed_installation_is_a_clear_error() {
    let builder = server();
    let location = builder.directory().join("venv");
    let failure = builder
        .virtual_environment(&location)
        .variable("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
        .without_variable("PIP_FIND_LINKS")
        .without_variable("PIP_EXTRA_INDEX_URL")
        .variable("PIP_NO_CACHE_DIR", "1")
        .start_refused()
        .await;
    failure.check(1, "installing the plugin host with pip failed");
    failure.check(1, "No matching distribution found");
}

#[tokio::test]
async fn a_machine_without_python_is_a_clear_error() {
    let builder = server();
    let location = builder.directory().join("venv");
    let nowhere = builder.directory().join("nowhere");
    let failure = builder
        .virtual_environment(&location)
        .variable("PATH", &nowhere.display().to_string())
        .start_refused()
        .await;
    failure.check(1, "python3");
}
