//! What a plugin can reach, and what it cannot: judged by what it gets to see, and by what is
//! there afterwards.

use std::{fs, path::Path};

use outrigger_integration_tests::{Builder, Reply, Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

/// Runs whatever it is sent.
const OBEYS: &str = include_str!("../../plugins/obeys.py");

fn obedient() -> Builder {
    server().plugin("obeys.py", OBEYS)
}

/// Creates a trigger on requests that obeys.
async fn serve(server: &Server, name: &str) {
    let db = server.database("db");
    let trigger = db.trigger(name, "obeys.py");
    trigger.spec(&format!("request:{name}")).create().await;
    eventually("the path is answered", async || {
        let reply = send(server, name, "").await;
        (reply.status == 200)
            .then_some(())
            .ok_or_else(|| format!("{reply:?}"))
    })
    .await;
}

async fn send(server: &Server, name: &str, program: &str) -> Reply {
    let path = format!("/api/v3/engine/{name}");
    let request = server.client().request(Method::POST, &path);
    let program = program.to_owned();
    server.client().answer(request.body(program)).await
}

/// What the program leaves in `result`.
async fn ask(server: &Server, name: &str, program: &str) -> Value {
    let reply = send(server, name, program).await;
    assert_eq!(reply.status, 200, "{program}: {reply:?}");
    reply.json()["result"].clone()
}

/// What the worker of the trigger is confined by.
async fn enforcement(server: &Server, name: &str) -> String {
    let sql =
        format!("SELECT enforcement FROM system.plugin_workers WHERE trigger_name = '{name}'");
    let rows = server.database("db").query(&sql).await;
    rows[0]["enforcement"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Whether the kernel confines files here; says so if it does not.
async fn confines_files(server: &Server) -> bool {
    let words = enforcement(server, "t").await;
    let confines = words.contains("landlock=enforced");
    if !confines {
        #[expect(clippy::print_stdout, reason = "a story that is skipped says so")]
        {
            println!("skipped: this machine does not confine files: {words}");
        }
    }
    confines
}

async fn until_gone(path: &Path) {
    let what = format!("{} is gone", path.display());
    eventually(&what, async || {
        let gone = !path.exists();
        gone.then_some(()).ok_or_else(|| "it is there".to_owned())
    })
    .await;
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

#[tokio::test]
async fn a_worker_says_what_confines_it() {
    let server = obedient().start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    let words = enforcement(&server, "t").await;
    for layer in [
        "limits=",
        "no_new_privileges=enforced",
        "landlock=",
        "environment=enforced",
    ] {
        assert!(words.contains(layer), "{words}");
    }
    assert!(server.has_logged("workers are confined"));
    assert!(server.has_logged(&words));
    let status = ask(&server, "t", "result = open('/proc/self/status').read()").await;
    assert!(status.as_str().unwrap().contains("NoNewPrivs:\t1"));
}

/// What plugins need, as arguments of `tried`.
const ALLOWED: [&str; 13] = [
    "open, 'beside.toml'",
    "open, os.path.join(os.environ['PLUGIN_DIR'], 'beside.toml')",
    "open, 'own.txt', 'w'",
    "os.mkdir, os.path.expanduser('~/.cache')",
    "tempfile.TemporaryFile",
    "__import__, 'sqlite3'",
    "__import__, 'pyarrow'",
    "open, '/dev/null', 'w'",
    "open, '/proc/stat'",
    "open, '/proc/meminfo'",
    "open, '/proc/self/status'",
    "open, '/proc/self/maps'",
    "open, '/etc/resolv.conf'",
];

#[tokio::test]
async fn files_of_the_server_and_of_others_cannot_be_reached() {
    let builder = obedient().plugin("beside.toml", "a = 1");
    let secret = builder.directory().join("secret.txt");
    fs::write(&secret, "secret").unwrap();
    let server = builder.start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    serve(&server, "other").await;
    if !confines_files(&server).await {
        return;
    }
    let home = "import os; result = os.environ['HOME']";
    let other = ask(
        &server,
        "other",
        &format!("{home}; open('mine', 'w').write('x')"),
    )
    .await;
    let other = Path::new(other.as_str().unwrap()).to_owned();
    assert!(other.join("mine").exists());
    let run = other_run_directory(&server).await;
    let server_pid = server.pid();
    for forbidden in [
        format!("open, {}", quoted(&secret)),
        format!("open, {}", quoted(&other.join("mine"))),
        format!("os.listdir, {}", quoted(&other)),
        format!("os.listdir, {}", quoted(other.parent().unwrap())),
        format!("os.listdir, {}", quoted(&server.data_directory())),
        format!("os.listdir, {}", quoted(&run)),
        format!("open, '/proc/{server_pid}/environ', 'rb'"),
        format!("open, '/proc/{server_pid}/maps', 'rb'"),
        format!("open, '/proc/{server_pid}/cmdline', 'rb'"),
        "open, f'/proc/{os.getppid()}/environ', 'rb'".to_owned(),
        "os.listdir, '/proc'".to_owned(),
        "os.listdir, '/'".to_owned(),
        "open, '/etc/shadow', 'rb'".to_owned(),
        "open, '/proc/net/unix'".to_owned(),
        "open, '/proc/net/tcp'".to_owned(),
        "open, '/proc/self/mountinfo'".to_owned(),
        "open, f'/proc/self/task/{os.getpid()}/net/unix'".to_owned(),
        "os.listdir, '/sys/fs/cgroup'".to_owned(),
        "open, os.path.join(sys.prefix, 'planted.py'), 'w'".to_owned(),
        "open, os.path.join(os.path.dirname(os.readlink('obeys.py')), 'planted.py'), 'w'"
            .to_owned(),
        "open, 'obeys.py', 'a'".to_owned(),
        "os.symlink('/etc/shadow', 'link') or open, 'link', 'rb'".to_owned(),
    ] {
        let program = format!("import os, sys; result = tried({forbidden})");
        let result = ask(&server, "t", &program).await;
        // Where it has a file tree of its own, it does not even see what it must not read.
        let refused = result == "PermissionError" || result == "FileNotFoundError";
        assert!(refused, "{forbidden}: {result}");
        drop(
            ask(
                &server,
                "t",
                "import os; os.path.lexists('link') and os.unlink('link')",
            )
            .await,
        );
    }
    for allowed in ALLOWED {
        let program = format!("import os, tempfile; result = tried({allowed})");
        let result = ask(&server, "t", &program).await;
        assert_eq!(result, "ok", "{allowed}");
    }
}

/// The directory with the workers' socket.
async fn other_run_directory(server: &Server) -> std::path::PathBuf {
    let temporary = ask(server, "other", "import os; result = os.environ['TMPDIR']").await;
    let temporary = Path::new(temporary.as_str().expect("a path")).to_owned();
    let run = temporary.ancestors().nth(2);
    run.expect("it lies in one").to_owned()
}

#[tokio::test]
async fn the_servers_variables_are_not_the_plugins() {
    let builder = obedient()
        .variable("INFLUXDB3_PLUGIN_REPO_TIMEOUT", "29s")
        .variable("INFLUXDB3_AUTH_TOKEN", "the plugins' own")
        .variable("AWS_SECRET_ACCESS_KEY", "the server's")
        .variable("NOTIFY_SOCKET", "/nowhere")
        .variable("API_KEY", "the plugins' own");
    let server = builder.start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    let found = ask(&server, "t", "import os; result = dict(os.environ)").await;
    let found = found.as_object().unwrap();
    for own in ["API_KEY", "INFLUXDB3_AUTH_TOKEN"] {
        assert_eq!(found[own], "the plugins' own");
    }
    for own in [
        "INFLUXDB3_PLUGIN_REPO_TIMEOUT",
        "AWS_SECRET_ACCESS_KEY",
        "NOTIFY_SOCKET",
    ] {
        assert!(!found.contains_key(own), "{own}");
    }
    assert_eq!(found["HOME"], found["PLUGIN_DIR"]);
    assert_eq!(found["HOME"], found["INFLUXDB3_PLUGIN_DIR"]);
}

#[tokio::test]
async fn the_operator_can_list_what_plugins_get() {
    let builder = obedient()
        .variable("API_KEY", "wanted")
        .variable("AWS_REGION", "wanted")
        .variable("OTHER", "unwanted")
        // The last one tells whose processes these are.
        .flag("--plugin-env", "API_*,AWS_REGION,OUTRIGGER_TEST_ID");
    let server = builder.start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    let names = "['API_KEY', 'AWS_REGION', 'OTHER']";
    let program = format!("import os; result = [os.environ.get(name) for name in {names}]");
    let found = ask(&server, "t", &program).await;
    assert_eq!(found, json!(["wanted", "wanted", null]));
}

#[tokio::test]
async fn what_a_trigger_keeps_outlives_the_server_and_goes_with_the_trigger() {
    let mut server = obedient()
        .allow_log("cannot start a worker", "those that begin are killed too")
        .start()
        .await;
    let db = server.database("db").create().await;
    serve(&server, "t").await;
    let keep = "import os, tempfile; open('kept', 'a').write('x'); \
                open(os.path.join(tempfile.gettempdir(), 'temporary'), 'w'); \
                result = [os.getcwd(), tempfile.gettempdir()]";
    let places = ask(&server, "t", keep).await;
    let [home, temporary] = [0, 1].map(|n| Path::new(places[n].as_str().unwrap()).to_owned());
    assert!(temporary.join("temporary").exists());
    server.kill_workers().await;
    until_gone(&temporary).await;
    server.stop();
    server.restart().await;
    serve_again(&server, "t").await;
    let kept = "result = open('kept').read()";
    assert_eq!(ask(&server, "t", kept).await, "x");
    // Both kinds of entries: the plugin's own, and the operator's in it.
    server.write_plugin("new.toml", "b = 2");
    let new = ask(&server, "t", "result = open('new.toml').read()").await;
    assert_eq!(new, "b = 2");
    let db = server.database(db.name());
    db.delete_trigger("t", true).await.check_success("delete");
    until_gone(&home).await;
    assert!(server.directory().join("plugins/new.toml").exists());
}

async fn serve_again(server: &Server, name: &str) {
    eventually("the path is answered", async || {
        let reply = send(server, name, "").await;
        (reply.status == 200)
            .then_some(())
            .ok_or_else(|| format!("{reply:?}"))
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_no_trigger_any_more_is_removed_at_the_start() {
    let mut server = obedient().start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    let home = ask(&server, "t", "import os; result = os.getcwd()").await;
    let home = Path::new(home.as_str().unwrap()).to_owned();
    server.stop();
    let orphan = home.with_file_name("trigger-9999");
    fs::create_dir(&orphan).unwrap();
    fs::write(orphan.join("file"), "x").unwrap();
    server.restart().await;
    until_gone(&orphan).await;
    assert!(home.exists());
}

#[tokio::test]
async fn a_worker_that_fills_the_disk_is_ended_and_the_next_waits_for_room() {
    let server = obedient()
        .flag("--plugin-private-size", "20mb")
        .allow_log("a plugin's worker ended", "the plugin fills the disk")
        .allow_log("too many files", "the plugin fills the disk")
        .start()
        .await;
    let db = server.database("db").create().await;
    serve(&server, "t").await;
    let home = ask(&server, "t", "import os; result = os.getcwd()").await;
    let home = Path::new(home.as_str().unwrap()).to_owned();
    let fill = "import time\nfor n in range(5):\n    open(f'f{n}', 'wb').write(bytes(10_000_000))\n\
                time.sleep(600)";
    let reply = send(&server, "t", fill).await;
    assert_ne!(reply.status, 200, "{reply:?}");
    let text = "hold more than 20 MiB or 50000 files";
    let logs = db.until_logged("t", 1, text).await;
    assert!(logs[0].text.contains("--plugin-private-size"), "{logs:?}");
    let reply = send(&server, "t", "result = 1").await;
    assert_ne!(reply.status, 200, "{reply:?}");
    for n in 0..5 {
        fs::remove_file(home.join(format!("f{n}"))).unwrap();
    }
    assert_eq!(ask(&server, "t", "result = 1").await, 1);
}

#[tokio::test]
async fn one_file_and_the_memory_have_limits() {
    let server = obedient()
        .flag("--plugin-private-size", "50mb")
        .flag("--plugin-address-space", "2gb")
        .start()
        .await;
    server.database("db").create().await;
    serve(&server, "t").await;
    for (attempt, expected) in [
        ("open('f', 'wb').truncate, 100_000_000", "OSError"),
        ("bytearray, 3_000_000_000", "MemoryError"),
    ] {
        let program = format!("import os; result = tried({attempt})");
        assert_eq!(ask(&server, "t", &program).await, expected, "{attempt}");
    }
    let core = "import resource; result = resource.getrlimit(resource.RLIMIT_CORE)";
    assert_eq!(ask(&server, "t", core).await, json!([0, 0]));
}

#[tokio::test]
async fn without_the_sandbox_nothing_is_confined() {
    let builder = obedient().flag("--sandbox", "off");
    let open = builder.directory().join("open.txt");
    fs::write(&open, "open").unwrap();
    let server = builder.start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    let read = format!("result = open({}).read()", quoted(&open));
    assert_eq!(ask(&server, "t", &read).await, "open");
    let words = enforcement(&server, "t").await;
    assert!(words.contains("landlock=off"), "{words}");
}

#[tokio::test]
async fn workers_of_a_server_of_root_are_somebody_else() {
    let builder = obedient();
    let mut builder = builder.variable("PATH", "/usr/local/bin:/usr/bin:/bin");
    if nix::unistd::geteuid().is_root() {
        // Its interpreter is one that everybody may run.
        let shared = Path::new(crate::BINARY).ancestors().nth(2);
        let shared = shared
            .expect("target/<profile>")
            .join("integration-root-venv");
        builder = builder.virtual_environment(&shared);
    }
    let mut server = builder.start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    let words = enforcement(&server, "t").await;
    if !words.contains("user=enforced") {
        println!("skipped: workers are the server's user's here: {words}");
        assert!(words.contains("user=degraded("), "{words}");
        return;
    }
    let who = "import os; open('kept', 'w').write('x'); \
               result = [*os.getresuid(), *os.getresgid(), *os.getgroups()]";
    assert_eq!(ask(&server, "t", who).await, json!(vec![0x7000_0000; 6]));
    let other = "import os; result = tried(os.setuid, 0)";
    assert_eq!(ask(&server, "t", other).await, "OSError");
    let home = "import os; result = os.environ['HOME']";
    let home = ask(&server, "t", home).await;
    let home = Path::new(home.as_str().expect("a path")).to_owned();
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(&home.join("kept")), 0x7000_0000);
    server.stop();

    // What is closed to others keeps workers what the server is, and they find their files.
    let metadata = fs::metadata(server.plugin_directory()).unwrap();
    let mut closed = metadata.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut closed, 0o700);
    fs::set_permissions(server.plugin_directory(), closed).unwrap();
    server.restart().await;
    serve_again(&server, "t").await;
    let words = enforcement(&server, "t").await;
    assert!(
        words.contains("plugins is closed to other users"),
        "{words}"
    );
    let kept = "open('kept', 'a').write('y'); result = open('kept').read()";
    assert_eq!(ask(&server, "t", kept).await, "xy");
    assert_eq!(owner(&home.join("kept")), 0);
}

#[tokio::test]
async fn workers_have_a_file_tree_shared_memory_and_a_network_of_their_own() {
    let server = obedient().start().await;
    server.database("db").create().await;
    serve(&server, "t").await;
    serve(&server, "other").await;
    let words = enforcement(&server, "t").await;
    for layer in ["mount", "ipc", "uts", "network"] {
        if !words.contains(&format!("{layer}_namespace=enforced")) {
            println!("skipped: no namespaces are to be had here: {words}");
            return;
        }
    }
    assert!(words.contains("pid_namespace=degraded("), "{words}");
    let run = other_run_directory(&server).await;
    let data = server.data_directory();
    for hidden in [&run.join("supervisor.sock"), &data.join("node0/wal")] {
        let program = format!("import os; result = tried(os.stat, {})", quoted(hidden));
        assert_eq!(
            ask(&server, "t", &program).await,
            "FileNotFoundError",
            "{hidden:?}"
        );
    }
    // What is shared is the worker's own.
    let keep = "open('/dev/shm/mine', 'w').write('x'); import os; result = os.listdir('/dev/shm')";
    for name in ["t", "other"] {
        assert_eq!(ask(&server, name, keep).await, json!(["mine"]));
    }
    assert!(!Path::new("/dev/shm/mine").exists());
    let devices = "import os; result = [os.path.exists(f'/dev/{name}') for name in ['null', 'mem', 'pts', 'tty']]";
    assert_eq!(
        ask(&server, "t", devices).await,
        json!([true, false, false, false])
    );
    // All connections are the server's; the plugin's own network has nothing.
    for name in ["mnt", "ipc", "uts", "net"] {
        let own = format!("import os; result = os.readlink('/proc/self/ns/{name}')");
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(ask(&server, "t", &own).await, ours.display().to_string());
    }
    let url = format!("{}/health", server.client().url());
    let program = format!("import urllib.request; result = urllib.request.urlopen('{url}').status");
    assert_eq!(ask(&server, "t", &program).await, 200);
    // The disks are the machine's.
    let disk = "import os; s = os.statvfs('/'); result = s.f_blocks * s.f_frsize";
    let found = nix::sys::statvfs::statvfs("/").unwrap();
    let size = found.blocks() * found.fragment_size();
    assert_eq!(ask(&server, "t", disk).await, size);
}
