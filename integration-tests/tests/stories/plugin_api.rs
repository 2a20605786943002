//! What a plugin can do with `influxdb3_local`, its batches, and its own output.

use serde_json::json;

use crate::server;

const PRINTING: &str = "
import sys

def process_writes(influxdb3_local, table_batches, args=None):
    print('printed', 1, 'thing')
    print('complained', file=sys.stderr)
    influxdb3_local.info('said', {'a': 1})
    influxdb3_local.warn('warned')
    influxdb3_local.error('failed', 'a bit')
";

/// What is printed travels on another way than the end of the run, and may come later.
const CHATTY: &str = "
import sys

def process_writes(influxdb3_local, table_batches, args=None):
    number = table_batches[0]['rows'][0]['n']
    print(f'out {number}.')
    print(f'err {number}.', file=sys.stderr)
";

#[tokio::test]
async fn no_printed_line_is_lost_at_the_end_of_a_run() {
    let server = server().plugin("p.py", CHATTY).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    for number in 1..=30 {
        db.write(format!("m n={number}i {number}")).await;
        db.until_logged("t", number, "finished").await;
    }
    for number in 1..=30 {
        db.until_logged("t", 1, &format!("out {number}.")).await;
        db.until_logged("t", 1, &format!("err {number}.")).await;
    }
}

#[tokio::test]
async fn what_a_plugin_prints_and_logs_becomes_log_lines() {
    let server = server().plugin("p.py", PRINTING).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "p.py").create().await;
    db.write("m f=1 1").await;
    for (level, text) in [
        ("INFO", "printed 1 thing"),
        ("WARN", "complained"),
        ("INFO", "said {'a': 1}"),
        ("WARN", "warned"),
        ("ERROR", "failed a bit"),
    ] {
        let rows = db.until_logged("t", 1, text).await;
        assert_eq!(
            (rows[0].level.as_str(), rows[0].text.as_str()),
            (level, text)
        );
    }
}

const QUERYING: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] != 'm':
            continue
        rows = influxdb3_local.query(
            'SELECT f, host, time FROM m WHERE host = $host ORDER BY time', {'host': 'a'})
        influxdb3_local.info(f'found {rows}')
        total = influxdb3_local.query('SELECT sum(f) AS total FROM m')[0]['total']
        influxdb3_local.write(LineBuilder('totals').int64_field('total', total).time_ns(1))
";

#[tokio::test]
async fn a_plugin_sees_the_rows_that_fired_it_when_it_queries() {
    let server = server().plugin("q.py", QUERYING).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "q.py").create().await;
    db.write("m,host=a f=1i 1000000000000000001\nm,host=b f=2i 1000000000000000002")
        .await;
    db.until("SELECT total FROM totals", json!([{ "total": 3 }]))
        .await;
    let rows = db.until_logged("t", 1, "found").await;
    let expected = "found [{'f': 1, 'host': 'a', 'time': 1000000000000000001}]";
    assert_eq!(rows[0].text, expected);
    db.write("m,host=c f=4i 1000000000000000003").await;
    db.until("SELECT total FROM totals", json!([{ "total": 7 }]))
        .await;
}

const FAILING_QUERY: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    try:
        influxdb3_local.query('SELECT nonsense FROM nowhere')
    except Exception as error:
        influxdb3_local.info(f'{type(error).__name__}: {error}')
";

#[tokio::test]
async fn a_failing_query_raises_in_the_plugin() {
    let server = server().plugin("q.py", FAILING_QUERY).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "q.py").create().await;
    db.write("m f=1 1").await;
    let rows = db.until_logged("t", 1, "QueryError: ").await;
    let text = &rows[0].text;
    let prefix = "QueryError: error: error while planning query: ";
    assert!(text.starts_with(prefix), "{text}");
    let suffix = " executing query on db: SELECT nonsense FROM nowhere";
    assert!(text.ends_with(suffix), "{text}");
}

