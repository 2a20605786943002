//! Workers that break the protocol: each is killed with the reason, and nobody else notices.

mod peers;

use outrigger_integration_tests::{Server, eventually};
use reqwest::Method;
use serde_json::json;

use crate::server;

/// Speaks to the server behind its own API's back when it gets a row of `attack`; else
/// reports its process.
const HOSTILE: &str = "
import gc, os, time
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

def attack(how, invocation):
    send = next(o for o in gc.get_objects() if isinstance(o, Outbox)).send
    if how == 'stranger':
        send(m.FromWorker(completed=m.Completed(invocation='other', ok={})))
    if how == 'hello':
        send(m.FromWorker(hello=m.Hello(protocol=2)))
    if how == 'long':
        send(m.FromWorker(log=m.Log(invocation=invocation, level=1, text='x' * 100_000)))
    if how == 'huge':
        send(m.FromWorker(log=m.Log(invocation=invocation, level=1, text='x' * 20_000_000)))
    if how == 'empty':
        send(m.FromWorker())
    if how == 'flood':
        for _ in range(300):
            lines = b'x f=1\\n' * 40_000
            send(m.FromWorker(lines=m.Lines(invocation=invocation, text=lines)))
    time.sleep(60)

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] == 'attack':
            attack(args['how'], influxdb3_local.invocation_id)
        if batch['table_name'] == 'work':
            influxdb3_local.write(LineBuilder('runs').int64_field('pid', os.getpid()))
";

#[track_caller]
fn check_reason(text: &str, reason: &str) {
    let expected = "error executing wal plugin: the worker broke the protocol and was killed: ";
    let first = text.lines().next().unwrap_or_default();
    let given = first.strip_prefix(expected);
    assert!(given.is_some_and(|given| given.contains(reason)), "{text}");
}

async fn run(how: &str, reason: &str) {
    let server = server()
        .plugin("hostile.py", HOSTILE)
        .allow_log("a plugin's worker ended", "the plugin provokes it")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "hostile.py")
        .argument("how", how)
        .create()
        .await;
    db.write("work f=1 1").await;
    let count = "SELECT count(*) AS runs FROM runs";
    db.until(count, json!([{ "runs": 1 }])).await;
    db.write("attack f=1 1").await;
    let failures = db
        .until_logged("t", 1, "the worker broke the protocol")
        .await;
    check_reason(&failures[0].text, reason);
    db.write("work f=1 2").await;
    db.until(count, json!([{ "runs": 2 }])).await;
    let distinct = "SELECT count(DISTINCT pid) AS pids FROM runs";
    db.until(distinct, json!([{ "pids": 2 }])).await;
}

#[tokio::test]
async fn a_message_about_another_invocation_ends_the_worker() {
    run("stranger", "completed for an unknown invocation").await;
}

#[tokio::test]
async fn a_message_out_of_turn_ends_the_worker() {
    run("hello", "hello during an invocation").await;
}

#[tokio::test]
async fn an_over_long_log_line_ends_the_worker() {
    run("long", "a log line of 100000 bytes").await;
}

#[tokio::test]
async fn an_over_large_message_ends_the_worker() {
    run("huge", "too large").await;
}

#[tokio::test]
async fn an_empty_message_ends_the_worker() {
    run("empty", "an empty message").await;
}

#[tokio::test]
async fn more_lines_than_the_limit_end_the_worker() {
    run(
        "flood",
        "it buffered more bytes of lines than the limit of an invocation",
    )
    .await;
}

/// Uses the secrets of its own invocation from a process that it starts.
const IMPERSONATOR: &str = "
import gc, os
import grpc
from outrigger_plugin_host import _messages as m

def process_writes(influxdb3_local, table_batches, args=None):
    run_directory = os.path.dirname(os.path.dirname(os.environ['TMPDIR']))
    socket = os.path.join(run_directory, 'supervisor.sock')
    channel = grpc.insecure_channel('unix:' + socket, [('grpc.default_authority', 'localhost')])
    write = channel.unary_unary(
        '/outrigger.plugin.v1.Supervisor/Write',
        request_serializer=m.WriteRequest.SerializeToString,
        response_deserializer=m.WriteReply.FromString,
    )
    request = m.WriteRequest(
        invocation=influxdb3_local.invocation_id, key=bytes(16), target='stolen', text=b'x f=1'
    )
    try:
        write(request, timeout=10)
        influxdb3_local.info('written')
    except grpc.RpcError as error:
        influxdb3_local.info('refused', error.code().name)
