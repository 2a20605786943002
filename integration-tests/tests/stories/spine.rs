//! The whole line: a write fires a plugin in another process, and its answer can be read.

use serde_json::json;

use crate::{WRITE_REPORTS, server};

const PID_PLUGIN: &str = "
import os

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] != 'pids':
            influxdb3_local.write(LineBuilder('pids').int64_field('pid', os.getpid()))
";

const SUMS: &str = "SELECT table_name, sum(row_count) AS row_count FROM write_reports \
                    GROUP BY table_name ORDER BY table_name";

#[tokio::test]
async fn a_write_fires_a_plugin_and_its_report_can_be_queried() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("weather").create().await;
    db.trigger("reports", "write_reports.py").create().await;

    db.write("home,room=kitchen temp=21.5 1\nhome,room=hall temp=20.0 1\ncar speed=3i 1")
        .await;
    let expected = json!([
        { "table_name": "car", "row_count": 1 },
        { "table_name": "home", "row_count": 2 },
    ]);
    db.until(SUMS, expected).await;
    db.write("home,room=kitchen temp=22.5 2").await;
    let expected = json!([
        { "table_name": "car", "row_count": 1 },
        { "table_name": "home", "row_count": 3 },
    ]);
    db.until(SUMS, expected).await;

    let logs = db
        .until_logged("reports", 1, "2 rows written to home")
        .await;
    assert_eq!(logs[0].level, "INFO");
}

#[tokio::test]
async fn an_argument_reaches_the_plugin() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("weather").create().await;
    db.trigger("reports", "write_reports.py")
        .argument("double_count_table", "home")
        .create()
        .await;
    db.write("home temp=1 1\nhome temp=2 2\ncar speed=3i 1")
        .await;
    let expected = json!([
        { "table_name": "car", "row_count": 1 },
        { "table_name": "home", "row_count": 4 },
    ]);
    db.until(SUMS, expected).await;
}

#[tokio::test]
async fn a_plugin_runs_in_a_process_of_its_own_and_keeps_it() {
    let server = server().plugin("pid.py", PID_PLUGIN).start().await;
    let db = server.database("db").create().await;
    db.trigger("pid", "pid.py").create().await;
    for count in 1..=3 {
        db.write(format!("m f={count} {count}")).await;
        let counts = json!([{ "runs": count, "workers": 1 }]);
        let sql = "SELECT count(*) AS runs, count(DISTINCT pid) AS workers FROM pids";
        db.until(sql, counts).await;
    }
    let worker = db.number("SELECT max(pid) FROM pids").await;
    assert_ne!(worker, i64::from(server.pid()));
}

#[tokio::test]
async fn every_run_is_logged_from_start_to_finish() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py")
        .spec("table:m")
        .create()
        .await;
    db.write("m f=1 1").await;
    // All three lines; the plugin's own may become readable after the engine's last one.
    let logs = db.until_logged("reports", 3, "").await;
    let texts: Vec<_> = logs.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(texts[0], "starting execution of wal plugin.");
    assert!(texts[1].starts_with("1 rows written to m"), "{texts:?}");
    assert!(texts[2].starts_with("finished execution in "), "{texts:?}");
    assert!(logs.iter().all(|row| row.level == "INFO"), "{logs:?}");
}
