//! A package that is hostile: its build, and what it leaves in the environment, which runs in
//! every interpreter that starts there, in hosts above all.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use outrigger_integration_tests::{Server, build_poisoned, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const PACKAGES: &str = "/api/v3/configure/plugin_environment/install_packages";
const SECRET: &str = "the server's own secret";
/// A host prints this when it starts.
const IN_THE_HOST: &str = "poison with host ";

const IMPORTER: &str = "
import importlib

def process_request(influxdb3_local, query, headers, body, args=None):
    return {'version': importlib.import_module(query['module']).__version__}
";

/// A server in whose environment the package is, and what would notice that it gets out.
struct Poisoned {
    server: Server,
    tcp: TcpListener,
    unix: UnixListener,
}

impl Poisoned {
    /// Installs it, twice: the second time, over what the first has left.
    async fn install(mode: &str) -> Self {
        drop(server().plugin("p.py", "").start().await);
        let builder = server().own_virtual_environment();
        let story = builder.directory().to_owned();
        let tcp = TcpListener::bind("127.0.0.1:0").expect("listen");
        tcp.set_nonblocking(true).expect("it is ours");
        let unix = UnixListener::bind(story.join("open.sock")).expect("listen");
        unix.set_nonblocking(true).expect("it is ours");
        fs::write(story.join("secret.txt"), SECRET).expect("written");
        let packages = story.join("packages");
        fs::create_dir(&packages).expect("made");
        let server = builder
            .plugin("importer.py", IMPORTER)
            .variable("PIP_FIND_LINKS", &packages.display().to_string())
            .variable("PIP_NO_INDEX", "1")
            .variable("AWS_SECRET_ACCESS_KEY", SECRET)
            .flag("--sandbox", mode)
            .start()
            .await;
        let places = json!({
            "story": story,
            "data": story.join("data"),
            "plugins": story.join("plugins"),
            "port": tcp.local_addr().expect("it listens").port(),
            "pid": server.pid(),
            "wheel": "outrigger_plugin_host.whl",
        });
        for version in ["1.0", "2.0"] {
            build_poisoned(&packages, version, &places);
            let body = json!({ "packages": [format!("outrigger-poison=={version}")] });
            let installed = server.client().post(PACKAGES, &body).await;
            assert_eq!(installed.status, 200, "{installed:?}");
        }
        Self { server, tcp, unix }
    }

    /// What the build could do that it must not, as the module says that it has made.
    async fn done_by_the_build(&self) -> Value {
        let db = self.server.database("db").create().await;
        db.trigger("t", "importer.py")
            .spec("request:i")
            .create()
            .await;
        let path = "/api/v3/engine/i?module=outrigger_evidence";
        let imported = async || {
            let reply = self.server.client().call(Method::GET, path).await;
            (reply.status == 200)
                .then(|| reply.json())
                .ok_or(format!("{reply:?}"))
        };
        eventually("what was installed can be imported", imported).await["version"].clone()
    }

    /// What it could do in hosts that it must not.
    fn done_in_hosts(&self) -> Vec<String> {
        let lines = self.server.log_lines();
        let said = lines
            .iter()
            .filter_map(|line| line.split_once(IN_THE_HOST).map(|(_, said)| said));
        let said = said.filter_map(|said| said.split_once('"').map(|(said, _)| said));
        said.map(str::to_owned).collect()
    }

    fn exists(&self, path: &str) -> bool {
        self.server.directory().join(path).exists()
    }
}

#[tokio::test]
async fn a_hostile_package_gets_nothing_out() {
    let poisoned = Poisoned::install("auto").await;
    let built = poisoned.done_by_the_build().await;
    if !poisoned.server.has_logged("landlock=enforced") {
        println!("skipped: this machine does not confine files");
        return;
    }
    assert_eq!(built, json!([]));
    let hosts = poisoned.done_in_hosts();
    assert!(!hosts.is_empty(), "it has run in no host");
    // Where nothing hides sockets from them, hosts have what their workers need.
    let hidden = poisoned.server.has_logged("mount_namespace=enforced");
    let harmless = |said: &String| said == "[]" || !hidden && said == "['reach a Unix socket']";
    assert!(hosts.iter().all(harmless), "{hosts:?}");

    for planted in [
        "written",
        "data/planted",
        "plugins/planted.py",
        "venv/planted",
    ] {
        assert!(!poisoned.exists(planted), "{planted}");
    }
    assert!(poisoned.tcp.accept().is_err(), "somebody has connected");
    // Links that it left in the place of files of the server.
    let secret = fs::read_to_string(poisoned.server.directory().join("secret.txt"));
    assert_eq!(secret.expect("it is there"), SECRET);
    if hidden {
        assert!(poisoned.unix.accept().is_err(), "somebody has connected");
    }
}

/// A test of the attempts.
#[tokio::test]
async fn without_the_sandbox_it_gets_everything() {
    let poisoned = Poisoned::install("off").await;
    let built = poisoned.done_by_the_build().await;
    for done in [
        "read a file",
        "write a file",
        "list the data",
        "write a plugin",
        "change the mode of a plugin",
        "signal the server",
        "reach a Unix socket",
    ] {
        let done = json!(done);
        let list = built.as_array().expect("a list");
        assert!(list.contains(&done), "{done}: {built}");
    }
    let hosts = poisoned.done_in_hosts();
    for done in ["'connect'", "'write into the environment'", "'read a file'"] {
        assert!(hosts.iter().any(|said| said.contains(done)), "{hosts:?}");
    }
    assert!(poisoned.exists("written") && poisoned.exists("venv/planted"));
}

#[tokio::test]
async fn an_interpreter_that_was_exchanged_is_confined_as_well() {
    let mut server = Poisoned::install("auto").await.server;
    server.database("db").create().await;
    server.stop();
    // As the build of a package could have left it.
    let [cfg, python] =
        ["venv/pyvenv.cfg", "venv/bin/python"].map(|path| server.directory().join(path));
    let secrets = server.directory().join("secrets");
    fs::create_dir_all(secrets.join("bin")).expect("made");
    let script = format!(
        "#!/bin/sh\ncat {}/secret.txt\n",
        server.directory().display()
    );
    write_program(&secrets.join("bin/python3"), &script);
    let home = format!("home = {}\n", secrets.join("bin").display());
    fs::write(cfg, home).expect("written");
    fs::remove_file(&python).expect("removed");
    write_program(&python, &script);
    drop(symlink(&python, server.directory().join("venv/bin/pip3")));
    let refused = server.restart_refused().await;
    let said = format!("{refused:?}");
    assert!(said.contains("does not run"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}
