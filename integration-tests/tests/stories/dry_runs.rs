//! Plugins that are tried out: they run as in production, and leave nothing.

use std::fs;

use outrigger_integration_tests::{Output, Server, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server;

const WAL: &str = "/api/v3/plugin_test/wal";
const SCHEDULE: &str = "/api/v3/plugin_test/schedule";
const REQUEST: &str = "/api/v3/plugin_test/request";

/// Writes in every way, and says what it sees.
const EVERYTHING: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        influxdb3_local.info(batch['table_name'], list(batch['rows']), args)
    kept = influxdb3_local.query('SELECT n FROM kept')
    influxdb3_local.warn('kept', kept)
    print('printed')
    influxdb3_local.write_sync(LineBuilder('now').int64_field('n', 1).time_ns(1), no_sync=False)
    influxdb3_local.write(LineBuilder('out').string_field('s', 'a\\nb').time_ns(2))
    influxdb3_local.write(LineBuilder('out').string_field('s', 'c').time_ns(3))
    influxdb3_local.write_to_db('other', LineBuilder('far').int64_field('n', 1).time_ns(4))
";

fn report(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Runs a test that must find no errors, and returns its report.
#[track_caller]
fn tested(server: &Server, arguments: &[&str]) -> Value {
    let stdout = server
        .command_line()
        .success(&[&["test"], arguments].concat());
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(report["errors"], json!([]), "{report:#}");
    report
}

/// Runs a test that must find errors, and returns its report.
#[track_caller]
fn failed(server: &Server, arguments: &[&str]) -> Value {
    let output = server.command_line().run(&[&["test"], arguments].concat());
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.starts_with("Test command failed: "),
        "{output:?}"
    );
    let report = report(&output);
    assert_ne!(report["errors"], json!([]), "{report:#}");
    report
}

fn with<'a>(start: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [start, more].concat()
}

#[track_caller]
fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// Nothing that tests leave may be found anywhere.
async fn check_untouched(server: &Server, tables: &str) {
    let db = server.database("db");
    let found = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox' \
                 ORDER BY table_name";
    let names: Vec<Value> = tables
        .split_whitespace()
        .map(|name| json!({ "table_name": name }))
        .collect();
    assert_eq!(db.query(found).await, Value::Array(names));
    let logs = "SELECT count(*) AS n FROM system.processing_engine_logs";
    assert_eq!(db.number(logs).await, 0);
    let accounts = "SELECT count(*) AS n FROM system.plugin_invocations";
    assert_eq!(server.database("_internal").number(accounts).await, 0);
    let databases = server
        .command_line()
        .success(&["show", "databases", "--format", "csv"]);
    assert_eq!(databases, "iox::database\n_internal\ndb\n");
}

