//! Plugins from a repository: fetched once, pinned, and updated only when somebody says so.

use std::fs;

use outrigger_integration_tests::{Answer, Builder, CommandLine, PluginRepository};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const UPDATE: &str = "/api/v3/plugins/repository";
const PINNED: &str = "pinned a repository plugin";
const LAST: &str = "SELECT value FROM out ORDER BY time DESC LIMIT 1";

/// A plugin that writes each row's `n` times `factor`.
fn source(factor: u32) -> String {
    format!(
        "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            value = row['n'] * {factor}
            influxdb3_local.write(LineBuilder('out').int64_field('value', value))
"
    )
}

fn server_with(repository: &PluginRepository) -> Builder {
    let url = format!("http://{}/main", repository.address());
    server().flag("--plugin-repo", &url)
}

fn create(cli: &CommandLine, path: &str) {
    let create = ["create", "trigger", "-d", "db", "--trigger-spec", "table:m"];
    let create = [&create[..], &["--path", path, "t"]].concat();
    cli.check(&create, "Trigger t created successfully\n");
}

const UPDATE_TRIGGER: [&str; 8] = [
    "update",
    "trigger",
    "-d",
    "db",
    "-t",
    "t",
    "-p",
    "gh:team/scale.py",
];

#[tokio::test]
async fn what_was_pinned_runs_without_the_repository() {
    let repository = PluginRepository::start();
    repository.source("/main/team/scale.py", &source(10));
    let mut server = server_with(&repository).start().await;
    let db = server.database("db").create().await;
    create(&server.command_line(), "gh:team/scale.py");
    assert_eq!(repository.asked()[0].path, "/main/team/scale.py");
    db.write("m n=1i 1").await;
    db.until(LAST, json!([{ "value": 10 }])).await;
    assert!(server.has_logged(PINNED));
    let pinned = db.until_logged("t", 1, "pinned gh:team/scale.py of ").await;
    let objects = fs::read_dir(server.data_directory().join("node/plugins")).expect("a directory");
    let objects: Vec<_> = objects
        .map(|object| object.expect("an object").file_name())
        .collect();
    let [object] = &objects[..] else {
        panic!("{objects:?}")
    };
    let hash = object.to_str().expect("a plain name");
    assert!(pinned[0].text.ends_with(hash), "{pinned:?} {hash}");

    // It has changed since, then it is gone, and so is the network.
    repository.source("/main/team/scale.py", &source(100));
    db.disable("t").await;
    db.enable("t").await;
    db.write("m n=2i 2").await;
    db.until(LAST, json!([{ "value": 20 }])).await;
    repository.set_down(true);
    server.stop();
    server.restart().await;
    let db = server.database("db");
    db.write("m n=3i 3").await;
    db.until(LAST, json!([{ "value": 30 }])).await;
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    db.write("m n=4i 4").await;
    db.until(LAST, json!([{ "value": 40 }])).await;
    assert_eq!(repository.connections(), 1, "nobody has asked again");
}

