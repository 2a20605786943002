//! Plugins at the same time, and many rows at once.

use std::fmt::Write as _;

use outrigger_integration_tests::{Database, eventually};
use serde_json::json;

use crate::server;

/// Keeps a core busy in pure Python, and reports when that was, how long it had a core, and how
/// long it waited for one that another program had. The clock is the same in all processes.
const BUSY: &str = "
import os, time

def waited():
    with open('/proc/thread-self/schedstat') as file:
        return int(file.read().split()[1])

def process_writes(influxdb3_local, table_batches, args=None):
    begin, cpu, wait = time.monotonic_ns(), time.thread_time_ns(), waited()
    total = 0
    for n in range(int(args['steps'])):
        total += n * n
    line = LineBuilder('spans').tag('trigger', args['name']).int64_field('pid', os.getpid())
    line.int64_field('cpu', time.thread_time_ns() - cpu).int64_field('wait', waited() - wait)
    line.int64_field('begin', begin).int64_field('end', time.monotonic_ns())
    influxdb3_local.write_to_db('spans', line)
";

/// About a second of work on one core.
const STEPS: &str = "12000000";

/// When a run of a trigger was, in nanoseconds of one clock.
#[derive(Debug)]
struct Span {
    pid: i64,
    begin: i64,
    end: i64,
    cpu: i64,
    wait: i64,
}

impl Span {
    /// How long it could run and did not, for any reason but that all cores were taken.
    fn blocked(&self) -> i64 {
        self.end - self.begin - self.cpu - self.wait
    }
}

#[tokio::test]
async fn plugins_of_two_triggers_run_at_the_same_time_on_two_cores() {
    // How long a thread has waited for a core is not for confined plugins to see.
    let server = server()
        .plugin("busy.py", BUSY)
        .flag("--sandbox", "off")
        .start()
        .await;
    let db = server.database("db").create().await;
    for name in ["a", "b"] {
        let trigger = db.trigger(name, "busy.py").spec(&format!("table:{name}"));
        trigger
            .argument("name", name)
            .argument("steps", STEPS)
            .create()
            .await;
    }
    let spans = server.database("spans");
    // The first time, the workers have to be started; and another program may be in the way.
    let mut round = 0;
    eventually("two plugins overlap", async || {
        round += 1;
        db.write(format!("a f=1 {round}\nb f=1 {round}")).await;
        spans
            .until(
                "SELECT count(*) AS n FROM spans",
                json!([{ "n": 2 * round }]),
            )
            .await;
        check_overlap(&last_span(&spans, "a").await, &last_span(&spans, "b").await)
    })
    .await;
}

async fn last_span(spans: &Database, trigger: &str) -> Span {
    let sql = format!(
        "SELECT pid, cpu, wait, begin, \"end\" FROM spans WHERE trigger = '{trigger}' \
         ORDER BY time DESC LIMIT 1"
    );
    let rows = spans.query(&sql).await;
    let field = |name: &str| rows[0][name].as_i64().expect("an integer");
    Span {
        pid: field("pid"),
        begin: field("begin"),
        end: field("end"),
        cpu: field("cpu"),
        wait: field("wait"),
    }
}

fn check_overlap(a: &Span, b: &Span) -> Result<(), String> {
    assert_ne!(a.pid, b.pid, "every trigger has its own process");
    let both = a.end.min(b.end) - a.begin.max(b.begin);
    let wall = a.end.max(b.end) - a.begin.min(b.begin);
    if both < wall / 2 {
        return Err(format!("they hardly overlap: {a:?} {b:?}"));
    }
    // Whoever waits for the other's lock, as threads of one interpreter do, is blocked for about
    // half of the time. Waiting for a core is no fault of the server.
    for span in [a, b] {
        if span.blocked() > (span.end - span.begin) / 5 {
            return Err(format!("they block each other: {a:?} {b:?}"));
        }
    }
    Ok(())
}

/// Looks at every row and every column.
const SUMMING: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        rows = batch['rows']
        line = LineBuilder('sums').int64_field('row_count', len(rows))
        line.int64_field('columns', min(len(row) for row in rows))
        line.int64_field('n', sum(row['n'] for row in rows))
        line.float64_field('f', sum(row['f'] for row in rows))
        line.int64_field('yes', sum(row['b'] for row in rows))
        line.int64_field('hosts', len({row['host'] for row in rows}))
        line.int64_field('times', len({row['time'] for row in rows}))
        influxdb3_local.write_to_db('sums', line)
";

#[tokio::test]
async fn fifty_thousand_rows_reach_a_plugin_in_one_batch() {
    let server = server().plugin("summing.py", SUMMING).start().await;
    let db = server.database("db").create().await;
    db.trigger("summing", "summing.py").create().await;
    let mut lines = String::new();
    for n in 0..50_000_i64 {
        let time = 1_600_000_000_000_000_000 + n;
        let (host, half, even) = (n % 10, 0.5, n % 2 == 0);
        writeln!(lines, "m,host=h{host} n={n}i,f={half},b={even} {time}").expect("to memory");
    }
    db.write(lines).await;
    let expected = json!([{
        "row_count": 50_000,
        "columns": 5,
        "n": 1_249_975_000,
        "f": 25_000.0,
        "yes": 25_000,
        "hosts": 10,
        "times": 50_000,
    }]);
    let sql = "SELECT row_count, columns, n, f, yes, hosts, times FROM sums";
    server.database("sums").until(sql, expected).await;
}
