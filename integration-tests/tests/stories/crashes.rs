//! The server is killed again and again while it works. What it has acknowledged is there, and
//! its triggers have dealt with every row exactly once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use outrigger_integration_tests::{Builder, Database, Server, TriggerBuilder, eventually};
use tokio::task::JoinSet;

use crate::server;

const WRITERS: usize = 2;
/// Every line of a write has a tag of its own, since lines of one write share their time.
const LINES_PER_WRITE: usize = 5;

/// Counts rows, under a name of its own for every run: a batch that is counted twice shows as
/// two reports, and not as one that replaces the other.
const COUNTING: &str = "
import uuid

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        line = LineBuilder('reports').tag('run', uuid.uuid4().hex)
        influxdb3_local.write(line.int64_field('row_count', len(batch['rows'])))
";

/// Identifies a line by what it holds. Its time is the server's, so that a row that is stored
/// twice does not replace itself.
type RowId = (i64, String);

/// Counts likewise, but raises, exits or is killed in every third run, before or after it
/// has written.
const FAILING: &str = "
import os, random, signal, uuid

def fail():
    if random.random() < 0.15:
        how = random.choice(['raise', 'exit', 'kill'])
        if how == 'exit':
            os._exit(3)
        if how == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError('at random')

def process_writes(influxdb3_local, table_batches, args=None):
    fail()
    for batch in table_batches:
        line = LineBuilder('reports').tag('run', uuid.uuid4().hex)
        influxdb3_local.write(line.int64_field('row_count', len(batch['rows'])))
    fail()
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_no_row_and_count_none_twice() {
    survive(server().plugin("counting.py", COUNTING), |it| it, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_at_random_counts_every_row_once_over_fifty_kills() {
    let server = server()
        .plugin("counting.py", FAILING)
        .allow_log("a plugin's worker ended", "the plugin ends it at random");
    survive(server, |it| it.error_behavior("retry"), 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_runs_that_fail_at_random_count_every_row_once_over_twenty_kills() {
    let server = server()
        .plugin("counting.py", FAILING)
        .flag("--trigger-concurrency", "4")
        .allow_log("a plugin's worker ended", "the plugin ends it at random");
    let trigger = |it: TriggerBuilder| it.error_behavior("retry").asynchronous();
    survive(server, trigger, 20).await;
}

/// Snapshots all the time: kills come while files are written, named and removed too.
fn with_snapshots(server: Builder) -> Builder {
    server
        .flag("--wal-snapshot-size", "2")
        .flag("--snapshotted-wal-files-to-keep", "0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_while_snapshots_are_made_lose_no_row_and_count_none_twice() {
    let server = with_snapshots(server().plugin("counting.py", COUNTING));
    let made = survive(server, |it| it, 30).await;
    assert!(made > 20, "{made} snapshots");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_runs_count_every_row_once_over_kills_and_snapshots() {
    let server = with_snapshots(server().plugin("counting.py", FAILING))
        .allow_log("a plugin's worker ended", "the plugin ends it at random")
        .flag("--trigger-concurrency", "4");
    let trigger = |it: TriggerBuilder| it.error_behavior("retry").asynchronous();
    survive(server, trigger, 20).await;
}

/// Kills the server so many times while it works, and checks it after each. Returns how many
/// snapshots it has made.
async fn survive(
    builder: Builder,
    settings: impl FnOnce(TriggerBuilder) -> TriggerBuilder,
    rounds: usize,
) -> usize {
    let mut server = builder.start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("counting", "counting.py").spec("table:stream");
    settings(trigger).create().await;
    db.write(lines(0)).await;
    let mut acknowledged: BTreeSet<i64> = [0].into();
    let mut next = 1;
    for round in 0..rounds {
        let moment = Moment {
            plugin_works: round % 2 == 0,
            acknowledged: 1 + round % 7,
        };
        acknowledged.extend(write_until_killed(&mut server, &mut next, moment).await);
        server.restart().await;
        check_rows(&server.database("db"), &acknowledged).await;
    }
    let db = server.database("db");
    until_all_is_counted(&db).await;
    // Whatever was still under way would be counted by now that a later write is.
    db.write(lines(next)).await;
    until_all_is_counted(&db).await;
    server.count_logged("made a snapshot")
}

/// When the server is killed; writes go on all the time.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Not before the plugin has reported something since the start; else as early as can be,
    /// when its worker is just being started.
    plugin_works: bool,
    /// As soon as so many further writes are acknowledged.
    acknowledged: usize,
}

fn lines(write: i64) -> String {
    let line = |index| format!("stream,line=l{index} n={write}i\n");
    (0..LINES_PER_WRITE).map(line).collect()
}

/// Writes from several tasks and kills the server in the middle of it. Returns which writes
/// were acknowledged.
async fn write_until_killed(server: &mut Server, next: &mut i64, moment: Moment) -> Vec<i64> {
    let db = server.database("db");
    let reports = count_reports(&db).await;
    let count = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        // No two writes have the same number.
        let first = *next + i64::try_from(writer).expect("few writers");
        writers.spawn(write_stream(db.clone(), first, count.clone()));
    }
    if moment.plugin_works {
        eventually("the plugin reports something", async || {
            let now = count_reports(&db).await;
            (now > reports).then_some(()).ok_or(format!("{now}"))
        })
        .await;
    }
    let enough = count.load(Ordering::Relaxed) + moment.acknowledged;
    eventually("writes are acknowledged", async || {
        let now = count.load(Ordering::Relaxed);
        (now >= enough).then_some(()).ok_or(format!("{now}"))
    })
    .await;
    server.kill_9();
    let mut acknowledged = Vec::new();
    while let Some(writes) = writers.join_next().await {
        let (writes, unused) = writes.expect("a writer does not panic");
        acknowledged.extend(writes);
        *next = (*next).max(unused);
    }
    acknowledged
}

/// How many reports there are; the first one makes their table.
async fn count_reports(db: &Database) -> i64 {
    let reply = db.try_query("SELECT count(*) AS n FROM reports").await;
    if reply.status == 400 {
        return 0;
    }
    reply.check_success("count the reports");
    reply.json()[0]["n"].as_i64().expect("a number")
}

/// Writes until nobody answers. Returns what was acknowledged, and the first unused number.
async fn write_stream(db: Database, first: i64, count: Arc<AtomicUsize>) -> (Vec<i64>, i64) {
    let step = i64::try_from(WRITERS).expect("few writers");
    let mut acknowledged = Vec::new();
    let mut write = first;
    while let Ok(reply) = db.try_write(lines(write)).await {
        assert_eq!(reply.status, 204, "{reply:?}");
        acknowledged.push(write);
        count.fetch_add(1, Ordering::Relaxed);
        write += step;
    }
    (acknowledged, write + step)
}

/// Every acknowledged row is there, and no row is there twice. Others, which the server had
/// accepted but could not acknowledge any more, may be there, but only as whole writes.
async fn check_rows(db: &Database, acknowledged: &BTreeSet<i64>) {
    let rows = db.query("SELECT n, line FROM stream").await;
    let rows = rows.as_array().expect("rows");
    let stored: BTreeSet<RowId> = rows
        .iter()
        .map(|row| {
            let line = row["line"].as_str().expect("a tag").to_owned();
            (row["n"].as_i64().expect("a number"), line)
        })
        .collect();
    assert_eq!(stored.len(), rows.len(), "a row is there twice");
    let writes: BTreeSet<i64> = stored.iter().map(|(write, _)| *write).collect();
    assert_eq!(
        stored.len(),
        writes.len() * LINES_PER_WRITE,
        "a write was torn"
    );
    let lost: Vec<_> = acknowledged.difference(&writes).collect();
    assert!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
}

async fn until_all_is_counted(db: &Database) {
    eventually("all rows are counted exactly once", async || {
        let rows = db.number("SELECT count(*) AS n FROM stream").await;
        let reply = db
            .try_query("SELECT sum(row_count) AS n FROM reports")
            .await;
        if reply.status != 200 {
            return Err(format!("{reply:?}"));
        }
        let counted = reply.json()[0]["n"].as_i64().unwrap_or(0);
        assert!(counted <= rows, "{counted} rows were counted of {rows}");
        if counted == rows {
            Ok(())
        } else {
            Err(format!("{counted} rows of {rows} are counted"))
        }
    })
    .await;
}
