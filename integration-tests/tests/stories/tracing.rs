//! Traces: from a client's write to what a plugin has made of it, as a collector gets them, and
//! their ids in SQL and in the log.

use std::collections::BTreeMap;

use outrigger_integration_tests::{Database, Receiver, Server, Span, Webhook, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

/// Does all that has a span of its own.
const BUSY: &str = "
import urllib.request

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        batch['rows'][0]
    influxdb3_local.query('SELECT * FROM m')
    influxdb3_local.write_sync(LineBuilder('now').int64_field('n', 1))
    influxdb3_local.write(LineBuilder('later').int64_field('n', 1))
    influxdb3_local.info('said')
    headers = {'traceparent': influxdb3_local.trace_parent}
    urllib.request.urlopen(urllib.request.Request(args['url'], data=b'{}', headers=headers))
";

const COUNTS: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    if influxdb3_local.attempt < int(args['succeeds']):
        raise ValueError('not yet')
    for batch in table_batches:
        line = LineBuilder('counted').int64_field('n', len(batch['rows']))
        influxdb3_local.write(line)
";

const ANSWERS: &str = "
def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    if query_parameters.get('query'):
        influxdb3_local.query('SELECT nonsense')
    return {'trace_parent': influxdb3_local.trace_parent}
";

/// Writes within a client's trace.
async fn write(server: &Server, lines: &str, traceparent: &str) {
    let request = server
        .client()
        .request(Method::POST, "/api/v3/write_lp?db=db");
    let request = request.header("traceparent", traceparent);
    let reply = server.client().answer(request.body(lines.to_owned())).await;
    reply.check_success("write");
}

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CLIENT}-01")
}

fn has(spans: &[Span], name: &str) -> bool {
    spans.iter().any(|span| span.name == name)
}

/// The one span of this name.
#[track_caller]
fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "more than one {name} in {spans:#?}");
    span
}

/// The names of the spans and of those above them, sorted.
#[track_caller]
fn tree(spans: &[Span]) -> Vec<(&str, &str)> {
    let names: BTreeMap<&str, &str> = spans
        .iter()
        .map(|span| (span.id.as_str(), span.name.as_str()))
        .chain([(CLIENT, "the client")])
        .collect();
    let above = |span: &Span| names.get(span.parent.as_str()).copied();
    let mut tree: Vec<_> = spans
        .iter()
        .map(|span| {
            let above = above(span);
            let above = above.unwrap_or_else(|| panic!("{span:#?} hangs in the air: {spans:#?}"));
            (above, span.name.as_str())
        })
        .collect();
    tree.sort_unstable();
    tree
}

async fn ids(db: &Database, table: &str, trigger: &str) -> Vec<(String, String)> {
    let sql = format!(
        "SELECT DISTINCT trace_id, span_id FROM system.{table} \
         WHERE trigger_name = '{trigger}' ORDER BY trace_id, span_id"
    );
    let rows = db.query(&sql).await;
    let text = |row: &Value, column| row[column].as_str().unwrap_or("null").to_owned();
    let rows = rows.as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| (text(row, "trace_id"), text(row, "span_id")))
        .collect()
}

fn traced(receiver: &Receiver) -> outrigger_integration_tests::Builder {
    server()
        .flag("--traces-exporter", "otlp")
        .flag("--traces-otlp-endpoint", &receiver.url())
}

async fn create(server: &Server, trigger: &Value) {
    let path = "/api/v3/configure/processing_engine_trigger";
    let reply = server.client().post(path, trigger).await;
    reply.check_success("create a trigger");
}