";

#[tokio::test]
async fn a_write_without_the_invocations_key_is_refused() {
    let server = server().plugin("p.py", IMPERSONATOR).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "refused PERMISSION_DENIED").await;
    let stolen = server.database("stolen").try_query("SELECT * FROM x").await;
    assert_eq!(stolen.status, 404, "{stolen:?}");
}

/// Everything else that a worker can say wrongly, each by a trigger of its own.
const VIOLATIONS: [(&str, &str); 8] = [
    ("ready", "ready during an invocation"),
    ("load_failed", "load failed during an invocation"),
    ("heartbeat", "a heartbeat that nobody asked for"),
    ("nothing", "lines without text"),
    ("target", "lines for a target with an over-long name"),
    ("targets", "lines for more targets than there can be"),
    ("bytes", "lines that are not UTF-8"),
    ("response", "completed with a response to no request"),
];

const VIOLATING: &str = "
import gc, time
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

def process_writes(influxdb3_local, table_batches, args=None):
    outbox = next(o for o in gc.get_objects() if isinstance(o, Outbox))
    how, run = args['how'], influxdb3_local.invocation_id
    def send(**message):
        outbox.send(m.FromWorker(**message))
    def lines(**parts):
        send(lines=m.Lines(invocation=run, **parts))
    if how == 'ready':
        send(ready=m.Ready(revision='x'))
    if how == 'load_failed':
        send(load_failed=m.LoadFailed(revision='x'))
    if how == 'heartbeat':
        send(heartbeat=m.Heartbeat(invocation=run, progress=1))
    if how == 'nothing':
        for _ in range(100_000):
            lines(text=b'')
    if how == 'target':
        lines(target='x' * 5000, text=b'x f=1')
    if how == 'targets':
        for n in range(5000):
            lines(target=f'target{n}', text=b'x f=1')
    if how == 'bytes':
        lines(text=b'x f=1 \\xff\\xfe')
        send(completed=m.Completed(invocation=run, ok={}))
    if how == 'response':
        send(completed=m.Completed(invocation=run, ok={'response': {'status': 200}}))
    time.sleep(60)
";

/// Answers with more headers than anybody reads, behind the runtime's back.
const HEADERS: &str = "
import gc, time
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

def process_request(influxdb3_local, query, headers, body, args=None):
    outbox = next(o for o in gc.get_objects() if isinstance(o, Outbox))
    headers = [{'name': f'x-{n}', 'value': 'v'} for n in range(5000)]
    ok = {'response': {'status': 200, 'headers': headers}}
    outbox.send(m.FromWorker(completed=m.Completed(invocation=influxdb3_local.invocation_id, ok=ok)))
    time.sleep(60)
";

/// A thread that speaks on when its run is over, behind the runtime's back.
const RESTLESS: &str = "
import gc, threading
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

def process_writes(influxdb3_local, table_batches, args=None):
    outbox = next(o for o in gc.get_objects() if isinstance(o, Outbox))
    run = influxdb3_local.invocation_id
    def speak():
        while outbox._invocation is not None:
            pass
        for _ in range(10_000):
            outbox.send(m.FromWorker(log=m.Log(invocation=run, level=1, text='more')))
    threading.Thread(target=speak, daemon=True).start()
";

/// Resident memory of a server, in MiB.
fn resident_mib(server: &Server) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("it is running");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    kib.expect("a number of kB") / 1024
}

/// Far more than any noise, far less than what the attacks send.
const GROWTH_MIB_MAX: i64 = 300;