const LISTS: &str = "
def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    sql = 'SELECT host, text FROM m WHERE array_has($hosts, host) AND text = $object'
    return influxdb3_local.query(sql, {'hosts': ['a', 'c'], 'object': {'b': 1, 'a': [1.5, None]}})
";

#[tokio::test]
async fn lists_and_dicts_are_parameters_from_plugins_and_over_http() {
    let server = server().plugin("l.py", LISTS).start().await;
    let db = server.database("db").create().await;
    let json = r#"{\"a\":[1.5,null],\"b\":1}"#;
    let lines = ["a", "b", "c"].map(|host| format!(r#"m,host={host} text="{json}" 1"#));
    db.write(lines.join("\n")).await;
    let text = json.replace('\\', "");
    let sql =
        "SELECT host, text FROM m WHERE array_has($hosts, host) AND text = $object ORDER BY host";
    let query = json!({
        "db": "db", "q": sql,
        "params": { "hosts": ["a", "c"], "object": { "b": 1, "a": [1.5, null] } },
    });
    let expected = json!([{ "host": "a", "text": text }, { "host": "c", "text": text }]);
    let over_http = server.client().post("/api/v3/query_sql", &query).await;
    assert_eq!(over_http.json(), expected);
    let mixed = json!({ "db": "db", "q": sql, "params": { "hosts": ["a", 1], "object": 1 } });
    let refused = server.client().post("/api/v3/query_sql", &mixed).await;
    refused.check_refused(400, "the items of a list must have one type");
    let test = ["test", "request_plugin", "-d", "db", "l.py"];
    let tested = server.command_line().run(&test);
    let report: serde_json::Value = serde_json::from_str(&tested.stdout).unwrap();
    let body = report["response"]["body"].as_str().expect("an answer");
    let mut rows: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
    rows.sort_by_key(|row| row["host"].to_string());
    assert_eq!(serde_json::Value::from(rows), expected);
}

const OTHER_DATABASE: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    line = LineBuilder('copies').tag('from', 'a b').string_field('text', 'say \"hi\"')
    influxdb3_local.write_to_db('archive', line.uint64_field('n', 7).bool_field('ok', True))
";

#[tokio::test]
async fn a_plugin_writes_to_another_database_which_is_made_if_needed() {
    let server = server().plugin("w.py", OTHER_DATABASE).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "w.py").create().await;
    db.write("m f=1 1").await;
    let expected = json!([{ "from": "a b", "n": 7, "ok": true, "text": "say \"hi\"" }]);
    let sql = r#"SELECT "from", n, ok, text FROM copies"#;
    server.database("archive").until(sql, expected).await;
}

const SYNC: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    if table_batches[0]['table_name'] != 'm':
        return
    influxdb3_local.write_sync(LineBuilder('now').int64_field('n', 5).time_ns(1), no_sync=False)
    rows = influxdb3_local.query('SELECT n FROM now')
    influxdb3_local.write_sync_to_db('other', LineBuilder('now').int64_field('n', 6), no_sync=True)
    try:
        influxdb3_local.write_sync(LineBuilder('now').string_field('n', 'text'), no_sync=False)
    except Exception as error:
        influxdb3_local.info(f'refused: {error}')
    influxdb3_local.info(f'read back {rows}')
    raise RuntimeError('what was written at once stays')
";

#[tokio::test]
async fn what_is_written_at_once_can_be_read_in_the_same_run() {
    let server = server().plugin("s.py", SYNC).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "s.py").create().await;
    db.write("m f=1 1").await;
    let read = db.until_logged("t", 1, "read back").await;
    assert_eq!(read[0].text, "read back [{'n': 5}]");
    let refused = db.until_logged("t", 1, "refused: ").await;
    let text = &refused[0].text;
    let prefix = "refused: error writing line protocol to db: Cannot write: ";
    assert!(text.starts_with(prefix), "{text}");
    assert!(
        text.contains("invalid column type for column 'n'"),
        "{text}"
    );
    db.until_logged("t", 1, "RuntimeError: what was written at once stays")
        .await;
    db.until("SELECT n FROM now", json!([{ "n": 5 }])).await;
    server
        .database("other")
        .until("SELECT n FROM now", json!([{ "n": 6 }]))
        .await;
}

