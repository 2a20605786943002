//! Plugins that try to speak as somebody else: whatever they print, log or raise stays one value
//! of one field of their own line, in every format of the server's log, and in SQL.

use outrigger_integration_tests::{Server, eventually};
use serde_json::{Value, json};

use crate::server;

/// What could end a line, a field or a terminal's colours, and what could begin another.
const FORGED: &str = r#"
BAIT = (
    'said\nFORGED 2026-01-01T00:00:00Z ERROR outrigger_app: forged message\r\n'
    'FORGED {"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","message":"forged"}\n'
    'FORGED level=ERROR trigger=other text="forged"\u2028FORGED\x85FORGED'
    '\x1b[31mred\x1b]0;title\x07\x00\x08\x9b31m " level=ERROR trigger="other" \\" \\'
)
"#;

const FORGER: &str = "
import sys

class BaitError(Exception):
    pass

def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info(BAIT)
    influxdb3_local.warn(BAIT)
    influxdb3_local.error(BAIT)
    print(BAIT)
    print(BAIT, file=sys.stderr)
    raise BaitError(BAIT)
";

async fn forge(format: &str) -> Server {
    let server = server()
        .flag("--log-format", format)
        .plugin("forger.py", &format!("{FORGED}{FORGER}"))
        // Only a log in JSON has levels that the harness can read.
        .allow_log("", "this story looks at the log itself")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("forger", "forger.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("forger", 1, "error executing wal plugin")
        .await;
    eventually("the server's log has it too", async || {
        let log = String::from_utf8_lossy(&server.log_bytes()).into_owned();
        let count = log.matches("forged message").count();
        (count >= 6).then_some(()).ok_or(log)
    })
    .await;
    server
}

/// What is left of a text without what stands in double quotes.
fn outside_of_quotes(text: &str) -> String {
    let (mut outside, mut quoted, mut escaped) = (String::new(), false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted => outside.push(character),
            _ => {}
        }
    }
    assert!(!quoted, "a quote is not closed: {text}");
    outside
}

/// No byte that does anything to a terminal, and no line that is not the server's.
fn check_bytes(log: &[u8]) -> String {
    let harmless = |byte: &u8| *byte == b'\n' || *byte >= b' ' && *byte != 0x7f;
    let harmful: Vec<_> = log.iter().filter(|byte| !harmless(byte)).collect();
    assert!(harmful.is_empty(), "{harmful:?}");
    let log = String::from_utf8(log.to_vec()).expect("a log is UTF-8");
    let foreign = ['\u{85}', '\u{9b}', '\u{2028}'];
    assert!(!log.contains(foreign), "a control character: {log}");
    for line in log.lines() {
        assert!(!line.trim_start().starts_with("FORGED"), "{line}");
    }
    log
}

#[tokio::test]
async fn no_line_is_forged_in_a_plain_log() {
    for format in ["full", "pretty", "logfmt"] {
        let server = forge(format).await;
        let log = check_bytes(&server.log_bytes());
        let outside = outside_of_quotes(&log);
        for forged in ["FORGED", "forged", " level=ERROR"] {
            assert!(!outside.contains(forged), "{format}: {forged} in {outside}");
        }
    }
}

#[tokio::test]
async fn no_line_is_forged_in_a_log_of_json() {
    let server = forge("json").await;
    let log = check_bytes(&server.log_bytes());
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is an object"))
        .collect();
    let of_plugin = lines.iter().filter(|line| line["target"] == "plugin");
    let baited = of_plugin.filter(|line| line.to_string().contains("forged message"));
    let mut count = 0;
    for line in baited {
        let object = line.as_object().expect("an object");
        let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
        // Where the server stands while it passes the line on, in its own words.
        keys.retain(|key| *key != "spans");
        keys.sort_unstable();
        let expected = [
            "invocation",
            "level",
            "log_level",
            "target",
            "text",
            "timestamp",
            "trace_id",
            "trigger",
        ];
        assert_eq!(keys, expected);
        assert_eq!(
            (&line["level"], &line["trigger"]),
            (&json!("INFO"), &json!("forger"))
        );
        count += 1;
    }
    // Three that were logged, the first line of each that was printed is another; and the error.
    assert!(count >= 6, "{count}: {log}");
    assert!(lines.iter().all(|line| line["level"] != "ERROR"), "{log}");
}

#[tokio::test]
async fn no_row_is_forged_in_sql() {
    let server = forge("json").await;
    let db = server.database("db");
    let sql = "SELECT DISTINCT trigger_name FROM system.processing_engine_logs";
    assert_eq!(db.query(sql).await, json!([{ "trigger_name": "forger" }]));
    let logs = db.logs("forger").await;
    for level in ["INFO", "WARN", "ERROR"] {
        // One row, with all that was said.
        let said = logs.iter().filter(|row| {
            row.level == level && row.text.starts_with("said\nFORGED") && row.text.contains('\0')
        });
        assert_eq!(said.count(), 1, "{level}: {logs:#?}");
    }
    // What is printed is a row for each line, of the level of its stream.
    let error = |row: &&outrigger_integration_tests::LogRow| {
        row.level == "ERROR" && !row.text.starts_with("said") && !row.text.starts_with("error exec")
    };
    assert_eq!(logs.iter().filter(error).count(), 0, "{logs:#?}");
    let printed = logs.iter().filter(|row| row.text == "said").count();
    assert_eq!(printed, 2, "{logs:#?}");
}
