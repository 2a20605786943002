//! Workers that break the protocol: each is killed with the reason, and nobody else notices.

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
        send(m.FromWorker(hello=m.Hello(protocol=1)))
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
    socket = next(p for p in open('/proc/net/unix').read().split() if p.endswith('supervisor.sock'))
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