#[tokio::test]
async fn a_wal_plugin_is_tried_and_nothing_is_stored() {
    let mut server = server().plugin("p.py", EVERYTHING).start().await;
    let db = server.database("db").create().await;
    db.write("kept n=7i 1").await;
    let line = "m,t=a f=1.5 1\nm,t=b n=2i 2";
    let test = ["wal_plugin", "-d", "db", "--lp", line];
    let more = ["--input-arguments", r#"{"a": "1,2"}"#, "p.py"];
    let report = tested(&server, &[&test[..], &more].concat());
    let log = report["log_lines"].as_array().expect("lines");
    let (first, last) = (log.first().unwrap(), log.last().unwrap());
    assert_eq!(first, "INFO: starting execution of wal plugin.");
    assert!(
        text(last).starts_with("INFO: finished execution in "),
        "{report:#}"
    );
    let rows = "INFO: m [{'t': 'a', 'f': 1.5, 'time': 1}, {'t': 'b', 'n': 2, 'time': 2}] \
                {'a': '1,2'}";
    for line in [rows, "WARN: kept [{'n': 7}]", "INFO: printed"] {
        assert!(log.contains(&json!(line)), "{line}: {report:#}");
    }
    assert_eq!(
        report["database_writes"],
        json!({
            "db": ["now n=1i 1", "out s=\"a\nb\" 2", "out s=\"c\" 3"],
            "other": ["far n=1i 4"],
        })
    );

    // The same from a file, over HTTP, and for a database that is not there.
    fs::write(server.directory().join("lines.lp"), line).unwrap();
    let from_file = ["wal_plugin", "-d", "db", "--file", "lines.lp", "p.py"];
    assert_eq!(
        tested(&server, &from_file)["database_writes"],
        report["database_writes"]
    );
    let body = json!({
        "filename": "p.py", "database": "db", "input_lp": line, "input_arguments": { "a": 1 },
    });
    let reply = server.client().post(WAL, &body).await;
    assert_eq!(
        (reply.status, reply.content_type.as_str()),
        (200, "application/json")
    );
    assert_eq!(reply.json()["errors"], json!([]));
    let elsewhere = failed(
        &server,
        &["wal_plugin", "-d", "nowhere", "--lp", line, "p.py"],
    );
    let error = text(&elsewhere["errors"][0]);
    assert!(
        error.starts_with("error executing plugin: QueryError: "),
        "{error}"
    );

    check_untouched(&server, "kept").await;
    server.stop();
    server.restart().await;
    check_untouched(&server, "kept").await;
}

const INIT: &str = "
from .helper import scale

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        for row in batch['rows']:
            factor = int((args or {}).get('factor', 10))
            line = LineBuilder('scaled').tag('table', batch['table_name'])
            influxdb3_local.write(line.int64_field('n', scale(row['n'], factor)).time_ns(row['time']))
";

#[tokio::test]
async fn a_package_is_tried_as_a_trigger_for_one_table_would_run_it() {
    let server = server()
        .plugin("pack/__init__.py", INIT)
        .plugin(
            "pack/helper.py",
            "def scale(n, factor):\n    return n * factor\n",
        )
        .start()
        .await;
    let lines = "a n=1i 1\nb n=2i 2";
    let test = ["wal_plugin", "-d", "db", "--lp", lines, "pack"];
    let both = json!(["scaled,table=a n=10i 1", "scaled,table=b n=20i 2"]);
    assert_eq!(
        tested(&server, &test)["database_writes"],
        json!({ "db": both })
    );
    // Other arguments reach a package that is imported already.
    let filtered = [
        &test[..],
        &["--table", "b", "--input-arguments", "factor=3"],
    ]
    .concat();
    let one = json!({ "db": ["scaled,table=b n=6i 2"] });
    assert_eq!(tested(&server, &filtered)["database_writes"], one);
    let none = tested(&server, &[&test[..], &["--table", "c"]].concat());
    assert_eq!(
        none,
        json!({
            "log_lines": ["INFO: the plugin was not called: no line is for the table \"c\""],
            "database_writes": {},
            "errors": [],
        })
    );
    server.write_plugin("pack/helper.py", "def scale(n, factor):\n    return -n\n");
    let changed = json!({ "db": ["scaled,table=a n=-1i 1", "scaled,table=b n=-2i 2"] });
    assert_eq!(tested(&server, &test)["database_writes"], changed);
}

/// Its lines fit neither `m` nor each other.
const MISFITS: &str = "
class Raw:
    def __init__(self, text):
        self.text = text
    def build(self):
        return self.text

def process_writes(influxdb3_local, table_batches, args=None):
    for line in ['m n=1.5 1', 'm,', 'fresh n=1i 1']:
        try:
            influxdb3_local.write_sync(Raw(line), no_sync=True)
            influxdb3_local.info('took', line)
        except Exception as error:
            influxdb3_local.info('raised', error)
    influxdb3_local.write(Raw('good n=1i 1'))
    influxdb3_local.write(Raw('m n=\"text\" 1'))
    influxdb3_local.write(Raw('fresh n=true 1'))
    influxdb3_local.write_to_db('other', Raw('fresh n=true 1'))
";

#[tokio::test]
async fn lines_that_would_be_refused_are_named() {
    let server = server().plugin("p.py", MISFITS).start().await;
    let db = server.database("db").create().await;
    db.write("m n=1i 1").await;
    let test = ["wal_plugin", "-d", "db", "--lp", "x f=1 1", "p.py"];
    let report = failed(&server, &test);
    let conflict = "line 1: invalid column type for column 'n', expected iox::column_type::field::integer, \
                    got iox::column_type::field::float (line begins with \"m n=1.5 1\")";
    let log: Vec<&str> = report["log_lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    let conflict = format!("error writing line protocol to db: Cannot write: {conflict}");
    let raised = format!("INFO: raised {conflict}");
    assert!(log.contains(&raised.as_str()), "{report:#}");
    assert!(log.contains(&"INFO: took fresh n=1i 1"), "{report:#}");
    let errors: Vec<&str> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    assert_eq!(errors.len(), 4, "{report:#}");
    assert_eq!(errors[0], conflict);
    let syntax = "error writing line protocol to db: Cannot write: line 1: ";
    assert!(errors[1].starts_with(syntax), "{report:#}");
    let buffered = "error writing back lines to db: line 2: invalid column type for column 'n'";
    assert!(errors[2].starts_with(buffered), "{report:#}");
    // What write_sync took counts for the lines after it.
    let later = "error writing back lines to db: line 3: invalid column type for column 'n'";
    assert!(errors[3].starts_with(later), "{report:#}");
    assert_eq!(
        report["database_writes"]["other"],
        json!(["fresh n=true 1"])
    );
    check_untouched(&server, "m").await;

    let conflicting = [
        "wal_plugin",
        "-d",
        "db",
        "--lp",
        "x f=1 1\nm n=\"a\"\nbad",
        "p.py",
    ];
    let report = failed(&server, &conflicting);
    let errors: Vec<&str> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    assert!(errors[0].starts_with("error in the lines to test with: line 2: invalid column"));
    assert!(errors[1].starts_with("error in the lines to test with: line 3: "));
    assert_eq!(report["log_lines"], json!([]));
    // The good line of a refused text has left nothing either.
    check_untouched(&server, "m").await;
}

/// Fails as its argument says.
const FAILING: &str = "
import ctypes, time

def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.write_sync(LineBuilder('now').int64_field('n', 1).time_ns(1), no_sync=True)
    influxdb3_local.write(LineBuilder('later').int64_field('n', 1))
    influxdb3_local.info('said before')
    if args['how'] == 'raise':
        raise TypeError('boom')
    if args['how'] == 'segfault':
        time.sleep(0.1)
        ctypes.string_at(0)
    while args['how'] == 'hang':
        time.sleep(1)
";

/// Counts its runs in its process.
const COUNTING: &str = "
def count(influxdb3_local):
    runs = influxdb3_local.cache.get('runs', default=0) + 1
    influxdb3_local.cache.put('runs', runs)
    return runs

def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.write_to_db('counts', LineBuilder('counts').int64_field('n', count(influxdb3_local)).time_ns(1))

def process_scheduled_call(influxdb3_local, call_time, args=None):
    influxdb3_local.info('run', count(influxdb3_local))
";

#[tokio::test]
async fn a_plugin_that_fails_shows_what_it_did_before() {
    let server = server().plugin("p.py", FAILING).start().await;
    let test = ["wal_plugin", "-d", "db", "--lp", "m f=1", "p.py"];
    let run = |how: &str, more: &[&str]| {
        let how = format!("how={how}");
        let arguments = [&test[..], &["--input-arguments", &how], more].concat();
        failed(&server, &arguments)
    };
    let check = |report: &Value, error: &str, details: &str| {
        let errors = report["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{report:#}");
        let found = text(&errors[0]);
        assert!(
            found.starts_with(error) && found.contains(details),
            "{found}"
        );
        let log = &report["log_lines"];
        assert_eq!(log[0], "INFO: starting execution of wal plugin.");
        assert_eq!(log[1], "INFO: said before");
        // What is buffered goes with the run, what was written at once does not.
        assert_eq!(report["database_writes"], json!({ "db": ["now n=1i 1"] }));
    };
    let raised = run("raise", &[]);
    check(
        &raised,
        "error executing plugin: TypeError: boom\nTraceback (most recent call last):",
        "p.py\", line 9, in process_writes",
    );
    assert_eq!(raised["log_lines"].as_array().unwrap().len(), 2);
    check(
        &run("segfault", &[]),
        "error executing plugin: the worker was ended by signal 11 (SIGSEGV)\n",
        "Fatal Python error: Segmentation fault",
    );
    check(
        &run("hang", &["--timeout", "300ms"]),
        "error executing plugin: the plugin ran longer than its deadline of 300ms and was killed",
        "",
    );
    // It is not its worker's last word.
    let raised = run("raise", &[]);
    check(&raised, "error executing plugin: TypeError: boom", "");
}

#[tokio::test]
async fn a_source_that_does_not_load_is_shown() {
    let server = server()
        .plugin("broken.py", "def process_writes(:\n")
        .plugin("pack/__init__.py", "import nothing_of_that_name\n")
        .plugin("empty.py", "")
        .start()
        .await;
    for (plugin, expected) in [
        ("broken.py", "error executing plugin: SyntaxError: "),
        ("pack", "error executing plugin: ModuleNotFoundError: "),
        ("empty.py", "error executing plugin: "),
    ] {
        let test = ["wal_plugin", "-d", "db", "--lp", "m f=1", plugin];
        let report = failed(&server, &test);
        let error = text(&report["errors"][0]);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_cache_is_shared_by_tests_and_not_with_triggers() {
    let server = server()
        .plugin("p.py", COUNTING)
        .plugin("hang.py", FAILING)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    db.write("m f=1 1").await;
    let counts = server.database("counts");
    let production = "SELECT n FROM counts";
    counts.until(production, json!([{ "n": 1 }])).await;

    let runs = |more: &[&str]| {
        let test = [&["schedule_plugin", "-d", "db", "p.py"][..], more].concat();
        let report = tested(&server, &test);
        text(&report["log_lines"][1]).to_owned()
    };
    assert_eq!(runs(&[]), "INFO: run 1");
    assert_eq!(runs(&["--input-arguments", "a=1"]), "INFO: run 2");
    assert_eq!(runs(&["--cache-name", "mine"]), "INFO: run 1");
    let test = ["wal_plugin", "-d", "db", "--lp", "m f=1", "p.py"];
    let report = tested(&server, &test);
    assert_eq!(
        report["database_writes"],
        json!({ "counts": ["counts n=3i 1"] })
    );
    // A test that hangs holds up neither triggers nor other tests.
    let hang = json!({
        "filename": "hang.py", "database": "db", "input_lp": "m f=1",
        "input_arguments": { "how": "hang" }, "timeout": "5s",
    });
    let client = server.client().clone();
    let hanging = client.post(WAL, &hang);
    let meanwhile = async {
        until_bound(&server).await;
        db.write("m f=1 2").await;
        counts.until(production, json!([{ "n": 2 }])).await;
        assert_eq!(runs(&["--cache-name", "mine"]), "INFO: run 2");
    };
    let (hung, ()) = tokio::join!(hanging, meanwhile);
    let error = hung.json()["errors"][0].clone();
    assert!(text(&error).contains("its deadline of 5s"), "{error}");
    db.write("m f=1 3").await;
    counts.until(production, json!([{ "n": 3 }])).await;
}

const SCHEDULE_TEST: [&str; 4] = ["schedule_plugin", "-d", "db", "tick.py"];

const TICK: &str = "
def process_scheduled_call(influxdb3_local, call_time, args=None):
    influxdb3_local.info(call_time, args)
    influxdb3_local.write(LineBuilder('ticks').int64_field('second', call_time.second))
";

#[tokio::test]
async fn a_schedule_is_tried_for_its_next_time() {
    let server = server().plugin("tick.py", TICK).start().await;
    server.database("db").create().await;
    let report = tested(
        &server,
        &with(&SCHEDULE_TEST, &["--schedule", "0 0 12 1 1 * 2099"]),
    );
    assert_eq!(report["trigger_time"], "2099-01-01T12:00:00Z");
    let log = &report["log_lines"];
    assert_eq!(
        log[0],
        "INFO: starting execution with scheduled time 2099-01-01 12:00:00 UTC"
    );
    assert_eq!(log[1], "INFO: 2099-01-01 12:00:00 None");
    let writes = json!({ "db": ["ticks second=0i"] });
    assert_eq!(report["database_writes"], writes);
    for schedule in ["every:1h", "0 * * * *", "@hourly", "cron:0 0 * * * *"] {
        let report = tested(&server, &with(&SCHEDULE_TEST, &["--schedule", schedule]));
        let time = text(&report["trigger_time"]);
        assert!(time.ends_with(":00:00Z"), "{schedule}: {time}");
    }
    assert!(text(&tested(&server, &with(&SCHEDULE_TEST, &[]))["trigger_time"]).ends_with('Z'));

    let invalid = failed(
        &server,
        &with(&SCHEDULE_TEST, &["--schedule", "not a cron"]),
    );
    let error = text(&invalid["errors"][0]);
    assert!(error.starts_with("invalid cron syntax: "), "{error}");
    assert_eq!(invalid["trigger_time"], Value::Null);
    let body = json!({ "filename": "tick.py", "database": "nowhere" });
    let missing = server.client().post(SCHEDULE, &body).await;
    let expected = json!({
        "trigger_time": null, "log_lines": [], "database_writes": {}, "errors": ["couldn't find db"],
    });
    assert_eq!((missing.status, missing.json()), (200, expected));
    check_untouched(&server, "").await;
}

const REQUEST_TEST: [&str; 4] = ["request_plugin", "-d", "db", "echo.py"];

const ECHO: &str = "
def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    influxdb3_local.write(LineBuilder('asked').int64_field('n', len(request_body)).time_ns(1))
    if query_parameters.get('how') == 'raise':
        raise ValueError('boom')
    if query_parameters.get('how') == 'unfit':
        return 'x', 200, {'bad name': 'x'}
    if query_parameters.get('how') == 'bytes':
        return request_body
    seen = {'query': query_parameters, 'headers': request_headers, 'body': request_body.decode()}
    return {**seen, 'args': args}, 201, {'X-Made': 'yes'}
";

#[tokio::test]
async fn a_request_is_tried_and_its_answer_shown() {
    let server = server().plugin("echo.py", ECHO).start().await;
    server.database("db").create().await;
    let typed = [
        "--query",
        "a=1,2",
        "--header",
        "X-Key=k",
        "--header",
        "Authorization=Bearer x",
        "--body",
        "text",
        "--input-arguments",
        "b=2",
    ];
    let report = tested(&server, &with(&REQUEST_TEST, &typed));
    let response = &report["response"];
    assert_eq!(response["status"], 201);
    assert_eq!(
        response["headers"],
        json!({ "content-type": "application/json", "x-made": "yes" })
    );
    let body: Value = serde_json::from_str(text(&response["body"])).expect("JSON");
    let seen = json!({
        "query": { "a": "1,2" }, "headers": { "x-key": "k" }, "body": "text", "args": { "b": "2" },
    });
    assert_eq!(body, seen);
    assert_eq!(report["database_writes"], json!({ "db": ["asked n=4i 1"] }));
    let log = &report["log_lines"];
    assert_eq!(log[0], "INFO: starting execution of request plugin.");

    fs::write(server.directory().join("body.bin"), b"\xff\0").unwrap();
    let binary = ["--query", "how=bytes", "--body-file", "body.bin"];
    let report = tested(&server, &with(&REQUEST_TEST, &binary));
    assert_eq!(report["response"]["body"], Value::Null);
    assert_eq!(report["response"]["body_base64"], "/wA=");

    let raised = failed(&server, &with(&REQUEST_TEST, &["--query", "how=raise"]));
    assert_eq!(raised["response"], Value::Null);
    let error = text(&raised["errors"][0]);
    assert!(
        error.starts_with("error executing plugin: ValueError: boom\n"),
        "{error}"
    );
    let unfit = failed(&server, &with(&REQUEST_TEST, &["--query", "how=unfit"]));
    let error = text(&unfit["errors"][0]);
    assert!(
        error.contains("'bad name' cannot be the name of a header"),
        "{error}"
    );
    check_untouched(&server, "").await;
}

#[tokio::test]
async fn mistakes_of_tests_are_the_clients() {
    let server = server().plugin("p.py", EVERYTHING).start().await;
    let client = server.client();
    let body = |field: &str, value: Value| {
        let mut body = json!({ "filename": "p.py", "database": "db", "input_lp": "m f=1" });
        body[field] = value;
        body
    };
    for (field, value, part) in [
        ("filename", json!("none.py"), "Plugin not found"),
        ("filename", json!("../p.py"), "Path traversal detected"),
        ("database", json!("-x"), "database name"),
        ("timeout", json!("soon"), "timeout \"soon\" is no duration"),
        ("timeout", json!("0s"), "longer than 0s"),
        (
            "input_arguments",
            json!({ "a": [1] }),
            "argument \"a\" must be",
        ),
        ("input_arguments", json!({ "": 5 }), "has no name"),
        ("input_lp", json!(1), "serde json error"),
    ] {
        let refused = client.post(WAL, &body(field, value)).await;
        refused.check_refused(400, part);
    }
    let both = json!({
        "filename": "p.py", "database": "db", "body": "x", "body_base64": "eA==",
    });
    let refused = client.post(REQUEST, &both).await;
    refused.check_refused(400, "either body or body_base64");
    let cli = server.command_line();
    let test = ["test", "wal_plugin", "-d", "db", "p.py"];
    cli.check_refused(&test, 1, "either --lp or --file must be provided");
    let missing = ["test", "wal_plugin", "-d", "db", "--lp", "m f=1", "none.py"];
    cli.check_refused(
        &missing,
        1,
        "Test command failed: server responded with error [400",
    );
}

#[tokio::test]
async fn a_server_without_plugins_says_so() {
    let server = server().without("--plugin-dir").start().await;
    let body = json!({ "filename": "p.py", "database": "db", "input_lp": "m f=1" });
    let refused = server.client().post(WAL, &body).await;
    refused.check_refused(400, "start the server with --plugin-dir");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_goes_on_does_not_hold_up_the_end_of_the_server() {
    let mut server = server().plugin("hang.py", FAILING).start().await;
    server.database("db").create().await;
    let hang = json!({
        "filename": "hang.py", "database": "db", "input_lp": "m f=1",
        "input_arguments": { "how": "hang" },
    });
    let client = server.client().clone();
    let mut hanging = JoinSet::new();
    hanging.spawn(async move { client.post(WAL, &hang).await });
    until_bound(&server).await;
    server.stop();
    let refused = hanging.join_next().await.expect("it was sent").unwrap();
    refused.check_refused(503, "the server is shutting down");
}

async fn until_bound(server: &Server) {
    eventually("a test has its worker", async || {
        let bound = server.has_logged("worker is bound") && server.has_logged("hang.py");
        bound.then_some(()).ok_or_else(String::new)
    })
    .await;
}