#[tokio::test]
async fn a_newer_version_runs_once_the_trigger_is_updated() {
    let repository = PluginRepository::start();
    repository.source("/main/team/scale.py", &source(10));
    let mut server = server_with(&repository).start().await;
    let db = server.database("db").create().await;
    let cli = server.command_line();
    create(&cli, "gh:team/scale.py");
    db.write("m n=1i 1").await;
    db.until(LAST, json!([{ "value": 10 }])).await;

    repository.set_down(true);
    cli.check_refused(&UPDATE_TRIGGER, 1, "[503 Service Unavailable]");
    repository.set_down(false);
    repository.source("/main/team/scale.py", &source(100));
    db.write("m n=2i 2").await;
    db.until(LAST, json!([{ "value": 20 }])).await;

    cli.check(&UPDATE_TRIGGER, "Trigger 't' updated successfully\n");
    db.write("m n=3i 3").await;
    db.until(LAST, json!([{ "value": 300 }])).await;
    db.until_logged("t", 2, "pinned gh:team/scale.py of ").await;
    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    db.write("m n=4i 4").await;
    db.until(LAST, json!([{ "value": 400 }])).await;

    // A version that does not load leaves the last good one running.
    repository.source("/main/team/scale.py", "def process_writes(:\n");
    let cli = server.command_line();
    cli.check(&UPDATE_TRIGGER, "Trigger 't' updated successfully\n");
    db.write("m n=5i 5").await;
    db.until(LAST, json!([{ "value": 500 }])).await;
    db.until_logged("t", 1, "the last version that loads goes on running")
        .await;

    // So does a file of this trigger, which there is not.
    let local = server.directory().join("local.py");
    fs::write(&local, source(1)).expect("written");
    let local = local.to_str().expect("a plain path");
    let update = ["update", "trigger", "-d", "db", "-t", "t", "-p", local];
    cli.check_refused(&update, 1, "is from the plugin repository and has no file");
    let update = json!({ "plugin_name": "t", "plugin_filename": "local.py" });
    let request = server.client().request(Method::PUT, UPDATE).json(&update);
    let refused = server.client().answer(request).await;
    refused.check_refused(400, "does not begin with gh:");
    let shown = "SELECT plugin_filename FROM system.processing_engine_triggers";
    assert_eq!(
        db.query(shown).await,
        json!([{ "plugin_filename": "gh:team/scale.py" }])
    );
}

#[tokio::test]
async fn rows_wait_for_a_pinned_plugin_that_is_damaged() {
    let repository = PluginRepository::start();
    repository.source("/main/team/scale.py", &source(10));
    let mut server = server_with(&repository).start().await;
    server.database("db").create().await;
    create(&server.command_line(), "gh:team/scale.py");
    server.stop();
    let objects = server.data_directory().join("node/plugins");
    for object in fs::read_dir(objects).expect("a directory") {
        fs::write(object.expect("an object").path(), source(11)).expect("damaged");
    }
    server.restart().await;
    let db = server.database("db");
    db.write("m n=1i 1").await;
    outrigger_integration_tests::eventually("the damage is noticed", async || {
        let logs = db.logs("t").await;
        let damaged = logs.iter().any(|row| {
            row.level == "ERROR" && row.text.contains(" is damaged: restore it from a backup")
        });
        damaged.then_some(()).ok_or_else(|| format!("{logs:#?}"))
    })
    .await;
    let cli = server.command_line();
    cli.check(&UPDATE_TRIGGER, "Trigger 't' updated successfully\n");
    db.until(LAST, json!([{ "value": 10 }])).await;
}

#[tokio::test]
async fn a_trigger_can_move_from_a_file_to_the_repository() {
    let repository = PluginRepository::start();
    repository.source("/main/team/scale.py", &source(100));
    let server = server_with(&repository)
        .plugin("scale.py", &source(10))
        .start()
        .await;
    let db = server.database("db").create().await;
    let cli = server.command_line();
    create(&cli, "scale.py");
    db.write("m n=1i 1").await;
    db.until(LAST, json!([{ "value": 10 }])).await;
    cli.check(&UPDATE_TRIGGER, "Trigger 't' updated successfully\n");
    db.write("m n=2i 2").await;
    db.until(LAST, json!([{ "value": 200 }])).await;
}

#[tokio::test]
async fn credentials_reach_the_repository_and_nobody_else() {
    let repository = PluginRepository::start();
    repository.source("/main/team/scale.py", &source(10));
    let url = format!("http://user:hidden@{}/main/", repository.address());
    let server = server()
        .variable("INFLUXDB3_PLUGIN_REPO", &url)
        .start()
        .await;
    let db = server.database("db").create().await;
    create(&server.command_line(), "gh:team/scale.py");
    // user:hidden in base64.
    let expected = Some("Basic dXNlcjpoaWRkZW4=".to_owned());
    assert_eq!(repository.asked()[0].authorization, expected);
    let missing = db.trigger("x", "gh:missing.py").try_create().await;
    repository.set_down(true);
    let down = db.trigger("x", "gh:missing.py").try_create().await;
    for reply in [missing, down] {
        assert!(!reply.body.contains("hidden"), "{reply:?}");
        assert!(reply.body.contains("/main/missing.py"), "{reply:?}");
    }
    let logs = db.until_logged("t", 1, "pinned gh:team/scale.py").await;
    assert!(!logs[0].text.contains("hidden"), "{logs:?}");
    assert!(server.has_logged(PINNED));
    assert!(!server.has_logged("hidden"));
}

