//! Triggers that answer HTTP requests.

use outrigger_integration_tests::{Reply, Server};
use reqwest::Method;
use serde_json::json;

use crate::server;

const ECHO: &str = "
import json

def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    assert type(request_body) is bytes
    influxdb3_local.write(LineBuilder('requests').int64_field('bytes', len(request_body)))
    return {
        'query': query_parameters,
        'key': request_headers.get('x-key'),
        'authorization': request_headers.get('authorization'),
        'body': request_body.decode(),
        'args': args,
    }
";

async fn call(server: &Server, path: &str, body: &str) -> Reply {
    let request = server
        .client()
        .request(Method::POST, &format!("/api/v3/engine/{path}"));
    let request = request
        .header("X-Key", "secret")
        .header("Authorization", "Bearer t");
    server.client().answer(request.body(body.to_owned())).await
}

#[tokio::test]
async fn a_request_reaches_the_plugin_and_its_answer_the_client() {
    let server = server().plugin("echo.py", ECHO).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "echo.py")
        .spec("request:hooks/echo")
        .argument("k", "v")
        .create()
        .await;
    until_routed(&server, "hooks/echo").await;
    let reply = call(&server, "hooks/echo?a=1&b=x%20y&a=2", "hello").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let expected = json!({
        "query": { "a": "2", "b": "x y" }, "key": "secret", "authorization": null,
        "body": "hello", "args": { "k": "v" },
    });
    assert_eq!(reply.json(), expected);
    let stored = "SELECT count(*) AS n, max(bytes) AS bytes FROM requests WHERE bytes > 0";
    db.until(stored, json!([{ "n": 1, "bytes": 5 }])).await;
    db.disable("t").await;
    until_gone(&server, "hooks/echo").await;
}

#[tokio::test]
async fn a_path_is_compared_as_it_is_sent() {
    let server = server().plugin("echo.py", ECHO).start().await;
    let db = server.database("db").create().await;
    let echo = db.trigger("t", "echo.py");
    echo.spec("request:h%C3%BC/x").create().await;
    until_routed(&server, "h%C3%BC/x").await;
}

/// Waits until the path has a trigger; it starts just after it was created.
async fn until_routed(server: &Server, path: &str) {
    outrigger_integration_tests::eventually("the path is answered", async || {
        let reply = call(server, path, "").await;
        if reply.status == 404 {
            Err(format!("{reply:?}"))
        } else {
            Ok(())
        }
    })
    .await;
}

