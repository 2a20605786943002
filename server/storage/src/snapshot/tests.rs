//! Snapshots against a store that keeps what it has accepted, and dies at any change.

mod damage;
mod failing;
mod faults;
mod faulty;
mod house;
mod persisted;

use std::{collections::BTreeMap, num::NonZeroU64, sync::Arc, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType},
};
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use outrigger_catalog::{
    deletion::HardDelete,
    grants::Grants,
    progress::EntryRange,
    trigger::{ErrorBehavior, TriggerDefinition, TriggerEvent},
};
use outrigger_log::{commit, replay::TornTail, store::Durability};
use outrigger_model::{
    clock::{SystemClock, Timestamp},
    ids::{DatabaseId, Sequence, TriggerId},
    line_protocol::Precision,
    trace::Trace,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    failing::Failing,
    house::{check_nothing_is_left, joining},
};
use super::*;
use crate::{
    Commit, Settings, Storage, Stores, WriteError, WriteRequest,
    feed::Filter,
    journal::{JournalRows, JournalTable, LogLevel, PluginLog},
    keeping,
    testing::points,
};

struct Running {
    storage: Storage,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// A snapshot after every so many entries.
fn config(entries: u64, entries_kept: u64) -> Config {
    Config {
        entries: NonZeroU64::new(entries).unwrap(),
        entries_kept,
        ..Config::default()
    }
}

async fn start(store: &Arc<InMemory>, config: Config) -> Running {
    try_start(store.clone(), config).await.unwrap()
}

async fn try_start(
    store: Arc<dyn ObjectStore>,
    snapshots: Config,
) -> Result<Running, crate::OpenError> {
    let stores = Stores::new(store, "n", Durability::Store);
    start_on(stores, snapshots, TornTail::SetAside).await
}

async fn start_on(
    stores: Stores,
    snapshots: Config,
    torn_tail: TornTail,
) -> Result<Running, crate::OpenError> {
    let log = commit::Config {
        flush_interval: Duration::from_millis(1),
        buffer_bytes_max: 1 << 20,
        buffer_submissions_max: 1000,
        buffer_wait_max: Duration::from_secs(5),
        durable_wait_max: Duration::from_secs(5),
    };
    let clock = Arc::new(SystemClock::default());
    let settings = Settings {
        log,
        snapshots,
        keeping: keeping::Config::default(),
        torn_tail,
    };
    let (storage, task) = Storage::open(stores, clock, settings).await?;
    let shutdown = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the fixture owns the task")]
    let task = tokio::spawn(task.run(shutdown.clone()));
    Ok(Running {
        storage,
        shutdown,
        task,
    })
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// As if it was killed.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    async fn write(&self, text: &str) {
        self.try_write(text).await.unwrap();
    }

    async fn try_write(&self, text: &str) -> Result<(), WriteError> {
        let request = WriteRequest {
            database: "db".to_owned(),
            text: text.into(),
            precision: Precision::Nanosecond,
            accept_partial: false,
            no_sync: false,
            trace: Trace::unrecorded(),
        };
        self.storage.write(request).await
    }

    async fn log(&self, text: &str) -> Result<(), WriteError> {
        let line = PluginLog {
            event_time: Timestamp(1),
            trigger_name: "t".to_owned(),
            log_level: LogLevel::Info,
            log_text: text.to_owned(),
            invocation_id: None,
            trace: None,
        };
        let rows = JournalRows {
            logs: vec![line],
            ..JournalRows::default()
        };
        self.storage.append(&rows).await
    }

    /// Writes a first point, with all columns.
    async fn begin(&self, model: &mut BTreeMap<Key, Fields>) {
        model.clear();
        self.write("m,t=t0 f=0,n=0i 0").await;
        model.insert(("t0".to_owned(), 0), (Some(0.0), Some(0)));
    }

    /// How much memory rows of tables take.
    fn rows_bytes(&self) -> f64 {
        let families = self.storage.collectors().into_iter();
        let mut families = families.flat_map(|collector| collector.collect());
        let memory = families.find(|family| family.name() == "outrigger_storage_memory_bytes");
        let memory = memory.unwrap();
        let rows = memory
            .get_metric()
            .iter()
            .find(|part| part.get_label()[0].value() == "rows");
        rows.unwrap().get_gauge().get_value()
    }

