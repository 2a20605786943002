//! The client commands, as users type them.

use std::fs;

use serde_json::json;

use crate::{WRITE_REPORTS, server};

const TEMPERATURES: &str = "home,room=hall temp=20 1000000000000000001\n\
                            home,room=kitchen temp=21.5 1000000000000000002\n";

#[tokio::test]
async fn a_database_comes_and_goes() {
    let server = server().start().await;
    let cli = server.command_line();
    cli.check(
        &["create", "database", "foo"],
        "Database \"foo\" created successfully\n",
    );
    let exists = "Create command failed: server responded with error [409 Conflict]: attempted to \
                  create a resource that already exists";
    cli.check_refused(&["create", "database", "foo"], 1, exists);
    cli.check(
        &["show", "databases"],
        "+---------------+\n\
         | iox::database |\n\
         +---------------+\n\
         | _internal     |\n\
         | foo           |\n\
         +---------------+\n",
    );
    cli.check(
        &["show", "databases", "--format", "csv"],
        "iox::database\n_internal\nfoo\n",
    );
    let declined = cli.run_with_input(&["delete", "database", "foo"], Some("no\n"));
    assert_eq!(declined.code, 1, "{declined:?}");
    assert!(
        declined
            .stderr
            .contains("Cannot proceed without confirmation"),
        "{declined:?}"
    );
    let confirmed = cli.run_with_input(&["delete", "database", "foo"], Some("Yes\n"));
    assert_eq!(confirmed.code, 0, "{confirmed:?}");
    assert_eq!(confirmed.stdout, "Database \"foo\" deleted successfully\n");
    cli.check_refused(&["delete", "database", "-y", "foo"], 1, "[404 Not Found]");
}

#[tokio::test]
async fn lines_are_written_from_a_file_an_argument_or_standard_input() {
    let server = server().start().await;
    let cli = server.command_line();
    let file = server.directory().join("lines.lp");
    fs::write(&file, TEMPERATURES).expect("write the lines");
    let path = file.to_str().expect("a plain path");
    cli.check(&["write", "-d", "db", "-f", path], "success\n");
    cli.check(
        &[
            "write",
            "--db",
            "db",
            "-q",
            "home,room=attic temp=18 1000000000000000003",
        ],
        "",
    );
    let input = Some("home,room=cellar temp=15 1000000000000000004");
    let written = cli.run_with_input(&["w", "-d", "db", "--gzip"], input);
    assert_eq!(written.code, 0, "{written:?}");
    let seconds = [
        "write",
        "-d",
        "db",
        "-p",
        "s",
        "home,room=roof temp=9 999999999",
    ];
    cli.check(&seconds, "success\n");

    let rooms = json!(["roof", "hall", "kitchen", "attic", "cellar"]);
    let rooms = rooms.as_array().expect("an array").iter();
    let expected: Vec<_> = rooms.map(|room| json!({ "room": room })).collect();
    let db = server.database("db");
    assert_eq!(
        db.query("SELECT room FROM home ORDER BY time").await,
        json!(expected)
    );
}

#[tokio::test]
async fn rows_are_shown_in_every_format() {
    let server = server().start().await;
    let cli = server.command_line();
    server.database("db").write(TEMPERATURES).await;
    let sql = "SELECT room, temp, time FROM home ORDER BY time";
    cli.check(
        &["query", "-d", "db", sql],
        "+---------+------+-------------------------------+\n\
         | room    | temp | time                          |\n\
         +---------+------+-------------------------------+\n\
         | hall    | 20.0 | 2001-09-09T01:46:40.000000001 |\n\
         | kitchen | 21.5 | 2001-09-09T01:46:40.000000002 |\n\
         +---------+------+-------------------------------+\n",
    );
    cli.check(
        &["q", "-d", "db", "--format", "csv", sql],
        "room,temp,time\n\
         hall,20.0,2001-09-09T01:46:40.000000001\n\
         kitchen,21.5,2001-09-09T01:46:40.000000002\n",
    );
    cli.check(
        &["query", "-d", "db", "--format", "jsonl", sql],
        "{\"room\":\"hall\",\"temp\":20.0,\"time\":\"2001-09-09T01:46:40.000000001\"}\n\
         {\"room\":\"kitchen\",\"temp\":21.5,\"time\":\"2001-09-09T01:46:40.000000002\"}\n",
    );
    cli.check(
        &[
            "query",
            "-d",
            "db",
            "--format",
            "json",
            "SELECT count(*) AS n FROM home",
        ],
        "[{\"n\":2}]\n",
    );
    let output = server.directory().join("out.csv");
    let output_path = output.to_str().expect("a plain path");
    cli.check(
        &[
            "query",
            "-d",
            "db",
            "-o",
            output_path,
            "--format",
            "csv",
            sql,
        ],
        "",
    );
    let saved = fs::read_to_string(&output).expect("the file was made");
    assert!(saved.starts_with("room,temp,time\n"), "{saved}");
    let asked = cli.run_with_input(
        &["query", "-d", "db", "--format", "csv"],
        Some("SELECT 1 AS one"),
    );
    assert_eq!(asked.stdout, "one\n1\n", "{asked:?}");
}