/// A trigger that counts what was written before it was there too.
fn counting(name: &str, succeeds: &str) -> Value {
    json!({
        "db": "db", "trigger_name": name, "plugin_filename": "counts.py",
        "trigger_specification": "table:m",
        "trigger_settings": { "run_async": false, "error_behavior": "retry", "start": "earliest" },
        "trigger_arguments": { "succeeds": succeeds }, "disabled": false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_and_all_that_comes_of_it_are_one_tree() {
    let (receiver, webhook) = (Receiver::start().await, Webhook::start().await);
    let server = traced(&receiver)
        .flag("--traces-service-name", "under-test")
        .plugin("busy.py", BUSY)
        .start()
        .await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "busy.py").spec("table:m");
    trigger.argument("url", &webhook.url()).create().await;

    // Who does not want to be recorded, is not; who makes no sense, is ignored.
    let unwanted = "11111111111111111111111111111111";
    let nonsense = "22222222222222222222222222222222";
    write(
        &server,
        "other f=1 1",
        &format!("00-{unwanted}-{CLIENT}-00"),
    )
    .await;
    write(
        &server,
        "other f=1 1",
        &format!("00-{nonsense}-{CLIENT}-0x"),
    )
    .await;
    write(&server, "m f=1 1", &traceparent(TRACE)).await;

    let is_whole = |spans: &[Span]| has(spans, "trigger t") && has(spans, "POST /api/v3/write_lp");
    let spans = receiver.until(TRACE, is_whole).await;
    let (write, trigger) = ("POST /api/v3/write_lp", "trigger t");
    let mut expected = [
        ("the client", write),
        (write, "buffer"),
        (write, "make durable"),
        (write, trigger),
        (trigger, "wait for a worker"),
        (trigger, "load plugin"),
        (trigger, "run plugin"),
        ("run plugin", "fetch rows"),
        ("run plugin", "query"),
        ("run plugin", "write_sync"),
        ("write_sync", "buffer"),
        ("write_sync", "make durable"),
        (trigger, "write back"),
        ("write back", "buffer"),
        ("write back", "make durable"),
    ];
    expected.sort_unstable();
    assert_eq!(tree(&spans), expected);
    assert!(spans.iter().all(|span| span.service == "under-test"));
    let invocation = only(&spans, trigger);
    assert_eq!(invocation.attribute("outcome"), Some("ok"));
    assert_eq!(invocation.attribute("plugin"), Some("busy.py"));

    // The plugin has passed its trace on.
    let posts = webhook.until(1).await;
    let passed = posts[0].headers["traceparent"].to_str().unwrap();
    let run = &only(&spans, "run plugin").id;
    assert_eq!(passed, format!("00-{TRACE}-{run}-01"));

    // The same ids are in SQL and in the server's log.
    let expected = [(TRACE.to_owned(), invocation.id.clone())];
    db.until_logged("t", 1, "finished").await;
    assert_eq!(ids(&db, "processing_engine_logs", "t").await, expected);
    assert_eq!(ids(&db, "plugin_invocations", "t").await, expected);
    assert!(server.has_logged(TRACE));

    let received = receiver.spans();
    for trace in [unwanted, nonsense] {
        assert!(received.iter().all(|span| span.trace != trace), "{trace}");
    }
    let writes = received.iter().filter(|span| span.name == write);
    assert_eq!(
        writes.count(),
        2,
        "the one without a sensible parent began a trace"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_several_writes_are_linked_and_a_restart_forgets_none() {
    let receiver = Receiver::start().await;
    let mut server = traced(&receiver).plugin("counts.py", COUNTS).start().await;
    server.database("db").create().await;
    let second = TRACE.replace('4', "5");
    write(&server, "m f=1 1", &traceparent(TRACE)).await;
    // The last spans are sent before the server ends.
    server.stop();
    let spans = receiver.spans();
    assert!(has(&spans, "POST /api/v3/write_lp"), "{spans:#?}");
    server.restart().await;
    let db = server.database("db");

    // One write: its trace goes on, also after a restart and a failed attempt.
    create(&server, &counting("one", "2")).await;
    db.until("SELECT n FROM counted", json!([{ "n": 1 }])).await;
    let both = |spans: &[Span]| {
        spans
            .iter()
            .filter(|span| span.name == "trigger one")
            .count()
            == 2
    };
    let spans = receiver.until(TRACE, both).await;
    let mut outcomes: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "trigger one")
        .map(|span| {
            (
                span.attribute("attempt"),
                span.attribute("outcome"),
                span.error.as_deref(),
            )
        })
        .collect();
    outcomes.sort_unstable();
    let expected = [
        (Some("1"), Some("plugin_error"), Some("ValueError: not yet")),
        (Some("2"), Some("ok"), None),
    ];
    assert_eq!(outcomes, expected);

    // Two writes: the invocation belongs to neither, and names both.
    write(&server, "m f=1 2", &traceparent(&second)).await;
    create(&server, &counting("both", "1")).await;
    db.until_logged("both", 1, "finished").await;
    let span = eventually("the invocation's span is there", async || {
        let spans = receiver.spans();
        let found = spans.iter().find(|span| span.name == "trigger both");
        found.cloned().ok_or_else(|| format!("{spans:#?}"))
    })
    .await;
    assert_eq!(span.parent, "", "{span:#?}");
    let linked: Vec<&str> = span.links.iter().map(|(trace, _)| trace.as_str()).collect();
    assert_eq!(linked, [TRACE, &second], "{span:#?}");
    let expected = [(span.trace, span.id)];
    assert_eq!(ids(&db, "processing_engine_logs", "both").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_trigger_continues_its_callers_trace() {
    let receiver = Receiver::start().await;
    let server = traced(&receiver)
        .plugin("answers.py", ANSWERS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "answers.py")
        .spec("request:a")
        .create()
        .await;
    let call = async |path: &str, trace: &str| {
        let request = server.client().request(Method::POST, path);
        let request = request.header("uber-trace-id", format!("{trace}:{CLIENT}:0:1"));
        server.client().answer(request).await
    };
    let reply = call("/api/v3/engine/a", TRACE).await;
    let route = "POST /api/v3/engine/{*path}";
    let spans = receiver.until(TRACE, |spans| has(spans, route)).await;
    let run = &only(&spans, "run plugin").id;
    assert_eq!(reply.json()["trace_parent"], format!("00-{TRACE}-{run}-01"));
    assert!(
        tree(&spans).starts_with(&[(route, "trigger t")]),
        "{spans:#?}"
    );
    assert_eq!(only(&spans, route).parent, CLIENT);

    // What fails says so at each step.
    let failing = TRACE.replace('4', "5");
    let reply = call("/api/v3/engine/a?query=1", &failing).await;
    assert_eq!(reply.status, 500, "{reply:?}");
    let spans = receiver.until(&failing, |spans| has(spans, route)).await;
    for name in ["query", "run plugin", "trigger t", route] {
        assert!(only(&spans, name).error.is_some(), "{name}: {spans:#?}");
    }
    let query = only(&spans, "query").attribute("query.text");
    assert_eq!(query, Some("SELECT nonsense"));
}

#[tokio::test]
async fn a_receiver_that_is_not_there_does_no_harm() {
    // Taken and given back: nobody listens there.
    let gone = Receiver::start().await;
    let server = traced(&gone)
        .plugin("counts.py", COUNTS)
        .allow_log("traces cannot be sent", "nobody receives them");
    drop(gone);
    let server = server.start().await;
    let db = server.database("db").create().await;
    create(&server, &counting("t", "1")).await;
    let dropped = async || {
        let metrics = server.client().call(Method::GET, "/metrics").await.body;
        let line = "outrigger_trace_spans_total{result=\"dropped\"} ";
        let value = metrics.lines().find_map(|found| found.strip_prefix(line));
        value.and_then(|value| value.parse().ok()).unwrap_or(0_u64)
    };
    for round in 1..=3 {
        let before = dropped().await;
        write(&server, &format!("m f=1 {round}"), &traceparent(TRACE)).await;
        let sql = "SELECT sum(n) AS n FROM counted";
        db.until(sql, json!([{ "n": round }])).await;
        eventually("the lost spans are counted", async || {
            let now = dropped().await;
            if now > before {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await;
    }
    assert_eq!(server.count_logged("traces cannot be sent"), 1);
}

#[tokio::test]
async fn without_an_exporter_there_are_ids_all_the_same() {
    let server = server().plugin("counts.py", COUNTS).start().await;
    let db = server.database("db").create().await;
    create(&server, &counting("t", "1")).await;
    write(&server, "m f=1 1", &traceparent(TRACE)).await;
    db.until_logged("t", 1, "finished").await;
    let logged = ids(&db, "processing_engine_logs", "t").await;
    assert_eq!(logged, ids(&db, "plugin_invocations", "t").await);
    let [(trace, span)] = logged.as_slice() else {
        panic!("one attempt has one span: {logged:?}")
    };
    assert_eq!((trace.as_str(), span.len()), (TRACE, 16));

    // One that the client does not trace has a trace of its own.
    db.write("m f=1 2").await;
    db.until_logged("t", 2, "finished").await;
    let logged = ids(&db, "processing_engine_logs", "t").await;
    assert_eq!(logged.len(), 2, "{logged:?}");
    let all = logged
        .iter()
        .all(|(trace, span)| trace.len() == 32 && span.len() == 16);
    assert!(all, "{logged:?}");
}

#[tokio::test]
async fn an_exporter_that_is_no_more_is_refused() {
    let refused = server()
        .flag("--traces-exporter", "jaeger")
        .start_refused()
        .await;
    refused.check(1, "use --traces-exporter otlp");
}
