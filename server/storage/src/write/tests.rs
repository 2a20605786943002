use std::time::Duration;

use arrow::array::RecordBatch;
use object_store::{ObjectStore, memory::InMemory};
use outrigger_catalog::trigger::{ErrorBehavior, TriggerDefinition, TriggerEvent};
use outrigger_log::{replay::TornTail, store::Durability};
use outrigger_model::{clock::SystemClock, trace::Trace};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Lag, Settings, Stores,
    feed::Filter,
    journal::{JournalTable, LogLevel, PluginLog},
    keeping, snapshot,
    testing::points,
};

struct Fixture {
    storage: Storage,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(store: &Arc<InMemory>) -> Fixture {
    let stores = Stores::new(
        store.clone() as Arc<dyn ObjectStore>,
        "n",
        Durability::Store,
    );
    let log = commit::Config {
        flush_interval: Duration::from_millis(10),
        buffer_bytes_max: 1 << 20,
        buffer_submissions_max: 1000,
        buffer_wait_max: Duration::from_secs(5),
        durable_wait_max: Duration::from_secs(5),
    };
    let settings = Settings {
        log,
        snapshots: snapshot::Config::default(),
        keeping: keeping::Config::default(),
        torn_tail: TornTail::SetAside,
    };
    let clock = Arc::new(SystemClock::default());
    let (storage, task) = Storage::open(stores, clock, settings).await.unwrap();
    let shutdown = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the fixture owns the task")]
    let task = tokio::spawn(task.run(shutdown.clone()));
    Fixture {
        storage,
        shutdown,
        task,
    }
}

impl Fixture {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    async fn write(&self, text: &str) -> Result<(), WriteError> {
        let request = WriteRequest {
            database: "db".to_owned(),
            text: text.into(),
            precision: Precision::Nanosecond,
            accept_partial: true,
            no_sync: false,
            trace: Trace::unrecorded(),
        };
        self.storage.write(request).await
    }

    async fn rows(&self, table: &str) -> usize {
        points(&self.storage, "db", table).await.num_rows()
    }

