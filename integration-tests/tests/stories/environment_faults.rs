//! Virtual environments that cannot be used: one clear message, and the command that mends it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use outrigger_integration_tests::{Builder, eventually};
use reqwest::Method;
use serde_json::json;

use crate::{WRITE_REPORTS, server};

const DISABLED: &str =
    "Package installation has been disabled. Contact your administrator for more information.";
const INSTALL: &str = "/api/v3/configure/plugin_environment/install_packages";

async fn own() -> Builder {
    drop(server().plugin("p.py", "").start().await);
    server().own_virtual_environment()
}

fn venv(builder: &Builder) -> PathBuf {
    builder.directory().join("venv")
}

/// Removes what begins with `prefix` from where packages are.
fn uninstall(location: &Path, prefix: &str) {
    let library = location.join("lib");
    let python = fs::read_dir(&library).expect("a library").next();
    let packages = python
        .expect("Python's")
        .expect("readable")
        .path()
        .join("site-packages");
    let mut removed = 0;
    for entry in fs::read_dir(packages).expect("packages") {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with(prefix) {
            fs::remove_dir_all(path).expect("removed");
            removed += 1;
        }
    }
    assert!(removed > 0, "nothing is called {prefix}…");
}

#[tokio::test]
async fn what_is_no_environment_is_left_alone() {
    let builder = server();
    let file = builder.directory().join("file");
    fs::write(&file, "").expect("written");
    let failure = builder.virtual_environment(&file).start_refused().await;
    failure.check(
        1,
        "is not a directory, so it cannot be the virtual environment",
    );

    let other = tempfile::tempdir().expect("made");
    fs::write(other.path().join("cat.jpg"), "").expect("written");
    // As an activated environment would be named.
    let failure = server()
        .without("--virtual-env-location")
        .variable("VIRTUAL_ENV", &other.path().display().to_string())
        .start_refused()
        .await;
    failure.check(1, "is not a virtual environment (it has no pyvenv.cfg)");
    assert!(other.path().join("cat.jpg").exists());

    let nowhere = Path::new("/proc/outrigger-venv");
    let failure = server()
        .without("--virtual-env-location")
        .variable("VIRTUAL_ENV", &nowhere.display().to_string())
        .start_refused()
        .await;
    failure.check(
        1,
        "write /proc/outrigger-venv: the server's user must be able to write",
    );
}

#[tokio::test]
async fn a_lost_interpreter_is_named_with_the_command_that_mends_it() {
    let builder = server();
    let location = venv(&builder);
    fs::create_dir_all(location.join("bin")).expect("made");
    fs::write(location.join("pyvenv.cfg"), "home = /gone\n").expect("written");
    symlink("/gone/bin/python3", location.join("bin/python")).expect("a link");
    let remedy = format!("python3 -m venv --clear {}", location.display());
    let failure = builder.virtual_environment(&location).start_refused().await;
    failure.check(1, "has lost its interpreter");
    failure.check(1, &remedy);
}

#[tokio::test]
async fn an_interpreter_that_is_too_old_or_broken_is_refused() {
    for (script, said) in [
        (
            "#!/bin/sh\necho python 3.9.2\n",
            "is Python 3.9.2, but plugins need 3.11 to 3.13",
        ),
        (
            "#!/bin/sh\necho no such library >&2\nexit 127\n",
            "no such library",
        ),
    ] {
        let builder = server();
        let location = venv(&builder);
        let python = location.join("bin/python");
        fs::create_dir_all(location.join("bin")).expect("made");
        fs::write(&python, script).expect("written");
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("executable");
        let failure = builder.virtual_environment(&location).start_refused().await;
        failure.check(1, said);
        failure.check(1, "-m venv --clear");
    }
}

#[tokio::test]
async fn an_environment_without_pip_is_refused_with_the_command_that_adds_it() {
    let builder = own().await;
    let location = venv(&builder);
    uninstall(&location, "pip");
    let failure = builder.start_refused().await;
    let remedy = format!("{}/bin/python -m ensurepip", location.display());
    failure.check(1, "has no pip");
    failure.check(1, &remedy);
}

