//! Plugins of several files.

use serde_json::json;

use crate::server;

const INIT: &str = "
from .helper import scale
from pack.sibling import NAME

calls = 0

def process_writes(influxdb3_local, table_batches, args=None):
    global calls
    calls += 1
    for batch in table_batches:
        if batch['table_name'] == 'm':
            for row in batch['rows']:
                line = LineBuilder(NAME).int64_field('value', scale(row['n']))
                influxdb3_local.write(line.int64_field('calls', calls))
";

#[tokio::test]
async fn a_package_is_imported_once_and_anew_when_it_changes() {
    let server = server()
        .plugin("pack/__init__.py", INIT)
        .plugin("pack/helper.py", "def scale(n):\n    return n * 10\n")
        .plugin("pack/sibling.py", "NAME = 'scaled'\n")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "pack").spec("table:m").create().await;
    db.write("m n=1i 1").await;
    let rows = "SELECT value, calls FROM scaled ORDER BY time";
    db.until(rows, json!([{ "value": 10, "calls": 1 }])).await;
    db.write("m n=2i 2").await;
    let kept = json!([{ "value": 10, "calls": 1 }, { "value": 20, "calls": 2 }]);
    db.until(rows, kept).await;

    server.write_plugin("pack/helper.py", "def scale(n):\n    return n * 100\n");
    db.write("m n=3i 3").await;
    let last = "SELECT value, calls FROM scaled ORDER BY time DESC LIMIT 1";
    db.until(last, json!([{ "value": 300, "calls": 1 }])).await;

    // What no longer imports leaves the last good version running.
    server.write_plugin("pack/helper.py", "def scale(n:\n");
    db.write("m n=4i 4").await;
    // In the same process, which has kept what it had.
    db.until(last, json!([{ "value": 400, "calls": 2 }])).await;
    db.until_logged("t", 1, "the last version that loads goes on running")
        .await;
}

#[tokio::test]
async fn a_directory_without_init_is_refused() {
    let server = server().plugin("pack/helper.py", "").start().await;
    let db = server.database("db").create().await;
    let refused = db.trigger("t", "pack").try_create().await;
    refused.check_refused(400, "Multi-file plugin directory must contain __init__.py");
}

#[tokio::test]
async fn a_directory_that_cannot_be_imported_is_refused() {
    let server = server().plugin("my.pack/__init__.py", "").start().await;
    let db = server.database("db").create().await;
    let text = "because of the dot in its name: rename it";
    let refused = db.trigger("t", "my.pack").try_create().await;
    refused.check_refused(400, text);
    let upload = json!({ "plugin_name": "other.pack/__init__.py", "content": "" });
    let client = server.client();
    let refused = client.post("/api/v3/plugins/files", &upload).await;
    refused.check_refused(400, text);
}

#[tokio::test]
async fn a_trigger_can_start_with_the_oldest_entry() {
    let count = "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] == 'm':
            influxdb3_local.write(LineBuilder('seen').int64_field('rows', len(batch['rows'])))
";
    let server = server().plugin("count.py", count).start().await;
    let db = server.database("db").create().await;
    db.write("m n=1i 1\nm n=2i 2").await;
    db.write("m n=3i 3").await;
    let cli = server.command_line();
    let arguments = [
        "create",
        "trigger",
        "-d",
        "db",
        "--path",
        "count.py",
        "--trigger-spec",
        "table:m",
    ];
    let created = cli.run(&[&arguments[..], &["--start", "earliest", "t"]].concat());
    assert_eq!(created.code, 0, "{created:?}");
    db.until("SELECT sum(rows) AS rows FROM seen", json!([{ "rows": 3 }]))
        .await;
    for spec in ["every:1h", "cron:@daily", "request:x"] {
        let arguments = [&arguments[..7], &[spec, "--start", "earliest", "u"]].concat();
        cli.check_refused(&arguments, 1, "only a trigger on writes");
        let body = json!({
            "db": "db", "plugin_filename": "count.py", "trigger_name": "u",
            "trigger_specification": spec, "trigger_settings": { "start": "earliest" },
        });
        let path = "/api/v3/configure/processing_engine_trigger";
        let refused = server.client().post(path, &body).await;
        refused.check_refused(400, "starts now: leave out start");
    }
}