    fn logs(&self) -> usize {
        let logs = self
            .storage
            .internal_snapshot()
            .journal(JournalTable::PluginLogs)
            .unwrap();
        logs.iter().map(RecordBatch::num_rows).sum()
    }
}

fn log_line(text: &str) -> PluginLog {
    PluginLog {
        event_time: Timestamp(1),
        trigger_name: "t".to_owned(),
        log_level: LogLevel::Info,
        log_text: text.to_owned(),
        invocation_id: None,
        trace: None,
    }
}

fn no_rows(_: &[RejectedWrite]) -> JournalRows {
    JournalRows::default()
}

fn log_rows(logs: Vec<PluginLog>) -> JournalRows {
    JournalRows {
        logs,
        ..JournalRows::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_read_at_once_and_after_a_restart() {
    let store = Arc::new(InMemory::new());
    let first = start(&store).await;
    first.write("m,t=a f=1 1\nm,t=b f=2 1").await.unwrap();
    assert_eq!(first.rows("m").await, 2);
    first
        .storage
        .append(&log_rows(vec![log_line("x")]))
        .await
        .unwrap();
    first.stop().await;

    let second = start(&store).await;
    assert_eq!((second.rows("m").await, second.logs()), (2, 1));
    second.write("m,t=a f=3 1").await.unwrap();
    assert_eq!(
        second.rows("m").await,
        2,
        "the same point was written again"
    );
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn bad_lines_are_reported_and_good_ones_stored() {
    let fixture = start(&Arc::new(InMemory::new())).await;
    let error = fixture.write("m f=1 1\nbad\nm f=1i 2").await.unwrap_err();
    let WriteError::Partial(lines) = error else {
        panic!("{error}")
    };
    assert_eq!(
        lines
            .iter()
            .map(|line| line.line_number)
            .collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(fixture.rows("m").await, 1);
    assert!(matches!(
        fixture.write("# nothing").await,
        Err(WriteError::Empty)
    ));
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_good_line_creates_nothing() {
    let fixture = start(&Arc::new(InMemory::new())).await;
    assert!(matches!(
        fixture.write("bad").await,
        Err(WriteError::Partial(_))
    ));
    assert!(fixture.storage.catalog().database("db").is_err());
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_writers_agree_on_a_new_table() {
    let fixture = start(&Arc::new(InMemory::new())).await;
    let texts: Vec<String> = (0..50).map(|n| format!("m,t=a f{}=1 {n}", n % 5)).collect();
    let writes = texts.iter().map(|text| fixture.write(text));
    for result in futures::future::join_all(writes).await {
        result.unwrap();
    }
    assert_eq!(fixture.rows("m").await, 50);
    assert_eq!(
        fixture
            .storage
            .catalog()
            .database("db")
            .unwrap()
            .tables
            .len(),
        1
    );
    fixture.stop().await;
}

async fn create_trigger(storage: &Storage) {
    let definition = TriggerDefinition {
        name: "t".to_owned(),
        plugin: "p.py".to_owned(),
        pin: None,
        event: TriggerEvent::AllTablesWalWrite,
        arguments: None,
        error_behavior: ErrorBehavior::Log,
        disabled: false,
        timeout: None,
        run_async: false,
        grants: outrigger_catalog::grants::Grants::default(),
    };
    let make = move |catalog: &Catalog| {
        catalog
            .create_trigger("db", definition.clone(), false)
            .map(Some)
    };
    storage.change(make).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_whole_and_the_feed_goes_on_behind_its_cursor() {
    let store = Arc::new(InMemory::new());
    let fixture = start(&store).await;
    fixture.write("m f=1 1").await.unwrap();
    let storage = fixture.storage.clone();
    create_trigger(&storage).await;
    fixture.write("m f=1 2\nother f=1 2").await.unwrap();

    let catalog = storage.catalog();
    let trigger = catalog
        .database("db")
        .unwrap()
        .trigger("t")
        .unwrap()
        .clone();
    let database = catalog.database("db").unwrap().id;
    let filter = Filter {
        database,
        table: Some("m".to_owned()),
        rows_max: 100,
        bytes_max: 1 << 20,
    };
    let feed = storage.feed();
    let from = trigger.progress.cursor();
    let delivery = feed.read(from, None, &filter).await.unwrap();
    assert_eq!(delivery.tables.len(), 1);
    assert_eq!(delivery.tables[0].rows(), 1);

    let own = |text: &str| TargetWrite {
        target: Target::Existing(database),
        text: text.into(),
    };
    let named = |text: &str| TargetWrite {
        target: Target::Named("x".into()),
        text: text.into(),
    };
    let logs = |rejected: &[RejectedWrite]| {
        assert_eq!(rejected.len(), 1);
        log_rows(vec![log_line("rejected")])
    };
    let commit = Commit {
        writes: vec![own("report n=1i"), named("a b=1\nbad")],
        done: Some((
            trigger.id,
            EntryRange {
                after: from,
                through: delivery.through,
            },
        )),
        change: None,
        journal: Box::new(logs),
        trace: Trace::unrecorded(),
    };
    assert_eq!(storage.commit(commit).await.unwrap().rejected.len(), 1);
    fixture.stop().await;

    let after = start(&store).await;
    assert_eq!((after.rows("report").await, after.logs()), (1, 1));
    let catalog = after.storage.catalog();
    assert!(catalog.database("x").is_err(), "rejected as a whole");
    let cursor = catalog
        .trigger_by_id(trigger.id)
        .unwrap()
        .1
        .progress
        .cursor();
    assert_eq!(cursor, delivery.through);
    let feed = after.storage.feed();
    let next = feed.read(cursor, None, &filter).await.unwrap();
    assert!(next.tables.is_empty(), "the report is in another table");
    after.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_database_is_not_brought_back_by_a_running_plugin() {
    let fixture = start(&Arc::new(InMemory::new())).await;
    fixture.write("m f=1 1").await.unwrap();
    let database = fixture.storage.catalog().database("db").unwrap().id;
    fixture.storage.delete_database("db", None).await.unwrap();
    let target = Target::Existing(database);
    let writes = vec![TargetWrite {
        target,
        text: "m f=2 2".into(),
    }];
    let commit = Commit {
        writes,
        done: None,
        change: None,
        journal: Box::new(no_rows),
        trace: Trace::unrecorded(),
    };
    assert_eq!(
        fixture.storage.commit(commit).await.unwrap().rejected.len(),
        1
    );
    assert!(fixture.storage.catalog().database("db").is_err());
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lag_is_what_has_rows_and_is_not_dealt_with() {
    let store = Arc::new(InMemory::new());
    let fixture = start(&store).await;
    fixture.write("m f=1 1").await.unwrap();
    let storage = fixture.storage.clone();
    create_trigger(&storage).await;
    let id = storage.catalog().triggers().next().unwrap().1.id;
    let feed = storage.feed();
    assert_eq!(
        feed.lag(id, None),
        Lag::default(),
        "what was before is not its"
    );

    let before = storage.clock().now();
    fixture
        .write("m f=1 2\nm f=2 3\nother f=1 1")
        .await
        .unwrap();
    storage
        .append(&log_rows(vec![log_line("x")]))
        .await
        .unwrap();
    fixture.write("m f=1 4").await.unwrap();
    let counts = |table| {
        let lag = feed.lag(id, table);
        assert_eq!(lag.since.is_some(), lag.rows > 0, "{lag:?}");
        (lag.entries, lag.rows)
    };
    assert_eq!(counts(None), (2, 4));
    assert_eq!(counts(Some("m")), (2, 3));
    assert_eq!(counts(Some("other")), (1, 1));
    assert_eq!(counts(Some("none")), (0, 0));
    assert!(feed.lag(id, None).since > Some(before));

    let last = *feed.subscribe().borrow();
    let dealt_with = |after: u64| Commit {
        writes: Vec::new(),
        done: Some((
            id,
            EntryRange {
                after: Sequence(after),
                through: last,
            },
        )),
        change: None,
        journal: Box::new(no_rows),
        trace: Trace::unrecorded(),
    };
    // The last entry was dealt with before the ones in front of it.
    storage.commit(dealt_with(last.0 - 1)).await.unwrap();
    assert_eq!(counts(None), (1, 3));
    fixture.stop().await;

    let again = start(&store).await;
    let feed = again.storage.feed();
    assert_eq!(feed.lag(id, None).rows, 3, "the lag outlives the server");
    again.storage.commit(dealt_with(0)).await.unwrap();
    assert_eq!(feed.lag(id, None), Lag::default());
    again.stop().await;
}