#[tokio::test]
async fn an_environment_that_goes_while_the_server_runs_is_named_in_the_next_error() {
    const LATE: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            if row['f'] > 1:
                import pip
";
    let builder = own().await;
    let location = venv(&builder);
    let server = builder
        .plugin("late.py", LATE)
        .plugin("reports.py", WRITE_REPORTS)
        // A warm worker could still run the new trigger.
        .flag("--plugin-spare-workers", "0")
        .allow_log("cannot start a worker", "there is nothing to run it with")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("alive", "late.py")
        .spec("table:m")
        .create()
        .await;
    let steady = db.trigger("steady", "reports.py").spec("table:m");
    steady.create().await;
    db.write("m f=1 1").await;
    for name in ["alive", "steady"] {
        db.until_logged(name, 1, "finished execution").await;
    }
    fs::remove_dir_all(&location).expect("removed");
    db.write("m f=2 2").await;
    // Who needs nothing new goes on.
    db.until_logged("steady", 2, "finished execution").await;
    let logged = db.until_logged("alive", 1, "No module named 'pip'").await;
    assert!(logged[0].text.contains("is gone"), "{logged:?}");
    assert!(logged[0].text.contains("restart the server"), "{logged:?}");

    db.trigger("new", "reports.py")
        .spec("table:m")
        .create()
        .await;
    db.write("m f=1 3").await;
    eventually("the new trigger says why it does not run", async || {
        let logs = db.logs("new").await;
        let found = logs.iter().any(|row| {
            row.text.contains("no worker could be started") && row.text.contains("is gone")
        });
        found.then_some(()).ok_or(format!("{logs:?}"))
    })
    .await;
    let install = server
        .client()
        .post(INSTALL, &json!({ "packages": ["six"] }))
        .await;
    install.check_refused(503, "is gone");
}

#[tokio::test]
async fn without_package_management_plugins_run_in_what_is_there() {
    let builder = own().await;
    // As where the operator has installed only what is on PyPI.
    uninstall(&venv(&builder), "outrigger_plugin_host");
    let server = builder
        .plugin("reports.py", WRITE_REPORTS)
        .flag("--package-manager", "disabled")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "reports.py").spec("table:m").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "finished execution").await;

    let refused = server
        .client()
        .post(INSTALL, &json!({ "packages": ["six"] }))
        .await;
    assert_eq!((refused.status, refused.body.as_str()), (403, DISABLED));
    let expected = format!(
        "Install command failed: server responded with error [403 Forbidden]: {DISABLED}\n"
    );
    let cli = server.command_line();
    let refused = cli.run(&["install", "package", "six"]);
    assert_eq!((refused.code, refused.stderr), (1, expected));
}

#[tokio::test]
async fn without_package_management_a_missing_need_is_named() {
    let builder = own().await;
    uninstall(&venv(&builder), "pyarrow-");
    let failure = builder
        .switch("--disable-package-management")
        .start_refused()
        .await;
    failure.check(1, "bin/python -m pip install 'pyarrow>=15'");
}

#[tokio::test]
async fn another_package_manager_is_accepted_with_a_warning() {
    let reason = "uv is accepted, but pip is what runs";
    let builder = server()
        .plugin("p.py", "")
        .allow_log("--package-manager uv means pip", reason);
    let server = builder.flag("--package-manager", "uv").start().await;
    assert!(server.has_logged("--package-manager uv means pip"));
}

#[tokio::test]
async fn without_a_plugin_directory_nothing_can_be_installed() {
    let server = server().without("--plugin-dir").start().await;
    let refused = server
        .client()
        .post(INSTALL, &json!({ "packages": ["six"] }))
        .await;
    let text = "Processing engine error: error installing python packages: Plugin environment \
                management is disabled";
    assert_eq!((refused.status, refused.body.as_str()), (400, text));
}

#[tokio::test]
async fn the_search_path_of_the_servers_environment_is_the_plugins() {
    let plugin = |import: &str| {
        format!(
            "{import}\n\
             def process_request(influxdb3_local, query, headers, body, args=None):\n    \
             import outrigger_elsewhere\n    return outrigger_elsewhere.NAME\n"
        )
    };
    let builder = server()
        .plugin("one.py", &plugin(""))
        .plugin("pack/__init__.py", &plugin("import outrigger_elsewhere"));
    let library = builder.directory().join("library");
    fs::create_dir(&library).expect("made");
    fs::write(library.join("outrigger_elsewhere.py"), "NAME = 'found'\n").expect("written");
    // Relative to where the server was started.
    let server = builder.variable("PYTHONPATH", "library").start().await;
    let db = server.database("db").create().await;
    for (name, file) in [("one", "one.py"), ("pack", "pack")] {
        let spec = format!("request:{name}");
        db.trigger(name, file).spec(&spec).create().await;
        eventually("the module is found", async || {
            let path = format!("/api/v3/engine/{name}");
            let reply = server.client().call(Method::GET, &path).await;
            (reply.body == "found")
                .then_some(())
                .ok_or(format!("{reply:?}"))
        })
        .await;
    }
}
