//! Starting and stopping: what the server insists on, and what it says.

use std::fs;

use outrigger_integration_tests::CommandLine;
use reqwest::Method;

use crate::{BINARY, WRITE_REPORTS, server};

#[tokio::test]
async fn without_authentication_it_must_be_told_so() {
    let failure = server().without("--without-auth").start_refused().await;
    failure.check(1, "--without-auth");
}

#[tokio::test]
async fn what_plugins_could_exchange_or_must_not_reach_is_not_granted() {
    for (granted, text) in [
        ("rw:/a,ro:/a/b", "grants ro:/a/b, which lies in rw:/a:"),
        ("rw:DIR/plugins/..", "without `..`"),
        ("ro:DIR/data", "which holds the server's data"),
        ("rw:DIR/data/node/inner", "lies in the server's data"),
        ("rw:DIR", "which holds the server's data"),
        ("rw:/tmp", "--plugin-paths grants rw:/tmp, which holds"),
    ] {
        let builder = server();
        let directory = builder.directory().display().to_string();
        let builder = builder.flag("--plugin-paths", &granted.replace("DIR", &directory));
        let failure = builder.start_refused().await;
        failure.check(if text.contains("without") { 2 } else { 1 }, text);
    }
}

#[test]
fn unknown_flags_and_missing_names_are_usage_errors() {
    let directory = tempfile::tempdir().expect("a directory");
    let command_line = CommandLine::without_server(BINARY, directory.path());
    command_line.check_refused(&["serve", "--frobnicate"], 2, "--frobnicate");
    command_line.check_refused(&["serve", "--without-auth"], 1, "--node-id");
    command_line.check_refused(&["frobnicate"], 2, "frobnicate");
    let store = ["serve", "--node-id", "n", "--object-store", "floppy"];
    command_line.check_refused(&store, 2, "floppy");
    let help = command_line.success(&["serve", "--help"]);
    for flag in [
        "--node-id",
        "--object-store",
        "--data-dir",
        "--http-bind",
        "--plugin-dir",
        "--virtual-env-location",
        "--wal-flush-interval",
        "--without-auth",
        "--tcp-listener-file-path",
        "--log-filter",
        "--log-format",
    ] {
        assert!(help.contains(flag), "{flag} is missing in:\n{help}");
    }
}

#[tokio::test]
async fn flags_can_be_given_as_environment_variables() {
    let mut builder = server().plugin("write_reports.py", WRITE_REPORTS);
    let path = |name: &str| builder.directory().join(name).display().to_string();
    let (data, plugins, address) = (path("data"), path("plugins"), path("address"));
    for (flag, variable, value) in [
        ("--node-id", "INFLUXDB3_NODE_IDENTIFIER_PREFIX", "variable"),
        ("--object-store", "INFLUXDB3_OBJECT_STORE", "file"),
        ("--data-dir", "INFLUXDB3_DB_DIR", &data),
        ("--http-bind", "INFLUXDB3_HTTP_BIND_ADDR", "127.0.0.1:0"),
        ("--plugin-dir", "INFLUXDB3_PLUGIN_DIR", &plugins),
        (
            "--wal-flush-interval",
            "INFLUXDB3_WAL_FLUSH_INTERVAL",
            "20ms",
        ),
        ("--without-auth", "INFLUXDB3_START_WITHOUT_AUTH", "true"),
        (
            "--tcp-listener-file-path",
            "INFLUXDB3_TCP_LISTINER_FILE_PATH",
            &address,
        ),
        (
            "--trigger-concurrency",
            "INFLUXDB3_TRIGGER_CONCURRENCY",
            "3",
        ),
        ("--plugin-timeout", "INFLUXDB3_PLUGIN_TIMEOUT", "1m"),
        ("--plugin-workers", "INFLUXDB3_PLUGIN_WORKERS", "4"),
        (
            "--plugin-spare-workers",
            "INFLUXDB3_PLUGIN_SPARE_WORKERS",
            "1",
        ),
        (
            "--plugin-idle-timeout",
            "INFLUXDB3_PLUGIN_IDLE_TIMEOUT",
            "1m",
        ),
        (
            "--plugin-max-invocations",
            "INFLUXDB3_PLUGIN_MAX_INVOCATIONS",
            "9",
        ),
        ("--plugin-max-age", "INFLUXDB3_PLUGIN_MAX_AGE", "1h"),
        ("--plugin-max-memory", "INFLUXDB3_PLUGIN_MAX_MEMORY", "1gb"),
        ("--log-filter", "INFLUXDB3_LOG_FILTER", "info"),
        ("--log-format", "INFLUXDB3_LOG_FORMAT", "json"),
    ] {
        builder = builder.without(flag).variable(variable, value);
    }
    let server = builder.start().await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("reports", 1, "1 rows written to m").await;
    assert!(server.data_directory().join("variable/log").is_dir());
}

#[tokio::test]
async fn it_says_who_it_is_and_that_it_is_well() {
    let server = server().start().await;
    let client = server.client();
    for path in ["/health", "/api/v1/health"] {
        let reply = client.call(Method::GET, path).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK"), "{path}");
    }
    let ping = client.call(Method::GET, "/ping").await;
    assert_eq!(ping.status, 200);
    assert!(ping.json()["version"].is_string(), "{ping:?}");
    assert!(server.has_logged("startup time:"), "installers look for it");
}

#[tokio::test]
async fn a_plain_log_has_levels_too() {
    let failure = server()
        .flag("--log-format", "full")
        .without("--without-auth")
        .start_refused()
        .await;
    assert!(!failure.output.contains("panicked"), "{failure:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let first = server().start().await;
    let address = first.client().address().to_string();
    let failure = server().flag("--http-bind", &address).start_refused().await;
    failure.check(1, &address);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let builder = server();
    let file = builder.directory().join("file");
    fs::write(&file, "not a directory").expect("write a file");
    let data = file.join("data");
    let failure = builder.data_directory(&data).start_refused().await;
    failure.check(1, &data.display().to_string());
}

#[tokio::test]
async fn without_a_plugin_directory_all_but_plugins_works() {
    let server = server().without("--plugin-dir").start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    let refused = db.trigger("t", "p.py").try_create().await;
    refused.check_refused(400, "Node not configured with plugin directory");
}

#[tokio::test]
async fn workers_leave_when_the_server_asks_them_to_and_need_not_be_killed() {
    let mut server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .flag("--log-filter", "info,outrigger_supervisor=debug")
        .start()
        .await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("reports", "write_reports.py").spec("table:m");
    trigger.create().await;
    db.write("m f=1 1").await;
    db.until_logged("reports", 1, "finished execution").await;
    server.stop();
    assert!(
        server.has_logged("worker ended"),
        "the supervisor says when one does"
    );
    assert!(!server.has_logged("killing it"));
}
