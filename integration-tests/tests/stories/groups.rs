//! Control groups: a worker and all that it starts are bounded together, and nothing of them is
//! left.

use std::path::{Path, PathBuf};

use outrigger_integration_tests::{Server, eventually};
use reqwest::Method;
use serde_json::Value;

use crate::server;

const OBEYS: &str = include_str!("../../plugins/obeys.py");

/// Forks until it is refused, and says how many there were.
const FORKS: &str = "
import os, signal
children, result = [], 'all of them'
try:
    for _ in range(2000):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    result = [len(children), error.errno]
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
";

/// Leaves a process behind that is not its child.
const DETACHES: &str = "
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.pause()
    os._exit(0)
os.wait()
result = 1
";

const GROUPS: &str = "result = open('/proc/self/cgroup').read()";

#[expect(clippy::print_stdout, reason = "a story that is skipped says so")]
fn say(text: &str) {
    println!("{text}");
}

async fn ask(server: &Server, program: &str) -> Value {
    let request = server.client().request(Method::POST, "/api/v3/engine/t");
    let reply = server
        .client()
        .answer(request.body(program.to_owned()))
        .await;
    assert_eq!(reply.status, 200, "{program}: {reply:?}");
    reply.json()["result"].clone()
}

async fn serve(server: &Server) {
    eventually("the path is answered", async || {
        let request = server.client().request(Method::POST, "/api/v3/engine/t");
        let reply = server.client().answer(request.body("")).await;
        let is_there = reply.status == 200;
        is_there.then_some(()).ok_or_else(|| format!("{reply:?}"))
    })
    .await;
}

/// The group of the worker that bounds processes; `None` where it is the server's.
async fn group(server: &Server) -> Option<PathBuf> {
    let groups = ask(server, GROUPS).await;
    let groups = groups.as_str().expect("a text");
    let own = |mark: &str| {
        groups
            .lines()
            .find_map(|line| Some(line.split_once(mark)?.1))
    };
    let (at, own) = match own(":pids:/") {
        Some(own) => ("/sys/fs/cgroup/pids", own),
        None => ("/sys/fs/cgroup", own("0::/")?),
    };
    let is_own = own.contains("outrigger-server-");
    is_own.then(|| Path::new(at).join(own))
}

#[tokio::test]
async fn a_worker_and_what_it_starts_are_one_group() {
    let mut server = server().plugin("obeys.py", OBEYS).start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "obeys.py");
    trigger.spec("request:t").subprocesses().create().await;
    serve(&server).await;
    let sql = "SELECT enforcement FROM system.plugin_workers WHERE trigger_name = 't'";
    let rows = db.query(sql).await;
    let words = rows[0]["enforcement"].as_str().expect("words").to_owned();
    assert!(words.contains("cgroup="), "{words}");
    let Some(own) = group(&server).await else {
        assert!(words.contains("cgroup=degraded("), "{words}");
        say(&format!(
            "skipped: this server can make no control groups: {words}"
        ));
        return;
    };
    let max = std::fs::read_to_string(own.join("pids.max")).expect("it is bounded");
    assert_eq!(max.trim(), "1024");

    let stopped = ask(&server, FORKS).await;
    let count = stopped[0].as_u64().expect("it is stopped");
    assert!((500..1024).contains(&count), "{stopped}");
    // It still runs, and so does what others start.
    assert_eq!(ask(&server, "result = 1").await, 1);

    // What it leaves behind, and its group, go with it.
    let room = own.parent().expect("it is in the server's").to_owned();
    ask(&server, DETACHES).await;
    server.stop();
    assert!(!own.exists() && !room.exists(), "{}", room.display());

    // Nor does a server that is killed leave anything to those that come after it.
    server.restart().await;
    serve(&server).await;
    let own = group(&server).await.expect("it has one again");
    let room = own.parent().expect("it is in the server's").to_owned();
    ask(&server, DETACHES).await;
    server.kill_9();
    assert!(room.exists(), "nobody was there to remove it");
    server.restart().await;
    assert!(!room.exists(), "{}", room.display());
    serve(&server).await;
    assert!(group(&server).await.is_some());
}

#[tokio::test]
async fn the_sandbox_is_tried_out_for_all_who_run_packages() {
    let server = server().start().await;
    let tried = server
        .command_line()
        .run(&["show", "sandbox", "--attempts"]);
    assert_eq!(tried.code, 0, "{tried:?}");
    let text = tried.stdout;
    for who in ["a worker", "a host", "pip"] {
        assert!(text.contains(&format!("Layers of {who}:")), "{text}");
    }
    for who in ["a plugin", "a host", "pip"] {
        let read = format!("{who}: read a file of the server");
        assert!(text.contains(&read), "{text}");
    }
    for layer in ["cgroup", "user"] {
        assert!(text.contains(&format!("\n  {layer} ")), "{text}");
    }
    // What can be had by root here is tried, and not only believed.
    if text.contains("\n  user               enforced") {
        assert!(text.contains("become the server's user: refused"), "{text}");
    }
}