async fn until_gone(server: &Server, path: &str) {
    outrigger_integration_tests::eventually("the path is gone", async || {
        let reply = call(server, path, "").await;
        if reply.status == 404 {
            Ok(())
        } else {
            Err(format!("{reply:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_plugin_without_the_function_says_so_to_the_client() {
    let server = server()
        .plugin("p.py", "def process_writes(): pass\n")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").spec("request:p").create().await;
    until_routed(&server, "p").await;
    let reply = call(&server, "p", "").await;
    let expected = "the process_request function is not present in the plugin. Should be defined \
                    as: process_request(influxdb3_local, query_parameters, request_headers, \
                    request_body, args=None)";
    assert_eq!(reply.status, 500, "{reply:?}");
    assert_eq!(reply.json(), json!({ "error": expected }));
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let server = server().start().await;
    let reply = call(&server, "nothing/here", "").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["error"], "not found");
    reply.check_refused(
        404,
        "no enabled request trigger has the path \\\"nothing/here\\\"",
    );
}

#[tokio::test]
async fn a_path_has_one_owner_over_all_databases() {
    let server = server().plugin("echo.py", ECHO).start().await;
    let first = server.database("first").create().await;
    let second = server.database("second").create().await;
    first
        .trigger("owner", "echo.py")
        .spec("request:x")
        .create()
        .await;
    let refused = second
        .trigger("late", "echo.py")
        .spec("request:x")
        .try_create()
        .await;
    refused.check_refused(409, "belongs to trigger \"owner\" of database \"first\"");
}

/// Answers as its query parameter says.
const FORMS: &str = "
import os, time

def process_request(influxdb3_local, query, headers, body, args=None):
    form = query['form']
    if form == 'text':
        return 'text'
    if form == 'bytes':
        return b'\\x00\\xff'
    if form == 'flask':
        return 'made', 201, {'X-A': 'b'}
    if form == 'alpha':
        return 202, {'Content-Type': 'text/plain'}, 'alpha'
    if form == 'list':
        return [1, 2]
    if form == 'status':
        return 'body', int(query['status'])
    if form == 'newline':
        return 'body', {'X-A': 'a\\nb'}
    if form == 'generator':
        return (part for part in ('a', b'b'))
    if form == 'none':
        return None
    if form == 'raise':
        raise ValueError('boom')
    if form == 'exit':
        os._exit(3)
    if form == 'hang':
        time.sleep(60)
";

#[tokio::test]
async fn every_form_of_an_answer_works() {
    let server = server()
        .plugin("forms.py", FORMS)
        .allow_log("a plugin's worker ended", "the plugin ends it on purpose")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "forms.py").spec("request:f").create().await;
    until_routed(&server, "f?form=text").await;
    for (form, status, body) in [
        ("text", 200, "text"),
        ("flask", 201, "made"),
        ("alpha", 202, "alpha"),
        ("list", 200, "[1, 2]"),
        ("generator", 200, "ab"),
    ] {
        let reply = call(&server, &format!("f?form={form}"), "").await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, body),
            "{form}"
        );
    }
    for (form, part) in [
        ("none", "Unsupported return type from Python function"),
        ("raise", "Python function call failed: ValueError: boom"),
        ("exit", "the worker exited with code 3"),
    ] {
        let reply = call(&server, &format!("f?form={form}"), "").await;
        reply.check_refused(500, part);
        assert!(reply.json()["error"].is_string(), "{reply:?}");
    }
    let after = call(&server, "f?form=text", "").await;
    assert_eq!(after.status, 200, "a new worker answers");
}

#[tokio::test]
async fn a_status_is_sent_as_http_allows() {
    let server = server().plugin("forms.py", FORMS).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "forms.py").spec("request:f").create().await;
    until_routed(&server, "f?form=text").await;
    // What HTTP/2 makes of a response that says more than it may is an error of the protocol.
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build();
    for http in [reqwest::Client::new(), http2.unwrap()] {
        for (status, length) in [(204, None), (205, Some("0")), (304, None)] {
            let path = format!("/api/v3/engine/f?form=status&status={status}");
            let url = format!("{}{path}", server.client().url());
            let sent = http.get(url).send().await.unwrap();
            assert_eq!(sent.status().as_u16(), status);
            let said = sent.headers().get("content-length");
            let said = said.map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(said.as_deref(), length, "{status}");
            assert_eq!(sent.text().await.unwrap(), "", "{status}");
        }
    }
    for status in [100, 101, 103, 199] {
        let reply = call(&server, &format!("f?form=status&status={status}"), "").await;
        let why = format!("the status of a response must be from 200 to 999, not {status}");
        reply.check_refused(500, &why);
        assert!(reply.json()["error"].is_string(), "{reply:?}");
    }
    let kept = call(&server, "f?form=status&status=1000", "").await;
    assert_eq!((kept.status, kept.body.as_str()), (500, "body"));
    db.until_logged("t", 1, "not 1000; 500 is sent").await;
    let newline = call(&server, "f?form=newline", "").await;
    assert_eq!((newline.status, newline.body.as_str()), (200, "body"));
    db.until_logged("t", 1, "the header is sent empty").await;
}

#[tokio::test]
async fn a_paused_plugin_says_when_to_come_again() {
    let server = server()
        .plugin("forms.py", FORMS)
        .allow_log("a plugin's worker ended", "the plugin ends it on purpose")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "forms.py").spec("request:f").create().await;
    until_routed(&server, "f?form=text").await;
    let path = "/api/v3/engine/f?form=exit";
    outrigger_integration_tests::eventually("the pause is told", async || {
        let sent = server.client().request(Method::GET, path).send().await;
        let sent = sent.unwrap();
        let retry_after = sent.headers().get("retry-after");
        let seconds = retry_after.map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        // One second is what is said where nothing is known.
        if sent.status() != 503 || seconds <= 1 {
            return Err(format!("{sent:?}"));
        }
        // SQL says the same, though nothing waits for it.
        let told = "SELECT paused_since < next_retry AS later FROM system.plugin_triggers \
                    WHERE state = 'paused'";
        let told = db.query(told).await;
        let expected = json!([{ "later": true }]);
        (told == expected).then_some(()).ok_or(told.to_string())
    })
    .await;
}