#[tokio::test]
async fn failures_are_told_with_an_exit_code() {
    let server = server().start().await;
    let cli = server.command_line();
    cli.check_refused(
        &["query", "-d", "nosuch", "SELECT 1"],
        1,
        "Query command failed: server responded with error [404 Not Found]: ",
    );
    cli.check_refused(
        &["write", "-d", "db", "no line"],
        1,
        "Write command failed: ",
    );
    cli.check_refused(
        &["query", "-d", "db", "--frobnicate", "x"],
        2,
        "--frobnicate",
    );
    cli.check_refused(&["query", "SELECT 1"], 2, "--database");
    cli.check_refused(&["help"], 2, "help");
    let elsewhere = ["query", "-d", "db", "-H", "http://127.0.0.1:1", "SELECT 1"];
    cli.check_refused(&elsewhere, 1, "could not connect to http://127.0.0.1:1");
}

#[tokio::test]
async fn a_trigger_comes_runs_and_goes() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let cli = server.command_line();
    let db = server.database("db").create().await;
    for (name, path, spec) in [
        ("first", "--path", "all_tables"),
        ("second", "--plugin-filename", "all-tables"),
        ("third", "--path", "table:home"),
    ] {
        let create = ["create", "trigger", "-d", "db", path, "write_reports.py"];
        let create = [&create[..], &["--trigger-spec", spec, name]].concat();
        cli.check(&create, &format!("Trigger {name} created successfully\n"));
    }
    let shown = ["show", "system", "-d", "db", "table", "--format", "csv"];
    let columns = [
        "-s",
        "trigger_name,trigger_specification",
        "-o",
        "trigger_name",
    ];
    cli.check(
        &[&shown[..], &columns, &["processing_engine_triggers"]].concat(),
        "trigger_name,trigger_specification\n\
         first,\"\"\"all_tables_wal_write\"\"\"\n\
         second,\"\"\"all_tables_wal_write\"\"\"\n\
         third,\"{\"\"single_table_wal_write\"\":{\"\"table_name\"\":\"\"home\"\"}}\"\n",
    );
    cli.check(
        &["disable", "trigger", "-d", "db", "second"],
        "Trigger second disabled successfully\n",
    );
    cli.check(
        &["delete", "trigger", "-d", "db", "second"],
        "Trigger second deleted successfully\n",
    );
    let refusal = "Cannot delete running plugin first. Disable it first or use --force.";
    cli.check_refused(&["delete", "trigger", "-d", "db", "first"], 1, refusal);
    cli.check(
        &["delete", "trigger", "-d", "db", "--force", "first"],
        "Trigger first deleted successfully\n",
    );
    cli.check(
        &["disable", "trigger", "-d", "db", "third"],
        "Trigger third disabled successfully\n",
    );
    cli.check(
        &["enable", "trigger", "-d", "db", "third"],
        "Trigger third enabled successfully\n",
    );
    cli.check(&["write", "-d", "db", "home temp=1 1"], "success\n");
    db.until_logged("third", 1, "1 rows written to home").await;
}

#[tokio::test]
async fn bad_triggers_are_refused_before_or_by_the_server() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let cli = server.command_line();
    server.database("db").create().await;
    let create = |path: &'static str, spec: &'static str| {
        [
            "create",
            "trigger",
            "-d",
            "db",
            "--path",
            path,
            "--trigger-spec",
            spec,
            "t",
        ]
    };
    cli.check_refused(&create("write_reports.py", "all_tabels"), 2, "all_tabels");
    cli.check_refused(
        &create("write_reports.py", "table:"),
        2,
        "table name is empty",
    );
    let missing = cli.run(&create("missing.py", "all_tables"));
    assert_eq!(missing.code, 1, "{missing:?}");
    let lines: Vec<&str> = missing.stderr.lines().collect();
    let [first, second] = lines[..] else {
        panic!("{missing:?}")
    };
    let reason = first.strip_prefix("Failed to create trigger: ");
    assert_eq!(reason, second.strip_prefix("Create command failed: "));
    assert!(
        reason.is_some_and(|reason| reason.contains("Plugin not found: ")),
        "{missing:?}"
    );
    let without = [
        "create",
        "trigger",
        "-d",
        "db",
        "--trigger-spec",
        "all_tables",
        "t",
    ];
    let refusal = "Either --path or --plugin-filename must be provided";
    cli.check_refused(&without, 1, refusal);
}

#[tokio::test]
async fn system_tables_are_listed_and_shown() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let cli = server.command_line();
    let db = server.database("db").create().await;
    db.trigger("t", "write_reports.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 2, "finished").await;

    let tables = cli.success(&["show", "system", "-d", "db", "table-list"]);
    for part in [
        "table_name",
        "column_names",
        "processing_engine_logs",
        "event_time",
    ] {
        assert!(tables.contains(part), "{part} in:\n{tables}");
    }
    let table = ["show", "s", "-d", "db", "table"];
    let logs = cli.success(&[&table[..], &["processing_engine_logs", "-l", "1"]].concat());
    assert!(logs.contains("starting execution of wal plugin."), "{logs}");
    assert_eq!(logs.lines().count(), 5, "a table of one row:\n{logs}");
    let summary = cli.success(&["show", "system", "-d", "db", "summary"]);
    for part in [
        "processing_engine_logs summary:",
        "processing_engine_triggers summary:",
        "plugin_invocations summary:",
    ] {
        assert!(summary.contains(part), "{part} in:\n{summary}");
    }
    let unknown = [&table[..], &["nosuch"]].concat();
    let refusal = "system table 'nosuch' not found: please use a valid system table name: [";
    cli.check_refused(&unknown, 1, refusal);
}
