//! The client libraries that people have: they write, query, and read the plugins' log lines.

use outrigger_integration_tests::ClientScript;
use serde_json::json;

use crate::{WRITE_REPORTS, server};

const LOGS: &str = "SELECT trigger_name, log_level, log_text FROM system.processing_engine_logs \
                    WHERE log_text LIKE '%rows written%' ORDER BY event_time";
const ROWS: &str = "SELECT room, temp, time FROM home ORDER BY time";

/// Checks what a program reads over Flight.
async fn check_reader(script: &str) {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py").create().await;
    db.write("home,room=hall temp=20 1000000000000000001\nhome temp=21.5 1000000000000000002")
        .await;
    db.until_logged("reports", 1, "2 rows written to home")
        .await;

    let script = ClientScript::new(&server, script);
    let expected = json!([
        { "room": "hall", "temp": 20.0, "time": 1_000_000_000_000_000_001_i64 },
        { "room": null, "temp": 21.5, "time": 1_000_000_000_000_000_002_i64 },
    ]);
    assert_eq!(script.run(&["db", ROWS]), expected);
    let logs = script.run(&["db", LOGS]);
    assert_eq!(logs[0]["trigger_name"], "reports", "{logs}");
    assert_eq!(logs[0]["log_level"], "INFO", "{logs}");
    let text = logs[0]["log_text"].as_str().expect("a text");
    assert!(
        text.starts_with("2 rows written to home, seen by process "),
        "{text}"
    );
    assert_eq!(
        script.run(&["db", "SELECT * FROM home WHERE temp > 99"]),
        json!([])
    );

    let refused = script.output(&["nosuch", "SELECT 1"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("database not found: nosuch"),
        "{refused:#?}"
    );
    let refused = script.output(&["db", "SELECT * FROM nowhere"]);
    assert!(refused.stderr.contains("nowhere"), "{refused:#?}");
}

#[tokio::test]
async fn adbc_reads_over_flight_sql() {
    check_reader("adbc.py").await;
}

#[tokio::test]
async fn pyarrow_reads_over_flight_with_statements() {
    check_reader("pyarrow_statement.py").await;
}

#[tokio::test]
async fn pyarrow_reads_over_flight_with_native_tickets() {
    check_reader("pyarrow_ticket.py").await;
}

#[tokio::test]
async fn influxdb3_python_writes_and_reads() {
    let server = server()
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py").create().await;
    let script = ClientScript::new(&server, "influxdb3_python.py");
    let written = json!([{ "room": "hall", "temp": 20.5 }, { "room": "kitchen", "temp": 21.5 }]);
    assert_eq!(script.run(&["db", "write"]), written);
    db.until_logged("reports", 1, "2 rows written to home")
        .await;
    let logs = script.run(&["db", LOGS]);
    assert_eq!(logs[0]["trigger_name"], "reports", "{logs}");
}
