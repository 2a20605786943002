//! When a trigger fires and when it does not.

use reqwest::Method;
use serde_json::json;

use crate::{WRITE_REPORTS, server};

const TRIGGER: &str = "/api/v3/configure/processing_engine_trigger";

/// Reports every call: the tables it got.
const CALLS: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    tables = ' '.join(batch['table_name'] for batch in table_batches)
    influxdb3_local.info(f'called for [{tables}]')
";

const TOTAL: &str = "SELECT sum(row_count) AS total FROM write_reports";

#[tokio::test]
async fn a_table_trigger_is_called_for_its_table_only() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "calls.py").spec("table:a").create().await;
    db.write("a f=1 1\nb f=1 1").await;
    db.until_logged("t", 1, "called for [a]").await;
    db.write("b f=1 2").await;
    db.write("a f=1 3").await;
    db.until_logged("t", 2, "called for [a]").await;
    let calls = db.until_logged("t", 2, "called for").await;
    assert!(
        calls.iter().all(|row| row.text == "called for [a]"),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_trigger_sees_only_its_own_database() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    let other = server.database("other").create().await;
    db.trigger("mine", "calls.py").create().await;
    other.trigger("theirs", "calls.py").create().await;
    other.write("x f=1 1").await;
    other.until_logged("theirs", 1, "called for [x]").await;
    db.write("y f=1 1").await;
    let calls = db.until_logged("mine", 1, "called for").await;
    assert_eq!(calls[0].text, "called for [y]");
}

#[tokio::test]
async fn a_plugin_that_skips_its_own_table_comes_to_rest() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py").create().await;
    for write in 1..=3 {
        db.write(format!("m f=1 {write}")).await;
        // Once for the row, and once for the report.
        db.until_logged("reports", 2 * write, "finished execution")
            .await;
    }
    db.until(TOTAL, json!([{ "total": 3 }])).await;
}

#[tokio::test]
async fn a_disabled_trigger_waits_and_starts_where_it_is_enabled() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .plugin("calls.py", CALLS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py")
        .spec("table:m")
        .disabled()
        .create()
        .await;
    db.trigger("witness", "calls.py")
        .spec("table:m")
        .create()
        .await;
    db.write("m f=1 1\nm f=1 2").await;
    db.until_logged("witness", 1, "called for").await;

    db.enable("reports").await;
    db.enable("reports").await;
    db.write("m f=1 3\nm f=1 4\nm f=1 5").await;
    db.until(TOTAL, json!([{ "total": 3 }])).await;

    db.disable("reports").await;
    db.write("m f=1 6").await;
    db.until_logged("witness", 3, "called for").await;
    db.enable("reports").await;
    db.write("m f=1 7\nm f=1 8").await;
    db.until(TOTAL, json!([{ "total": 5 }])).await;
    assert_eq!(db.until_logged("reports", 2, "finished").await.len(), 2);
}

#[tokio::test]
async fn a_running_trigger_is_deleted_by_force_only() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "calls.py").create().await;
    let refusal = "Cannot delete running plugin t. Disable it first or use --force.";
    db.delete_trigger("t", false)
        .await
        .check_refused(409, refusal);
    db.delete_trigger("t", true)
        .await
        .check_success("delete by force");
    db.delete_trigger("t", true).await.check_refused(404, "t");

    db.trigger("u", "calls.py").create().await;
    db.disable("u").await;
    db.delete_trigger("u", false)
        .await
        .check_success("delete a disabled one");
    let sql = "SELECT trigger_name FROM system.processing_engine_triggers";
    assert_eq!(db.query(sql).await, json!([]));
}

#[tokio::test]
async fn triggers_are_shown_with_their_settings() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("all", "calls.py")
        .error_behavior("retry")
        .create()
        .await;
    db.trigger("one", "calls.py")
        .spec("table:m")
        .argument("key", "value")
        .disabled()
        .create()
        .await;
    let sql = "SELECT * FROM system.processing_engine_triggers ORDER BY trigger_name";
    let expected = json!([
        {
            "trigger_name": "all",
            "plugin_filename": "calls.py",
            "trigger_specification": "\"all_tables_wal_write\"",
            "disabled": false,
            "error_behavior": "retry",
        },
        {
            "trigger_name": "one",
            "plugin_filename": "calls.py",
            "trigger_specification": r#"{"single_table_wal_write":{"table_name":"m"}}"#,
            "disabled": true,
            "error_behavior": "log",
        },
    ]);
    assert_eq!(db.query(sql).await, expected);
    let sql = "SELECT * FROM system.processing_engine_trigger_arguments";
    let expected = json!([
        { "trigger_name": "one", "argument_key": "key", "argument_value": "value" },
    ]);
    assert_eq!(db.query(sql).await, expected);
}

#[tokio::test]
async fn an_edited_plugin_takes_effect_with_the_next_batch() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "calls.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "finished").await;
    server.write_plugin("calls.py", &CALLS.replace("called for", "edited for"));
    db.write("m f=1 2").await;
    db.until_logged("t", 1, "edited for [m]").await;
    db.until_logged("t", 1, "called for [m]").await;
}

