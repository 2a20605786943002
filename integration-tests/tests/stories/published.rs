//! Do plugins run as people have published them, with the packages that they use?

use std::{fs, fs::File, path::PathBuf};

use outrigger_integration_tests::{CommandLine, eventually};
use reqwest::Method;
use serde_json::json;

use crate::{BINARY, server};

/// What these stories need beside what every environment has. The version is the one that
/// the published plugins are made for.
const PACKAGES: [&str; 2] = ["influxdata-plugin-utils==0.3.1", "numpy>=2,<3"];

/// The virtual environment of these stories, which the server makes when it is first started.
pub(crate) fn environment() -> PathBuf {
    let target = PathBuf::from(BINARY);
    let target = target
        .ancestors()
        .nth(2)
        .expect("it is in target/<profile>");
    target.join("integration-published-venv")
}

/// Puts the packages into it, once. A server's Python starts with its first trigger, so this
/// may come after the start.
pub(crate) fn install() {
    let location = environment();
    let wanted = PACKAGES.join(" ");
    let stamp = location.join(".packages");
    let lock = File::create(location.with_extension("packages.lock")).expect("make the lock");
    lock.lock().expect("take the lock");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let python = CommandLine::without_server(location.join("bin/python"), &location);
    let mut arguments = vec!["-m", "pip", "install", "--no-input", "--quiet"];
    arguments.extend(PACKAGES);
    python.success(&arguments);
    fs::write(&stamp, wanted).expect("write the stamp");
}

const USES_UTILS: &str = include_str!("../../plugins/uses_utils.py");
const SENDS_SQL: &str = include_str!("../../plugins/sends_sql.py");

const CONFIG: &str = r#"
measurement = "home"
window = "10min"
threshold = 2
start = "2026-01-01T00:00:00Z"
end = "2026-01-01T00:10:00Z"
"#;

const HOME: &str = "home,room=a temp=1.5,n=1i,note=\"x\" 1767225600000000000
home,room=b temp=2.5,n=2i 1767225660000000000
home,room=a temp=3.5,n=3i 1767225720000000000";

#[tokio::test]
async fn a_plugin_lives_off_the_published_helper_package() {
    let server = server()
        .virtual_environment(&environment())
        .plugin("uses_utils.py", USES_UTILS)
        .plugin("configs/utils.toml", CONFIG)
        .variable("UTILS_TOKEN", "@secret")
        .start()
        .await;
    install();
    let other = server.database("other").create().await;
    other.write("elsewhere,where=x f=1 1").await;
    let db = server.database("db").create().await;
    db.write(HOME).await;
    db.trigger("t", "uses_utils.py")
        .spec("every:1s")
        .argument("config_file_path", "configs/utils.toml")
        .argument("threshold", "99")
        .create()
        .await;
    for said in [
        "found ['room'] ['n', 'temp'] ['n', 'note', 'temp'] ['where']",
        "config 0:10:00 2.0 @secret",
        "read back [{'rows': 3, 'share': 0.6666666666666666}]",
        "refused error writing line protocol to ",
        "summarised 3 True",
    ] {
        db.until_logged("t", 1, said).await;
    }
    let high = r#"SELECT room, temp, n, note, ok FROM "home.high" ORDER BY time"#;
    let expected = json!([
        { "room": "b", "temp": 2.5, "n": 2, "note": "say \"hi\"", "ok": true },
        { "room": "a", "temp": 3.5, "n": 3, "note": "say \"hi\"", "ok": true },
    ]);
    db.until(high, expected.clone()).await;
    let archive = server.database("archive");
    archive.until(high, expected).await;
    let rows = json!([{ "rows": 3 }]);
    archive.until("SELECT rows FROM summary", rows).await;
    // The next run finds what this one has cached.
    eventually("a run uses the cache", async || {
        let logs = db.logs("t").await;
        let cached = logs.iter().any(|row| row.text == "cached ['room']");
        cached.then_some(()).ok_or_else(|| format!("{logs:#?}"))
    })
    .await;
}

#[tokio::test]
async fn a_bad_configuration_is_told_by_the_helper_package() {
    let server = server()
        .virtual_environment(&environment())
        .plugin("uses_utils.py", USES_UTILS)
        .start()
        .await;
    install();
    let db = server.database("db").create().await;
    db.trigger("none", "uses_utils.py")
        .spec("every:1h")
        .create()
        .await;
    let trigger = db.trigger("t", "uses_utils.py").spec("every:1s");
    trigger.argument("measurement", "home").create().await;
    eventually("the plugin says what is missing", async || {
        let logs = db.logs("t").await;
        let said = logs.iter().any(|row| {
            row.level == "ERROR"
                && row
                    .text
                    .starts_with("bad configuration: threshold is required")
        });
        said.then_some(()).ok_or_else(|| format!("{logs:#?}"))
    })
    .await;
}

#[tokio::test]
async fn every_form_of_sql_that_plugins_send_is_answered() {
    let server = server().plugin("sql.py", SENDS_SQL).start().await;
    let other = server.database("other").create().await;
    other.write("there f=1 1").await;
    let db = server.database("db").create().await;
    db.trigger("t", "sql.py").spec("request:sql").create().await;
    let client = server.client();
    let reply = client.call(Method::GET, "/api/v3/engine/sql").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    assert_eq!(answer["wrong"], json!([]), "{answer:#}");
    assert!(answer["checked"].as_u64() > Some(40), "{answer:#}");
}