    fn logs(&self) -> usize {
        let snapshot = self.storage.internal_snapshot();
        let logs = snapshot.journal(JournalTable::PluginLogs).unwrap();
        logs.iter().map(RecordBatch::num_rows).sum()
    }

    async fn create_trigger(&self, name: &str, earliest: bool) {
        let event = TriggerEvent::AllTablesWalWrite;
        self.create_trigger_on(name, event, earliest).await;
    }

    async fn create_trigger_on(&self, name: &str, event: TriggerEvent, earliest: bool) {
        let definition = TriggerDefinition {
            name: name.to_owned(),
            plugin: "p.py".to_owned(),
            pin: None,
            event,
            arguments: None,
            error_behavior: ErrorBehavior::Log,
            disabled: false,
            timeout: None,
            run_async: false,
            grants: Grants::default(),
        };
        let change = move |catalog: &outrigger_catalog::Catalog| {
            let create = catalog.create_trigger("db", definition.clone(), earliest);
            create.map(Some)
        };
        self.storage.change(change).await.unwrap();
    }

    fn cursor(&self, name: &str) -> Sequence {
        let catalog = self.storage.catalog();
        let trigger = catalog.trigger("db", name).unwrap();
        trigger.progress.cursor()
    }

    /// How many rows a trigger gets that has seen nothing behind `after`; and how far.
    async fn delivered(&self, after: Sequence) -> (usize, Sequence) {
        let filter = Filter {
            database: DatabaseId(1),
            table: None,
            rows_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let delivery = self
            .storage
            .feed()
            .read(after, None, &filter)
            .await
            .unwrap();
        let rows = delivery.tables.iter().map(crate::feed::TableBatch::rows);
        (rows.sum(), delivery.through)
    }
}

async fn names(store: &InMemory, directory: &str) -> Vec<String> {
    let prefix = Path::from(format!("n/{directory}"));
    let objects: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let mut names: Vec<_> = objects
        .into_iter()
        .map(|object| object.location.to_string())
        .collect();
    names.sort();
    names
}

/// Waits until the last snapshot covers that entry.
async fn snapshot_of(store: &InMemory, sequence: u64) {
    let expected = format!("n/snapshots/{sequence:020}.snapshot");
    loop {
        if names(store, "snapshots").await == [expected.clone()] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn files_take_the_place_of_rows_and_the_log_goes() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(4, 1)).await;
    server
        .write("m,t=a f=1,g=1 1\nm,t=b f=1 900000000000")
        .await;
    server.log("x").await.unwrap();
    server.write("m,t=a f=2 1").await;
    let held = server.storage.snapshot("db").unwrap();
    server.write("n f=1 1").await;
    snapshot_of(&store, 4).await;
    let view = server.storage.snapshot("db").unwrap();
    assert!(view.tables()["m"].batches().unwrap().is_empty());
    let paths: Vec<_> = view.tables()["m"]
        .files()
        .iter()
        .map(|file| &file.path)
        .collect();
    let expected = [
        "n/dbs/1/1/1970-01-01/00-00/0000000004.parquet",
        "n/dbs/1/1/1970-01-01/00-10/0000000004.parquet",
    ];
    assert_eq!(paths, expected);
    assert_eq!(points(&server.storage, "db", "m").await.num_rows(), 2);
    assert_eq!(
        held.tables()["m"].files().len(),
        0,
        "a reader sees what it saw"
    );
    while names(&store, "log").await.len() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.write("m,t=a g=5 1").await;
    server.kill().await;

    let server = start(&store, config(4, 1)).await;
    assert_eq!(
        names(&store, "log").await,
        [
            "n/log/00000000000000000004.entry",
            "n/log/00000000000000000005.entry"
        ]
    );
    let shown = points(&server.storage, "db", "m").await;
    let shown = arrow::util::pretty::pretty_format_batches(&[shown]).unwrap();
    assert!(shown.to_string().contains("| 2.0 | 5.0 | a |"), "{shown}");
    assert_eq!(server.logs(), 1);
    server.stop().await;
    snapshot_of(&store, 5).await;
    let server = start(&store, config(4, 1)).await;
    assert_eq!(points(&server.storage, "db", "m").await.num_rows(), 2);
    assert_eq!(
        names(&store, "journals").await,
        ["n/journals/1/00000000000000000004.parquet"]
    );
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn much_memory_makes_a_snapshot_and_is_given_back() {
    let store = Arc::new(InMemory::new());
    let config = Config {
        memory: ByteSize::kib(64),
        ..config(1_000_000, 0)
    };
    let server = start(&store, config).await;
    let lines: Vec<_> = (0..5000).map(|n| format!("m,t=t{n} f={n} {n}")).collect();
    server.write(&lines.join("\n")).await;
    snapshot_of(&store, 1).await;
    assert!(server.rows_bytes() < 1.0, "{} bytes", server.rows_bytes());
    assert_eq!(points(&server.storage, "db", "m").await.num_rows(), 5000);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_log_is_replayed_in_little_memory() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(1_000_000, 0)).await;
    for write in 0..60 {
        let lines = (0..400).map(|n| format!("m,t=t{n} f={n} {write}"));
        server.write(&lines.collect::<Vec<_>>().join("\n")).await;
    }
    let all = server.rows_bytes();
    server.kill().await;
    // What an interrupted snapshot has left has the name of what is made now.
    let orphan = Path::from("n/dbs/1/1/1970-01-01/00-00/0000000008.parquet");
    store.put(&orphan, "x".into()).await.unwrap();
    let little = Config {
        memory: ByteSize::kib(64),
        ..config(1_000_000, 0)
    };
    let server = start(&store, little).await;
    let kept = server.rows_bytes();
    assert!(kept < all / 4.0, "{kept} of {all} bytes are in memory");
    assert_eq!(names(&store, "snapshots").await.len(), 1);
    assert_eq!(points(&server.storage, "db", "m").await.num_rows(), 24_000);
    server.kill().await;
    let server = start(&store, config(1_000_000, 0)).await;
    assert_eq!(points(&server.storage, "db", "m").await.num_rows(), 24_000);
    check_nothing_is_left(&store, &server).await;
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_trigger_has_still_to_see_is_kept_over_a_restart() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(3, 0)).await;
    server.write("m f=1 1").await;
    server.create_trigger("t", false).await;
    for time in 2..6 {
        server.write(&format!("m f=1 {time}")).await;
    }
    snapshot_of(&store, 6).await;
    assert_eq!(server.cursor("t"), Sequence(2));
    server.kill().await;
    let server = start(&store, config(3, 0)).await;
    let lag = server.storage.feed().lag(TriggerId(1), None);
    assert_eq!((lag.entries, lag.rows), (4, 4));
    assert_eq!(server.delivered(Sequence(2)).await, (4, Sequence(6)));
    // Two of them are dealt with out of turn, which a snapshot keeps too.
    for (after, through) in [(4, 5), (2, 3)] {
        let range = EntryRange {
            after: Sequence(after),
            through: Sequence(through),
        };
        let commit = Commit {
            writes: Vec::new(),
            done: Some((TriggerId(1), range)),
            change: None,
            journal: Box::new(|_| JournalRows::default()),
            trace: Trace::unrecorded(),
        };
        server.storage.commit(commit).await.unwrap();
    }
    server.stop().await;
    snapshot_of(&store, 8).await;
    let server = start(&store, config(3, 0)).await;
    let catalog = server.storage.catalog();
    let progress = &catalog.trigger("db", "t").unwrap().progress;
    assert_eq!(
        (progress.cursor(), progress.entries_beyond()),
        (Sequence(3), 1)
    );
    let lag = server.storage.feed().lag(TriggerId(1), None);
    assert_eq!((lag.entries, lag.rows), (2, 2));
    // One that starts with the earliest gets what is kept.
    server.create_trigger("u", true).await;
    assert_eq!(server.cursor("u"), Sequence(0));
    assert_eq!(server.delivered(Sequence(0)).await, (3, Sequence(9)));
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_lags_too_far_loses_the_oldest_and_it_is_counted() {
    let store = Arc::new(InMemory::new());
    let config = Config {
        lag_max: 5,
        ..config(4, 0)
    };
    let server = start(&store, config.clone()).await;
    server.write("m f=1 1").await;
    server.create_trigger("t", false).await;
    for time in 2..12 {
        server.write(&format!("m f=1 {time}")).await;
    }
    snapshot_of(&store, 12).await;
    while server.delivered(Sequence(2)).await != (5, Sequence(12)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let skipped: f64 = server
        .storage
        .collectors()
        .iter()
        .flat_map(|collector| collector.collect())
        .filter(|family| family.name() == "outrigger_trigger_skipped_entries_total")
        .map(|family| family.get_metric()[0].get_counter().get_value())
        .sum();
    assert!((skipped - 5.0).abs() < 0.1, "{skipped}");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn files_of_a_deleted_database_go_when_nobody_reads_them() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(1, 0)).await;
    server.write("m f=1 1").await;
    snapshot_of(&store, 1).await;
    let view = server.storage.snapshot("db").unwrap();
    let now = HardDelete::At(Timestamp(0));
    let deleted = server.storage.delete_database("db", Some(now)).await;
    deleted.unwrap();
    // Entry 2 deletes it softly.
    snapshot_of(&store, 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(names(&store, "dbs").await.len(), 1, "somebody reads it");
    drop(view);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(names(&store, "dbs").await.is_empty());
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_go_and_a_torn_snapshot_is_not_used() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(2, 10)).await;
    server.write("m f=1 1").await;
    server.write("m f=2 2").await;
    snapshot_of(&store, 2).await;
    server.write("m f=3 3").await;
    server.kill().await;
    let put = async |name: &str, bytes: Vec<u8>| {
        store.put(&Path::from(name), bytes.into()).await.unwrap();
    };
    let newest = "n/snapshots/00000000000000000002.snapshot";
    let good = store
        .get(&Path::from(newest))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    put(
        "n/snapshots/00000000000000000003.snapshot",
        good[..good.len() / 2].to_vec(),
    )
    .await;
    put(
        "n/dbs/1/1/1970-01-01/00-00/0000000003.parquet",
        b"x".to_vec(),
    )
    .await;
    put("n/journals/1/00000000000000000003.parquet", b"x".to_vec()).await;
    let server = start(&store, config(2, 10)).await;
    assert_eq!(points(&server.storage, "db", "m").await.num_rows(), 3);
    assert_eq!(names(&store, "snapshots").await, [newest]);
    assert_eq!(names(&store, "dbs").await.len(), 1);
    assert!(names(&store, "journals").await.is_empty());
    server.kill().await;

    // The only one there is was relied on.
    put(newest, good[..good.len() - 1].to_vec()).await;
    let refused = try_start(store.clone(), config(2, 10)).await;
    let text = outrigger_model::error::Report(&refused.err().unwrap()).to_string();
    assert!(text.contains(newest) && text.contains("backup"), "{text}");
}

/// A point: its tags and time. Its fields.
type Key = (String, i64);
type Fields = (Option<f64>, Option<i64>);

fn stored(batch: &RecordBatch) -> BTreeMap<Key, Fields> {
    let column = |name| batch.column_by_name(name).unwrap();
    let tags = column("t").as_dictionary::<Int32Type>();
    let values = tags.values().as_string::<i32>();
    let f = column("f").as_primitive::<Float64Type>();
    let n = column("n").as_primitive::<Int64Type>();
    let times = column("time").as_primitive::<TimestampNanosecondType>();
    (0..batch.num_rows())
        .map(|row| {
            let key = (
                values.value(tags.key(row).unwrap()).to_owned(),
                times.value(row),
            );
            let f = f.is_valid(row).then(|| f.value(row));
            (key, (f, n.is_valid(row).then(|| n.value(row))))
        })
        .collect()
}

/// A write that replaces parts of earlier ones, and what is there after it.
fn upsert(model: &mut BTreeMap<Key, Fields>, random: &mut StdRng) -> String {
    const TEN_MINUTES: i64 = 600_000_000_000;
    let mut lines = String::new();
    for _ in 0..random.random_range(1..6) {
        let tag = format!("t{}", random.random_range(0..3));
        let time = random.random_range(0..4) + random.random_range(-1..2) * TEN_MINUTES;
        let (f, n): (u8, i64) = (random.random(), random.random());
        let (f, n) = match random.random_range(0..3) {
            0 => (Some(f64::from(f)), None),
            1 => (None, Some(n)),
            _ => (Some(f64::from(f)), Some(n)),
        };
        let fields: Vec<_> = f
            .map(|f| format!("f={f:?}"))
            .into_iter()
            .chain(n.map(|n| format!("n={n}i")))
            .collect();
        lines.extend([
            "m,t=",
            &tag,
            " ",
            &fields.join(","),
            " ",
            &format!("{time}\n"),
        ]);
        let point = model.entry((tag, time)).or_default();
        *point = (f.or(point.0), n.or(point.1));
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn whatever_is_written_restarted_and_snapshot_it_is_as_in_a_plain_map() {
    for seed in 0..14 {
        let mut random = StdRng::seed_from_u64(seed);
        let store = Arc::new(InMemory::new());
        let config = || match seed % 2 {
            0 => config(3, 2),
            _ => joining(),
        };
        let mut model = BTreeMap::new();
        let mut server = start(&store, config()).await;
        server.begin(&mut model).await;
        for _ in 0..60 {
            match random.random_range(0..14) {
                0 => {
                    server.stop().await;
                    server = start(&store, config()).await;
                }
                1 => {
                    server.kill().await;
                    server = start(&store, config()).await;
                }
                // Files are joined meanwhile.
                2 => tokio::time::sleep(Duration::from_millis(1500)).await,
                3 => {
                    let whens = [HardDelete::Never, HardDelete::At(Timestamp(0))];
                    let when = Some(whens[random.random_range(0..2)]);
                    let deleted = server.storage.delete_table("db", "m", when).await;
                    deleted.unwrap();
                    server.begin(&mut model).await;
                }
                _ => server.write(&upsert(&mut model, &mut random)).await,
            }
            let stored = stored(&points(&server.storage, "db", "m").await);
            assert_eq!(stored, model, "seed {seed}");
        }
        server.stop().await;
    }
}

/// What was acknowledged when the store died, and what was under way.
#[derive(Default)]
struct Acknowledged {
    model: BTreeMap<Key, Fields>,
    under_way: BTreeMap<Key, Fields>,
    logs: usize,
    logs_under_way: usize,
}

impl Acknowledged {
    async fn work(&mut self, server: Running) {
        let mut random = StdRng::seed_from_u64(7);
        for step in 0..12 {
            self.under_way = self.model.clone();
            if step % 4 == 3 {
                self.logs_under_way += 1;
                server.log("x").await.unwrap();
                self.logs += 1;
                continue;
            }
            let lines = upsert(&mut self.under_way, &mut random);
            server.try_write(&lines).await.unwrap();
            self.model = self.under_way.clone();
        }
        server.stop().await;
    }
}

/// The store dies at every change in turn: of the log, of files, of the snapshot, of what is
/// removed after it.
#[tokio::test(start_paused = true)]
async fn wherever_a_server_dies_nothing_acknowledged_is_lost() {
    let mut changes = 0;
    loop {
        let store = Arc::new(InMemory::new());
        let failing = Arc::new(Failing::after(changes, store.clone()));
        let mut acknowledged = Acknowledged::default();
        let server = try_start(failing.clone(), config(3, 0)).await.unwrap();
        let task = server.task.abort_handle();
        let died = tokio::select! {
            () = acknowledged.work(server) => false,
            () = failing.died() => true,
        };
        task.abort();
        let server = start(&store, config(3, 0)).await;
        let found = match server.storage.snapshot("db") {
            Ok(snapshot) if snapshot.tables().contains_key("m") => {
                stored(&points(&server.storage, "db", "m").await)
            }
            _ => BTreeMap::new(),
        };
        let expected = [&acknowledged.model, &acknowledged.under_way];
        assert!(
            expected.contains(&&found),
            "after {changes} changes: {found:?}"
        );
        let logs = [acknowledged.logs, acknowledged.logs_under_way];
        assert!(logs.contains(&server.logs()), "after {changes} changes");
        server.stop().await;
        if !died {
            break;
        }
        changes += 1;
    }
    assert!(changes > 30, "{changes} changes");
}
