//! What plugins can import: packages that clients have installed, and what becomes of workers.

use std::{fs, path::Path};

use outrigger_integration_tests::{Builder, Reply, Server, build_wheel, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const PACKAGES: &str = "/api/v3/configure/plugin_environment/install_packages";
const REQUIREMENTS: &str = "/api/v3/configure/plugin_environment/install_requirements";

/// Imports what its query names, and counts its runs in the cache.
const IMPORTER: &str = "
import importlib, os

def process_request(influxdb3_local, query, headers, body, args=None):
    runs = (influxdb3_local.cache.get('runs') or 0) + 1
    influxdb3_local.cache.put('runs', runs)
    module = importlib.import_module(query['module'])
    version = getattr(module, '__version__', None)
    return {'version': version, 'runs': runs, 'pid': os.getpid()}
";

/// A server whose virtual environment is the story's own, once the shared one is there.
async fn installing() -> Builder {
    drop(server().plugin("p.py", "").start().await);
    let builder = server().own_virtual_environment();
    let wheels = wheels(builder.directory());
    let inherited = inherited_links();
    builder
        .plugin("importer.py", IMPORTER)
        .variable("PIP_FIND_LINKS", &format!("{wheels} {inherited}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the machine may have packages of its own"
)]
fn inherited_links() -> String {
    std::env::var("PIP_FIND_LINKS").unwrap_or_default()
}

fn wheels(directory: &Path) -> String {
    let wheels = directory.join("wheels");
    let text = |version: &str| format!("__version__ = '{version}'\n");
    for version in ["1.0", "2.0"] {
        build_wheel(
            &wheels,
            "outrigger-story",
            version,
            "outrigger_story.py",
            &text(version),
        );
    }
    wheels.display().to_string()
}

async fn create_importer(server: &Server) {
    let db = server.database("db").create().await;
    db.trigger("t", "importer.py")
        .spec("request:i")
        .create()
        .await;
    until_routed(server).await;
}

async fn until_routed(server: &Server) {
    eventually("the path is answered", async || {
        let reply = import(server, "json").await;
        (reply.status == 200)
            .then_some(())
            .ok_or(format!("{reply:?}"))
    })
    .await;
}

async fn import(server: &Server, module: &str) -> Reply {
    let path = format!("/api/v3/engine/i?module={module}");
    server.client().call(Method::GET, &path).await
}

/// What the plugin says of a module that it can import.
async fn imported(server: &Server, module: &str) -> Value {
    let reply = import(server, module).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

async fn install(server: &Server, package: &str) -> Reply {
    let body = json!({ "packages": [package] });
    server.client().post(PACKAGES, &body).await
}

#[tokio::test]
async fn what_was_missing_can_be_imported_at_the_next_run() {
    let server = installing().await.start().await;
    create_importer(&server).await;
    let before = imported(&server, "json").await;
    let missing = import(&server, "outrigger_story").await;
    missing.check_refused(500, "No module named 'outrigger_story'");

    let cli = server.command_line();
    cli.check(&["install", "package", "outrigger-story==1.0"], "");
    let after = imported(&server, "outrigger_story").await;
    assert_eq!(after["version"], "1.0");
    assert_eq!(after["pid"], before["pid"], "the worker is the same");
    let runs = before["runs"].as_i64().expect("a number") + 2;
    assert_eq!(after["runs"], runs, "and has its cache");

    // An upgrade is for new workers.
    let upgraded = install(&server, "outrigger-story==2.0").await;
    assert_eq!((upgraded.status, upgraded.body.as_str()), (200, ""));
    assert_eq!(imported(&server, "outrigger_story").await["version"], "1.0");
    let db = server.database("db");
    db.disable("t").await;
    eventually("the path is gone", async || {
        let reply = import(&server, "json").await;
        (reply.status == 404)
            .then_some(())
            .ok_or(format!("{reply:?}"))
    })
    .await;
    db.enable("t").await;
    until_routed(&server).await;
    assert_eq!(imported(&server, "outrigger_story").await["version"], "2.0");
}

#[tokio::test]
async fn requirements_are_files_of_the_server() {
    let server = installing().await.start().await;
    create_importer(&server).await;
    server.write_plugin("requirements.txt", "# from PyPI\nsix==1.16.0\n");
    let cli = server.command_line();
    cli.check(&["install", "package", "-r", "requirements.txt"], "");
    assert_eq!(imported(&server, "six").await["version"], "1.16.0");

    let absolute = server.directory().join("more.txt");
    fs::write(&absolute, "outrigger-story\n").expect("written");
    let path = format!(
        "{REQUIREMENTS}?requirements_location={}",
        absolute.display()
    );
    let installed = server.client().call(Method::POST, &path).await;
    assert_eq!((installed.status, installed.body.as_str()), (200, ""));
    assert_eq!(imported(&server, "outrigger_story").await["version"], "2.0");

    for (location, problem) in [
        ("missing.txt", "No such file"),
        ("../more.txt", "must not contain '..'"),
        (".", "it is not a file"),
    ] {
        let body = json!({ "requirements_location": location });
        let refused = server.client().post(REQUIREMENTS, &body).await;
        refused.check_refused(400, problem);
    }
}

#[tokio::test]
async fn a_package_that_did_not_load_is_tried_again_after_an_installation() {
    let source = |expression: &str| {
        format!(
            "import sys\n{expression}\n\n\
             def process_writes(influxdb3_local, table_batches, args=None):\n    \
             influxdb3_local.info('runs ' + str('outrigger_story' in sys.modules))\n"
        )
    };
    let server = installing()
        .await
        .plugin("pack/__init__.py", &source(""))
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "pack").spec("table:m").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "runs False").await;
    server.write_plugin("pack/__init__.py", &source("import outrigger_story"));
    db.write("m f=1 2").await;
    db.until_logged("t", 1, "the last version that loads goes on running")
        .await;
    db.until_logged("t", 2, "runs False").await;
    install(&server, "outrigger-story")
        .await
        .check_success("install");
    db.write("m f=1 3").await;
    db.until_logged("t", 1, "runs True").await;
}

#[tokio::test]
async fn a_failed_installation_says_what_pip_says() {
    let server = installing().await.start().await;
    create_importer(&server).await;
    let cli = server.command_line();
    let unknown = cli.run(&["install", "package", "outrigger-story==3.0"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    let first = "Install command failed: server responded with error [400 Bad Request]: Processing \
                 engine error: error installing python packages: installing packages with pip failed";
    assert!(unknown.stderr.starts_with(first), "{unknown:?}");
    let pip = "No matching distribution found for outrigger-story==3.0";
    assert!(unknown.stderr.contains(pip), "{unknown:?}");

    // A build that fails, in the plugin directory and without the network.
    let project = "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['.']\n";
    let built = server.directory().join("plugins/broken");
    fs::create_dir(&built).expect("made");
    server.write_plugin("broken/pyproject.toml", project);
    server.write_plugin(
        "broken/b.py",
        "raise RuntimeError('cannot be built on purpose')\n",
    );
    let failed = install(&server, "./broken").await;
    failed.check_refused(400, "RuntimeError: cannot be built on purpose");

    for option in ["--target=/tmp/x", "-r", "-e"] {
        let refused = install(&server, option).await;
        refused.check_refused(400, &format!("{option:?} is not a package: options of pip"));
    }
    let option = ["install", "package", "--", "--target=/tmp/x"];
    cli.check_refused(&option, 1, "options of pip are not taken");

    let client = server.client();
    let listed = client
        .call(Method::POST, &format!("{PACKAGES}?packages=six"))
        .await;
    listed.check_refused(400, "serde error: ");
    let text = client.request(Method::POST, PACKAGES).body("{}");
    client.answer(text).await.check_refused(415, "content-type");
    let page = client
        .request(Method::POST, PACKAGES)
        .header("Origin", "https://example.org");
    let page = page.json(&json!({ "packages": ["six"] }));
    client
        .answer(page)
        .await
        .check_refused(403, "from a web page");
    imported(&server, "json").await;
}

#[tokio::test]
async fn installations_wait_for_each_other() {
    let server = installing().await.start().await;
    let (one, two) = tokio::join!(
        install(&server, "outrigger-story==1.0"),
        install(&server, "outrigger-story==2.0")
    );
    assert_eq!((one.status, two.status), (200, 200), "{one:?} {two:?}");
    let log = fs::read_to_string(server.directory().join("stdout.log")).expect("the log");
    let steps: Vec<_> = log
        .lines()
        .filter_map(|line| {
            ["\"installing packages\"", "\"installed packages\""]
                .into_iter()
                .find(|step| line.contains(step))
        })
        .collect();
    let turn = ["\"installing packages\"", "\"installed packages\""];
    assert_eq!(steps, [turn, turn].concat());
}

#[tokio::test]
async fn nothing_that_workers_need_can_be_damaged() {
    let builder = installing().await;
    let wheels = builder.directory().join("wheels");
    let broken = "raise ImportError('broken on purpose')\n";
    build_wheel(&wheels, "pyarrow", "999.0", "pyarrow/__init__.py", broken);
    let server = builder
        .allow_log(
            "an installation breaks the plugin host",
            "that is the story",
        )
        // A host or a spare that starts just then finds what is about to be put back.
        .allow_log(r#""message":"plugin host""#, "it says why it ends")
        .allow_log("cannot start a worker", "what it needs is broken")
        .allow_log("broken on purpose", "that is the story")
        .start()
        .await;
    create_importer(&server).await;
    for (package, need) in [
        ("pyarrow<15", "pyarrow>=15"),
        ("outrigger-plugin-host==0", "==0"),
    ] {
        let refused = install(&server, package).await;
        refused.check_refused(400, "failed");
        assert!(refused.body.contains(need), "{refused:?}");
    }
    let undone = install(&server, "pyarrow==999.0").await;
    undone.check_refused(400, "broken on purpose");
    undone.check_refused(400, "what it needs was put back as it was");
    assert_ne!(imported(&server, "pyarrow").await["version"], "999.0");
    // A new worker can be started as well.
    let db = server.database("db");
    db.trigger("u", "importer.py")
        .spec("request:j")
        .create()
        .await;
    eventually("the new trigger answers", async || {
        let path = "/api/v3/engine/j?module=pyarrow";
        let reply = server.client().call(Method::GET, path).await;
        (reply.status == 200)
            .then_some(())
            .ok_or(format!("{reply:?}"))
    })
    .await;
}

/// pyarrow finds out when it is loaded whether there is numpy.
const TO_NUMPY: &str = "
import os

def process_request(influxdb3_local, query, headers, body, args=None):
    import pyarrow
    values = pyarrow.chunked_array([[1, 2, 3]]).to_numpy()
    return {'sum': int(values.sum()), 'pid': os.getpid()}
";

#[tokio::test]
async fn what_hosts_have_loaded_is_new_in_every_worker_after_an_installation() {
    let server = installing()
        .await
        .plugin("numbers_.py", TO_NUMPY)
        .start()
        .await;
    create_importer(&server).await;
    let db = server.database("db");
    db.trigger("n", "numbers_.py")
        .spec("request:n")
        .create()
        .await;
    let call = async || server.client().call(Method::GET, "/api/v3/engine/n").await;
    eventually("pyarrow misses numpy", async || {
        let reply = call().await;
        (reply.status == 500)
            .then_some(())
            .ok_or(format!("{reply:?}"))
    })
    .await;
    let before = imported(&server, "json").await;
    install(&server, "numpy")
        .await
        .check_success("install numpy");
    let reply = call().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["sum"], 6);
    let after = imported(&server, "numpy").await;
    assert_ne!(after["pid"], before["pid"], "an older worker is renewed");
}