#[tokio::test]
async fn every_breach_of_the_protocol_ends_its_worker_and_nobody_elses() {
    let server = server()
        .plugin("violating.py", VIOLATING)
        .plugin("headers.py", HEADERS)
        .plugin("restless.py", RESTLESS)
        .plugin("witness.py", crate::WRITE_REPORTS)
        .allow_log("a plugin's worker ended", "the plugins provoke it")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("witness", "witness.py")
        .spec("table:alive")
        .create()
        .await;
    for (how, _) in VIOLATIONS {
        let trigger = db.trigger(how, "violating.py").spec("table:attack");
        trigger.argument("how", how).create().await;
    }
    db.trigger("restless", "restless.py")
        .spec("table:attack")
        .create()
        .await;
    db.trigger("headers", "headers.py")
        .spec("request:headers")
        .create()
        .await;
    db.write("alive f=1 1").await;
    db.until_logged("witness", 1, "finished execution").await;
    let before = resident_mib(&server);
    db.write("attack f=1 1").await;
    let answer = server
        .client()
        .call(Method::GET, "/api/v3/engine/headers")
        .await;
    assert!(answer.status >= 500, "{answer:?}");
    db.until_logged("headers", 1, "a response with 5000 headers")
        .await;
    for (how, reason) in VIOLATIONS {
        let rows = db
            .until_logged(how, 1, "the worker broke the protocol")
            .await;
        check_reason(&rows[0].text, reason);
    }
    eventually("the restless worker ends", async || {
        let text = "it went on speaking between invocations";
        server.has_logged(text).then_some(()).ok_or(String::new())
    })
    .await;
    db.write("alive f=1 2").await;
    db.until_logged("witness", 2, "finished execution").await;
    let grown = resident_mib(&server) - before;
    assert!(
        grown < GROWTH_MIB_MAX,
        "the server has grown by {grown} MiB"
    );
}

/// Attacks the socket itself; each must be refused, and is reported with what came of it.
const INTRUDER: &str = include_str!("../../plugins/intruder.py");

/// What the server answers to each of the intruder's attacks.
const REFUSED: [(&str, &str); 14] = [
    ("wrong token", "UNAUTHENTICATED"),
    ("used token", "UNAUTHENTICATED"),
    ("token in another process", "UNAUTHENTICATED"),
    ("no hello", "INVALID_ARGUMENT"),
    ("silence in a stream", "DEADLINE_EXCEEDED"),
    ("other invocation", "PERMISSION_DENIED"),
    ("other key", "PERMISSION_DENIED"),
    ("other ticket", "PERMISSION_DENIED"),
    ("other process", "PERMISSION_DENIED"),
    ("unreadable ticket", "INVALID_ARGUMENT"),
    ("huge frame", "OUT_OF_RANGE"),
    ("deep nesting", "INTERNAL"),
    ("not utf-8", "INVALID_ARGUMENT"),
    ("after the end", "PERMISSION_DENIED"),
];

#[tokio::test]
async fn every_misuse_of_the_socket_is_refused_and_costs_no_memory() {
    let server = server()
        .plugin("intruder.py", INTRUDER)
        // It starts processes, and what it attacks is there for them too.
        .flag("--sandbox", "off")
        .plugin("witness.py", crate::WRITE_REPORTS)
        .allow_log("refused a worker", "the plugin tries to be another one")
        .allow_log("refused a connection", "the plugin opens thousands")
        .allow_log("were left out", "there are many of them")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("witness", "witness.py")
        .spec("table:alive")
        .create()
        .await;
    db.trigger("intruder", "intruder.py")
        .spec("table:attack")
        .create()
        .await;
    db.write("alive f=1 1").await;
    db.until_logged("witness", 1, "finished execution").await;
    let before = resident_mib(&server);
    db.write("attack f=1 1").await;
    db.until_logged("intruder", 1, "finished execution").await;
    // "after the end" needs a second run.
    db.write("attack f=1 2").await;
    db.until_logged("intruder", 2, "finished execution").await;
    let logs = db.logs("intruder").await;
    for (attack, code) in REFUSED {
        let expected = format!("{attack}: {code}");
        let mut rows = logs.iter();
        assert!(
            rows.any(|row| row.text.starts_with(&expected)),
            "{expected}: {logs:#?}"
        );
    }
    for (attack, outcome) in [
        ("half-open connections", "closed"),
        ("ten thousand connections", "at most 4 stay"),
        ("parallel calls", "all answered"),
        ("unread streams", "left"),
    ] {
        let expected = format!("{attack}: {outcome}");
        assert!(
            logs.iter().any(|row| row.text == expected),
            "{expected}: {logs:#?}"
        );
    }
    db.write("alive f=1 2").await;
    db.until_logged("witness", 2, "finished execution").await;
    let grown = resident_mib(&server) - before;
    assert!(
        grown < GROWTH_MIB_MAX,
        "the server has grown by {grown} MiB"
    );
}