const BATCHES: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info(f'arguments: {args and sorted(args.items())}')
    for batch in table_batches:
        assert sorted(batch) == ['rows', 'table_name'], batch
        for row in batch['rows']:
            influxdb3_local.info(f'{batch[\"table_name\"]}: {row!r}')
";

#[tokio::test]
async fn rows_are_dicts_of_what_each_line_had() {
    let server = server().plugin("b.py", BATCHES).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "b.py").create().await;
    let lines = "m,host=a i=1i,u=2u,f=1.5,s=\"x\",b=true 1000000000000000001\n\
                 m f=2 1000000000000000002";
    db.write(lines).await;
    db.until_logged("t", 1, "arguments: None").await;
    // Absent columns are absent keys.
    let sparse = "m: {'f': 2.0, 'time': 1000000000000000002}";
    db.until_logged("t", 1, sparse).await;
    let rows = db.until_logged("t", 1, "'host'").await;
    let full = &rows[0].text;
    for part in [
        "'host': 'a'",
        "'i': 1",
        "'u': 2",
        "'f': 1.5",
        "'s': 'x'",
        "'b': True",
        "'time': 1000000000000000001",
    ] {
        assert!(full.contains(part), "{part} in {full}");
    }
}

#[tokio::test]
async fn arguments_are_a_dict_of_texts() {
    let server = server().plugin("b.py", BATCHES).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "b.py")
        .argument("limit", "5")
        .argument("name", "x=y")
        .create()
        .await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "arguments: [('limit', '5'), ('name', 'x=y')]")
        .await;
}

const COUNTING: &str = "
calls = []

def process_writes(influxdb3_local, table_batches, args=None):
    calls.append(1)
    count = influxdb3_local.cache.get('count', 0) + 1
    influxdb3_local.cache.put('count', count)
    influxdb3_local.info(f'run {count}, module state {len(calls)}')
";

#[tokio::test]
async fn the_cache_lives_on_between_runs_and_module_state_does_not() {
    let server = server().plugin("c.py", COUNTING).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "c.py").create().await;
    for run in 1..=3 {
        db.write(format!("m f=1 {run}")).await;
        db.until_logged("t", 1, &format!("run {run}, module state 1"))
            .await;
    }
}

const BAD_LINES: &str = "
class Lines:
    def __init__(self, text):
        self.text = text

    def build(self):
        return self.text

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        if batch['table_name'] == 'bad':
            influxdb3_local.write(Lines('good f=1 1'))
            influxdb3_local.write(Lines('this is no line'))
            influxdb3_local.write_to_db('other', Lines('elsewhere f=1 1'))
        if batch['table_name'] == 'm':
            influxdb3_local.write(Lines('good f=2 2\\ngood f=3 3'))
";

#[tokio::test]
async fn a_bad_line_rejects_what_goes_to_its_database_and_is_no_obstacle() {
    let server = server().plugin("l.py", BAD_LINES).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "l.py").create().await;
    db.write("bad f=1 1").await;
    let prefix = "error running wal plugin: error writing back lines to db: ";
    let rows = db.until_logged("t", 1, prefix).await;
    assert_eq!(rows[0].level, "ERROR");
    assert!(rows[0].text.contains("line 2"), "{rows:?}");
    assert!(rows[0].text.contains("this is no line"), "{rows:?}");
    db.write("m f=1 1").await;
    let expected = json!([{ "f": 2.0 }, { "f": 3.0 }]);
    db.until("SELECT f FROM good ORDER BY time", expected).await;
    let other = server.database("other");
    other
        .until("SELECT f FROM elsewhere", json!([{ "f": 1.0 }]))
        .await;
}
