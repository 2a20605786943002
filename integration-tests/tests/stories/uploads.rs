//! Plugins that clients put into the plugin directory.

use std::{fs, path::Path};

use outrigger_integration_tests::{Reply, Server};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const FILES: &str = "/api/v3/plugins/files";
const DIRECTORY: &str = "/api/v3/plugins/directory";

/// A plugin that writes what `expression` makes of each row of `m`.
fn source(expression: &str) -> String {
    format!(
        "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] == 'm':
            for row in batch['rows']:
                influxdb3_local.write(LineBuilder('out').int64_field('value', {expression}))
"
    )
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::create_dir_all(directory).expect("the directory");
    fs::write(&path, text).expect("written");
    path.into_os_string().into_string().expect("text")
}

fn create(server: &Server, path: &str) {
    let cli = server.command_line();
    let arguments = ["create", "trigger", "-d", "db", "--trigger-spec", "table:m"];
    let created = cli.run(&[&arguments[..], &["--upload", "--path", path, "t"]].concat());
    assert_eq!(created.code, 0, "{created:?}");
}

async fn put(server: &Server, path: &str, body: Value) -> Reply {
    let request = server.client().request(Method::PUT, path);
    server.client().answer(request.json(&body)).await
}

const LAST: &str = "SELECT value FROM out ORDER BY time DESC LIMIT 1";

#[tokio::test]
async fn an_uploaded_file_runs_and_can_be_updated() {
    let local = tempfile::tempdir().unwrap();
    let path = write(local.path(), "scale.py", &source("row['n'] * 10"));
    let server = server().plugin("other.py", "").start().await;
    let db = server.database("db").create().await;
    create(&server, &path);
    db.write("m n=1i 1").await;
    db.until(LAST, json!([{ "value": 10 }])).await;

    write(local.path(), "scale.py", &source("row['n'] * 100"));
    let update = ["update", "trigger", "-d", "db", "-t", "t", "-p", &path];
    let said = server.command_line().success(&update);
    assert_eq!(said, "Trigger 't' updated successfully\n");
    db.write("m n=2i 2").await;
    db.until(LAST, json!([{ "value": 200 }])).await;
}

#[tokio::test]
async fn an_uploaded_directory_is_replaced_as_a_whole() {
    let local = tempfile::tempdir().unwrap();
    let init = format!("from .helper import scale\n{}", source("scale(row['n'])"));
    let pack = local.path().join("pack");
    write(&pack, "__init__.py", &init);
    let helper = write(&pack, "helper.py", "def scale(n):\n    return n * 10\n");
    let server = server().plugin("other.py", "").start().await;
    let db = server.database("db").create().await;
    create(&server, pack.to_str().unwrap());
    db.write("m n=1i 1").await;
    db.until(LAST, json!([{ "value": 10 }])).await;

    fs::remove_file(helper).unwrap();
    write(&pack, "__init__.py", &source("row['n'] * 100"));
    let pack = pack.to_str().unwrap();
    let update = ["update", "trigger", "-d", "db", "-t", "t", "-p", pack];
    let said = server.command_line().success(&update);
    assert_eq!(
        said,
        "Trigger 't' updated successfully (atomic directory replacement)\n"
    );
    db.write("m n=2i 2").await;
    db.until(LAST, json!([{ "value": 200 }])).await;

    // A helper that is gone cannot be imported any more.
    let old = json!({ "plugin_name": "t", "content": init });
    put(&server, FILES, old).await.check_success("update");
    db.write("m n=3i 3").await;
    db.until_logged("t", 1, "helper").await;
}

#[tokio::test]
async fn mistakes_of_uploads_are_the_clients() {
    let server = server().plugin("p.py", &source("1")).start().await;
    let client = server.client();
    for name in ["../p.py", "/tmp/p.py", "a/../../p.py"] {
        let body = json!({ "plugin_name": name, "content": "" });
        let refused = client.post(FILES, &body).await;
        refused.check_refused(400, "Path traversal detected: plugin filename");
    }
    let unnamed = json!({ "plugin_name": "", "content": "" });
    let refused = client.post(FILES, &unnamed).await;
    refused.check_refused(400, "invalid plugin file name");
    let text = client.request(Method::POST, FILES).body("{}");
    client.answer(text).await.check_refused(415, "content-type");

    let page = client
        .request(Method::POST, FILES)
        .header("Origin", "https://example.org");
    let page = page.json(&json!({ "plugin_name": "x.py", "content": "" }));
    client
        .answer(page)
        .await
        .check_refused(403, "from a web page");

    let update = json!({ "plugin_name": "t", "content": source("2") });
    let unknown = put(&server, FILES, update.clone()).await;
    unknown.check_refused(404, "trigger not found");
    for name in ["one", "two"] {
        let db = server.database(name).create().await;
        db.trigger("t", "p.py").create().await;
    }
    let ambiguous = put(&server, FILES, update.clone()).await;
    ambiguous.check_refused(409, "(one, two)");
    let named = put(&server, &format!("{FILES}?db=two"), update).await;
    assert_eq!((named.status, named.body.as_str()), (200, ""));
    let files = json!([{ "relative_path": "a.py", "content": "" }]);
    let body = json!({ "plugin_name": "t", "files": files });
    let refused = put(&server, &format!("{DIRECTORY}?db=one"), body).await;
    refused.check_refused(400, "must contain __init__.py");
}