#[tokio::test]
async fn what_cannot_be_fetched_is_refused_with_the_reason() {
    let repository = PluginRepository::start();
    let at = repository.address();
    let server = server_with(&repository)
        .flag("--plugin-repo-timeout", "5s")
        .start()
        .await;
    let db = server.database("db").create().await;
    let bytes = |bytes: &[u8]| Answer::Content("application/octet-stream", bytes.to_vec());
    let to = |path: &str| Answer::Redirect(format!("http://{at}/main/{path}"));
    for (path, answer, status, reason) in [
        (
            "broken.py",
            Answer::Status(500),
            503,
            "500 Internal Server Error http://",
        ),
        (
            "secret.py",
            Answer::Status(403),
            503,
            "403 Forbidden http://",
        ),
        ("loop.py", to("loop.py"), 503, "more than 5 redirects"),
        (
            "file.py",
            Answer::Redirect("file:///etc/passwd".to_owned()),
            503,
            "302 Found http://",
        ),
        ("silence.py", Answer::Silence, 504, "took longer than 5s"),
        (
            "large.py",
            Answer::Announced(1 << 40),
            400,
            "is larger than",
        ),
        ("endless.py", Answer::Endless, 400, "is larger than"),
        ("latin.py", bytes(b"# \xe9\n"), 400, "is not UTF-8 text"),
        (
            "page.py",
            Answer::Content("text/html; charset=utf-8", b"<p>".to_vec()),
            400,
            "is a web page",
        ),
        ("pack", to("pack/"), 400, "is a directory"),
    ] {
        repository.answer("/main/pack/", bytes(b"a listing"));
        repository.answer(&format!("/main/{path}"), answer);
        let refused = db.trigger("t", &format!("gh:{path}")).try_create().await;
        refused.check_refused(
            status,
            "Plugin error: error fetching plugin from repository: ",
        );
        refused.check_refused(status, reason);
    }
    let missing = db.trigger("t", "gh:a/missing.py").try_create().await;
    let expected = format!(
        "Plugin error: error fetching plugin from repository: 404 Not Found \
         http://{at}/main/a/missing.py"
    );
    missing.check_refused(400, &expected);
    missing.check_refused(400, "gh: takes the path of one file, not of a directory");

    repository.source("/main/moved.py", &source(10));
    repository.answer("/main/old.py", to("moved.py"));
    db.trigger("moved", "gh:old.py").create().await;
    let sql = "SELECT trigger_name FROM system.processing_engine_triggers";
    assert_eq!(db.query(sql).await, json!([{ "trigger_name": "moved" }]));
}