/// Answers when the story has written to `go`.
const PATIENT: &str = "
import time

def process_request(influxdb3_local, query, headers, body, args=None):
    influxdb3_local.info('asked for', query['n'])
    while query['n'] == '1':
        try:
            if influxdb3_local.query('SELECT * FROM go'):
                break
        except Exception:
            pass
        time.sleep(0.01)
    return query['n']
";

#[tokio::test]
async fn waiting_behind_another_request_counts() {
    let server = server().plugin("patient.py", PATIENT).start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "patient.py").spec("request:p");
    trigger.create().await;
    until_routed(&server, "p?n=0").await;
    let answers = async {
        let first = call(&server, "p?n=1", "");
        let second = async {
            db.until_logged("t", 1, "asked for 1").await;
            call(&server, "p?n=2", "").await
        };
        let go = async {
            let waits = "SELECT waiting FROM system.plugin_triggers";
            db.until(waits, json!([{ "waiting": 1 }])).await;
            db.write("go n=1i 1").await;
        };
        tokio::join!(first, second, go)
    };
    let (first, second, ()) = answers.await;
    assert_eq!((first.body.as_str(), second.body.as_str()), ("1", "2"));
    let last = "SELECT start_time::BIGINT / 1000 AS start, queue_wait_us AS waited, wall_us AS wall \
                FROM system.plugin_invocations ORDER BY start_time DESC LIMIT 2";
    let expected = "SELECT count(*) AS n FROM system.plugin_invocations WHERE outcome = 'ok'";
    let all = json!([{ "n": 3 }]);
    db.until(expected, all).await;
    let rows = db.query(last).await;
    let number = |row: usize, column: &str| rows[row][column].as_i64().expect("a number");
    let end_of_first = number(1, "start") + number(1, "waited") + number(1, "wall");
    let waited = end_of_first - number(0, "start");
    assert!(
        waited > 0,
        "it was asked for while the first one ran: {rows:#}"
    );
    // Two clocks measure it.
    assert!(number(0, "waited") + 20_000 > waited, "{rows:#}");
}

#[tokio::test]
async fn a_plugin_that_takes_too_long_is_a_gateway_timeout() {
    let server = server().plugin("forms.py", FORMS).start().await;
    let db = server.database("db").create().await;
    let cli = server.command_line();
    let arguments = [
        "create",
        "trigger",
        "-d",
        "db",
        "--path",
        "forms.py",
        "--trigger-spec",
        "request:slow",
    ];
    let created = cli.run(&[&arguments[..], &["--timeout", "1s", "t"]].concat());
    assert_eq!(created.code, 0, "{created:?}");
    until_routed(&server, "slow?form=text").await;
    let reply = call(&server, "slow?form=hang", "").await;
    reply.check_refused(504, "deadline of 1s");
    let logged = db
        .until_logged("t", 1, "the plugin ran longer than its deadline")
        .await;
    assert!(logged[0].text.contains("in process_request"), "{logged:?}");
}

/// Calls a request trigger of the same server while it runs.
const CALLER: &str = "
import urllib.request

def process_writes(influxdb3_local, table_batches, args=None):
    if not any(batch['table_name'] == 'go' for batch in table_batches):
        return
    with urllib.request.urlopen(args['url'], b'from the other') as reply:
        influxdb3_local.info('answered', reply.status)
";

#[tokio::test]
async fn a_plugin_can_call_a_request_trigger_of_its_own_server() {
    let server = server()
        .plugin("echo.py", ECHO)
        .plugin("caller.py", CALLER)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("echo", "echo.py")
        .spec("request:echo")
        .create()
        .await;
    until_routed(&server, "echo").await;
    let url = format!("{}/api/v3/engine/echo", server.client().url());
    db.trigger("caller", "caller.py")
        .argument("url", &url)
        .create()
        .await;
    db.write("go f=1").await;
    db.until_logged("caller", 1, "answered 200").await;
}