#[tokio::test]
async fn a_syntax_error_is_reported_and_can_be_mended() {
    let broken = "def process_writes(influxdb3_local, table_batches\n    pass\n";
    let server = server().plugin("p.py", broken).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    db.write("m f=1 1").await;
    let rows = db.until_logged("t", 1, "SyntaxError").await;
    assert_eq!(rows[0].level, "ERROR");
    let text = &rows[0].text;
    assert!(
        text.starts_with("error executing wal plugin: SyntaxError: "),
        "{text}"
    );
    assert!(text.contains("p.py\", line 1"), "{text}");
    server.write_plugin("p.py", CALLS);
    db.write("m f=1 2").await;
    db.until_logged("t", 1, "called for [m]").await;
}

#[tokio::test]
async fn a_plugin_without_the_function_says_which_is_missing() {
    let server = server()
        .plugin("p.py", "def process_request(): pass\n")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    db.write("m f=1 1").await;
    let expected = "the process_writes function is not present in the plugin. Should be defined \
                    as: process_writes(influxdb3_local, table_batches, args=None)";
    let logged = db.until_logged("t", 1, expected).await;
    assert_eq!(
        logged[0].text,
        format!("error executing wal plugin: {expected}"),
        "no word of how we noticed"
    );
}

#[tokio::test]
async fn mistakes_about_triggers_are_the_clients() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "calls.py").create().await;
    let running = db.delete_trigger("t", false).await;
    let text = "Cannot delete running plugin t. Disable it first or use --force.";
    running.check_refused(409, text);
    db.delete_trigger("nosuch", true)
        .await
        .check_refused(404, "trigger not found: \"nosuch\" in database \"db\"");
    let nowhere = server.database("nosuch");
    for force in [false, true] {
        nowhere
            .delete_trigger("t", force)
            .await
            .check_refused(404, "database not found: nosuch");
    }
    let client = server.client();
    for position in ["enable", "disable"] {
        for (database, trigger, what) in [
            ("nosuch", "t", "database not found: nosuch"),
            ("db", "nosuch", "trigger not found: \"nosuch\""),
            ("_internal", "t", "trigger not found: \"t\""),
        ] {
            let path = format!("{TRIGGER}/{position}?db={database}&trigger_name={trigger}");
            client
                .call(Method::POST, &path)
                .await
                .check_refused(404, what);
        }
    }
    // A name is taken in its own database only, and free again once it is deleted.
    let other = server.database("other").create().await;
    other.trigger("t", "calls.py").create().await;
    db.trigger("t", "calls.py")
        .try_create()
        .await
        .check_refused(409, "attempted to create a resource that already exists");
    let body = json!({ "db": "db", "trigger_name": "t", "force": true });
    let delete = client.request(Method::DELETE, TRIGGER).json(&body);
    client.answer(delete).await.check_success("delete by JSON");
    db.trigger("t", "calls.py").create().await;
}

#[tokio::test]
async fn the_servers_own_database_cannot_be_changed() {
    let server = server().plugin("calls.py", CALLS).start().await;
    let internal = server.database("_internal");
    let belongs = "the database _internal belongs to the server";
    let client = server.client();
    let database = "/api/v3/configure/database";
    let create = client.post(database, &json!({ "db": "_internal" })).await;
    create.check_refused(400, belongs);
    let path = format!("{database}?db=_internal");
    let delete = client.call(Method::DELETE, &path).await;
    delete.check_refused(400, belongs);
    let write = internal.write_with(&[], "m f=1 1").await;
    write.check_refused(400, belongs);
    let trigger = internal.trigger("t", "calls.py").try_create().await;
    trigger.check_refused(400, belongs);
    let path = format!("{database}?format=json");
    let listed = client.call(Method::GET, &path).await;
    assert_eq!(listed.json(), json!([{ "iox::database": "_internal" }]));
    let logs = "SELECT count(*) AS n FROM system.processing_engine_logs";
    assert_eq!(internal.number(logs).await, 0);
}

#[tokio::test]
async fn a_server_can_be_restricted_to_some_kinds_of_triggers() {
    let server = server()
        .plugin("calls.py", CALLS)
        .flag("--restrict-plugin-triggers-to", "wal_flush,schedule")
        .start()
        .await;
    let db = server.database("db").create().await;
    let request = db.trigger("r", "missing.py").spec("request:r");
    request.try_create().await.check_refused(
        400,
        "invalid request: server is configured to reject Request plugin triggers",
    );
    db.trigger("w", "calls.py").create().await;
    db.trigger("s", "calls.py").spec("every:1h").create().await;
    db.write("m f=1 1").await;
    db.until_logged("w", 1, "called for [m]").await;
}

#[tokio::test]
async fn kinds_that_are_not_allowed_are_named() {
    let server = server()
        .plugin("calls.py", CALLS)
        .variable("INFLUXDB3_RESTRICT_PLUGIN_TRIGGERS_TO", "request")
        .start()
        .await;
    let db = server.database("db").create().await;
    for (spec, kind) in [
        ("all_tables", "WalRows"),
        ("table:m", "WalRows"),
        ("every:1h", "Schedule"),
        ("cron:@daily", "Schedule"),
    ] {
        let refused = db.trigger("t", "calls.py").spec(spec).try_create().await;
        let text = format!("server is configured to reject {kind} plugin triggers");
        refused.check_refused(400, &text);
    }
    db.trigger("t", "calls.py").spec("request:t").create().await;
}