#[tokio::test]
async fn nothing_is_fetched_for_a_bad_request() {
    let repository = PluginRepository::start();
    repository.source("/main/p.py", &source(10));
    let server = server_with(&repository).plugin("p.py", "").start().await;
    let db = server.database("db").create().await;
    for path in [
        "gh:",
        "gh:/etc/passwd",
        "gh:../p.py",
        "gh:a/../../p.py",
        "gh:%2e%2e/p.py",
        "gh:a\\..\\p.py",
        "gh:p.py?x=1",
        "gh:pack/",
    ] {
        let refused = db.trigger("t", path).try_create().await;
        refused.check_refused(400, "Plugin error: invalid plugin path ");
    }
    let nowhere = server.database("nosuch").trigger("t", "gh:p.py");
    nowhere.try_create().await.check_refused(404, "nosuch");
    db.trigger("t", "p.py").disabled().create().await;
    let twice = db.trigger("t", "gh:p.py").try_create().await;
    twice.check_refused(409, "already exists");
    let unknown = json!({ "plugin_name": "unknown", "plugin_filename": "gh:p.py" });
    let path = format!("{UPDATE}?db=db");
    let request = server.client().request(Method::PUT, &path).json(&unknown);
    let refused = server.client().answer(request).await;
    refused.check_refused(404, "trigger not found");
    let page = server
        .client()
        .request(Method::POST, "/api/v3/configure/processing_engine_trigger");
    let page = page.header("Origin", "https://example.org").json(&json!({
        "db": "db", "plugin_filename": "gh:p.py", "trigger_name": "page",
        "trigger_specification": "all_tables",
    }));
    let refused = server.client().answer(page).await;
    refused.check_refused(403, "from a web page");
    let upload = [
        "create",
        "trigger",
        "--db",
        "db",
        "--trigger-spec",
        "table:m",
    ];
    let upload = [&upload[..], &["--upload", "--path", "gh:p.py", "u"]].concat();
    let cli = server.command_line();
    cli.check_refused(&upload, 1, "--upload sends files of this machine");
    assert_eq!(repository.connections(), 0);
}

#[tokio::test]
async fn a_repository_needs_a_plugin_directory_and_a_url() {
    let repository = PluginRepository::start();
    let server = server_with(&repository)
        .without("--plugin-dir")
        .start()
        .await;
    let db = server.database("db").create().await;
    let refused = db.trigger("t", "gh:p.py").try_create().await;
    refused.check_refused(400, "Node not configured with plugin directory");
    assert_eq!(repository.connections(), 0);

    let refused = crate::server()
        .flag("--plugin-repo", "ftp://example.org/")
        .start_refused()
        .await;
    let text = format!("{refused:?}");
    assert!(text.contains("http:// or https://"), "{text}");
}

#[tokio::test]
async fn files_of_plugins_are_shown_and_those_of_the_repository_are_not() {
    let repository = PluginRepository::start();
    repository.source("/main/p.py", &source(10));
    let server = server_with(&repository)
        .plugin("one.py", "12345")
        .plugin("pack/__init__.py", "")
        .plugin("pack/inner/x.py", "123")
        .start()
        .await;
    for (database, trigger, plugin) in [
        ("a", "one", "one.py"),
        ("b", "one", "one.py"),
        ("b", "pack", "pack"),
        ("b", "repository", "gh:p.py"),
    ] {
        let db = server.database(database);
        if trigger == "one" {
            db.clone().create().await;
        }
        db.trigger(trigger, plugin).disabled().create().await;
    }
    let internal = server.database("_internal");
    let sql = "SELECT plugin_name, file_name, size_bytes FROM system.plugin_files \
               ORDER BY plugin_name, file_path";
    let row = |trigger: &str, file: &str, bytes: i64| json!({ "plugin_name": trigger, "file_name": file, "size_bytes": bytes });
    let expected = [
        row("one", "one.py", 5),
        row("one", "one.py", 5),
        row("pack", "__init__.py", 0),
        row("pack", "inner/x.py", 3),
    ];
    assert_eq!(internal.query(sql).await, Value::from(expected.to_vec()));
    let shown = server
        .command_line()
        .success(&["show", "plugins", "--format", "csv"]);
    let mut lines = shown.lines();
    let columns = "plugin_name,file_name,file_path,size_bytes,last_modified";
    assert_eq!(lines.next(), Some(columns));
    let first = lines.next().expect("a row");
    let path = server.directory().join("plugins/one.py");
    let begin = format!("one,one.py,{},5,", path.display());
    assert!(first.starts_with(&begin), "{first}");
    assert_eq!(lines.count(), 3);

    let elsewhere = server.database("a").try_query(sql).await;
    elsewhere.check_refused(400, "table 'public.system.plugin_files' not found");
}
