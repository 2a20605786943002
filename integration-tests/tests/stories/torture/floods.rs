//! Plugins that say, write or ask more than anybody wants.

use super::Arena;

/// Runs an attack that wants to fill the server's memory, and checks that it does not.
async fn write_a_gigabyte(attack: &str, expected: &str) {
    let arena = Arena::new(attack).await;
    let before = arena.server.peak_mib();
    arena.endures(expected).await;
    let after = arena.server.peak_mib();
    // The budget is 64 MiB, and what is under way is bounded by the streams' windows.
    assert!(
        after < before + 250,
        "{before} MiB before, {after} MiB after"
    );
}

#[tokio::test]
async fn a_gigabyte_of_lines_is_refused() {
    write_a_gigabyte(
        "
def attack(influxdb3_local, args):
    line = LineBuilder('big').string_field('text', 'x' * (1 << 20)).build()
    class Line:
        def build(self):
            return line
    while True:
        influxdb3_local.write(Line())
",
        "LinesLimitError",
    )
    .await;
}

/// The same from a worker that does not keep to its own limits.
#[tokio::test]
async fn a_gigabyte_of_lines_behind_the_hosts_back_ends_the_worker() {
    write_a_gigabyte(
        "
import gc
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

def attack(influxdb3_local, args):
    send = next(o for o in gc.get_objects() if isinstance(o, Outbox)).send
    lines = b'big text=\"' + b'x' * (1 << 20) + b'\"\\n'
    for _ in range(1024):
        send(m.FromWorker(lines=m.Lines(invocation=influxdb3_local.invocation_id, text=lines)))
",
        "it buffered more bytes of lines than the limit of an invocation",
    )
    .await;
}

#[tokio::test]
async fn ten_megabytes_in_one_print_are_cut() {
    let arena = Arena::new(
        "
def attack(influxdb3_local, args):
    print('x' * 10_000_000)
    raise ValueError('printed')
",
    )
    .await;
    arena.endures("ValueError: printed").await;
    let logs = arena.db.logs("t").await;
    let longest = logs.iter().map(|row| row.text.len()).max();
    assert!(
        longest.is_some_and(|bytes| (8 * 1024..10_000).contains(&bytes)),
        "{longest:?}"
    );
}

#[tokio::test]
async fn a_million_log_lines_are_counted_and_dropped() {
    let arena = Arena::new(
        "
def attack(influxdb3_local, args):
    for n in range(1_000_000):
        print(n)
    for n in range(20_000):
        influxdb3_local.info(n)
    raise ValueError('said it all')
",
    )
    .await;
    arena.endures("ValueError: said it all").await;
    let logs = arena.db.logs("t").await;
    let dropped = logs
        .iter()
        .any(|row| row.level == "WARN" && row.text.contains("lines were dropped"));
    assert!(dropped, "{:#?}", &logs[logs.len().saturating_sub(5)..]);
    assert!(logs.len() < 20_000, "{} lines were logged", logs.len());
}

#[tokio::test]
async fn a_query_that_nobody_reads_holds_nothing_up() {
    let arena = Arena::new(
        "
import gc, time
import pyarrow.flight
from outrigger_plugin_host._flight import FlightFetch

kept = []

def attack(influxdb3_local, args):
    real = FlightFetch._get
    def begin_only(self, ticket):
        reader = self._connected().do_get(pyarrow.flight.Ticket(ticket))
        kept.append((reader, reader.read_chunk()))
        raise ValueError('read one batch of many')
    FlightFetch._get = begin_only
    try:
        influxdb3_local.query('SELECT a.n FROM rows a, rows b, rows c')
    finally:
        FlightFetch._get = real
",
    )
    .await;
    let rows: Vec<_> = (0..300).map(|n| format!("rows n={n}i {n}\n")).collect();
    arena.db.write(rows.concat()).await;
    arena.endures("ValueError: read one batch of many").await;
}

/// What it asked for would be kept for it until its deadline.
#[tokio::test]
async fn a_reader_that_stops_reading_is_ended() {
    let arena = Arena::new(
        "
import time
import pyarrow.flight
from outrigger_plugin_host._flight import FlightFetch

def attack(influxdb3_local, args):
    def begin_only(self, ticket):
        reader = self._connected().do_get(pyarrow.flight.Ticket(ticket))
        reader.read_chunk()
        time.sleep(600)
    FlightFetch._get = begin_only
    influxdb3_local.query('SELECT a.n FROM rows a, rows b, rows c')
",
    )
    .await;
    let rows: Vec<_> = (0..300).map(|n| format!("rows n={n}i {n}\n")).collect();
    arena.db.write(rows.concat()).await;
    arena.create("t", "10m").await;
    let text = "the plugin asked for rows, did not read them for 30s, and was killed";
    let failure = arena.suffers("t", text).await;
    assert!(failure.text.contains(" in begin_only"), "{failure:#?}");
    let outcomes = "SELECT outcome FROM system.plugin_invocations WHERE trigger_name = 't'";
    let expected = serde_json::json!([{ "outcome": "slow_reader" }]);
    arena.db.until(outcomes, expected).await;
    arena.recovers("t").await;
}

/// What a run prints without an end of line is its own.
#[tokio::test]
async fn an_unfinished_line_goes_to_no_later_run() {
    let arena = Arena::new(
        "
import os

def attack(influxdb3_local, args):
    os.write(1, b'unfinished')
    raise ValueError('printed')
",
    )
    .await;
    arena.create("t", "30s").await;
    for n in 1..=3 {
        arena.db.write(format!("t n=1i {n}")).await;
        arena.db.until_logged("t", n, "ValueError: printed").await;
    }
    arena.db.until_logged("t", 3, "unfinished").await;
    let of_their_own = "SELECT count(DISTINCT invocation_id) AS n \
                        FROM system.processing_engine_logs WHERE log_text = 'unfinished'";
    assert_eq!(arena.db.number(of_their_own).await, 3);
    arena.others_go_on().await;
}
