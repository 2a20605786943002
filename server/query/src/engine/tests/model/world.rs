//! A server, what must be in it, and what happens to both.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use object_store::{ObjectStore, memory::InMemory};
use outrigger_catalog::{Catalog, deletion::HardDelete};
use outrigger_log::{commit, replay::TornTail, store::Durability};
use outrigger_model::{
    bytes::ByteSize,
    clock::{Clock as _, SystemClock, Timestamp},
    line_protocol::Precision,
    schema::ColumnType,
    trace::Trace,
};
use outrigger_storage::{Settings, Storage, Stores, WriteError, WriteRequest, keeping, snapshot};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    lines::{Line, TABLES, Table},
    questions::{NULL, Question},
};
use crate::{Config, QueryEngine};

const DATABASES: [&str; 3] = ["da", "db", "dc"];
const RETENTION: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
struct Database {
    tables: BTreeMap<&'static str, Table>,
    /// Whether rows go after [`RETENTION`].
    has_retention: bool,
}

struct Running {
    storage: Storage,
    engine: QueryEngine,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

pub(super) struct World {
    random: StdRng,
    seed: u64,
    now: i64,
    store: Arc<InMemory>,
    running: Option<Running>,
    databases: BTreeMap<&'static str, Database>,
    pub(super) operations: usize,
    pub(super) comparisons: usize,
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            seed,
            now: SystemClock::default().now().0,
            store: Arc::default(),
            running: None,
            databases: BTreeMap::new(),
            operations: 0,
            comparisons: 0,
        };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        let entries = [20, 50, 100, 200][usize::try_from(self.seed % 4).unwrap()];
        let settings = Settings {
            log: commit::Config {
                flush_interval: Duration::from_millis(20),
                buffer_bytes_max: 1 << 20,
                buffer_submissions_max: 1000,
                buffer_wait_max: Duration::from_secs(5),
                durable_wait_max: Duration::from_secs(5),
            },
            snapshots: snapshot::Config {
                entries: NonZeroU64::new(entries).unwrap(),
                // Most lives have few files: what takes time is reading many.
                window: Duration::from_mins(if self.seed % 4 == 3 { 10 } else { 1440 }),
                entries_kept: 2,
                retention_check: Duration::from_secs(2),
                // Where there are many files, they are joined.
                compaction_memory: ByteSize::mib(if self.seed % 4 < 3 { 64 } else { 0 }),
                ..snapshot::Config::default()
            },
            keeping: keeping::Config::default(),
            torn_tail: TornTail::Refuse,
        };
        let stores = Stores::new(store, "n", Durability::Store);
        let clock = Arc::new(SystemClock::default());
        let (storage, task) = Storage::open(stores, clock, settings).await.unwrap();
        let shutdown = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the world owns the task")]
        let task = tokio::spawn(task.run(shutdown.clone()));
        let config = Config {
            exec_mem_pool_bytes: ByteSize::mib(64),
            target_partitions: NonZeroUsize::new(2).unwrap(),
        };
        self.running = Some(Running {
            engine: QueryEngine::new(storage.clone(), config),
            storage,
            shutdown,
            task,
        });
    }

    async fn restart(&mut self, in_order: bool) {
        let running = self.running.take().unwrap();
        if in_order {
            running.shutdown.cancel();
        } else {
            running.task.abort();
        }
        assert_eq!(running.task.await.is_ok(), in_order);
        self.start().await;
    }

    fn storage(&self) -> Storage {
        self.running.as_ref().unwrap().storage.clone()
    }

    pub(super) async fn step(&mut self) {
        self.operations += 1;
        let database = DATABASES[self.random.random_range(0..3)];
        match self.random.random_range(0..400) {
            0..3 => self.restart(true).await,
            3..6 => self.restart(false).await,
            6..12 => self.delete_table(database).await,
            12..14 => self.delete_database(database).await,
            14 => self.limit(database).await,
            15..20 => self.create_table(database).await,
            20..30 => {
                let millis = self.random.random_range(1..3000);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            _ => self.write(database).await,
        }
        if self.random.random_range(0..5) == 0 {
            self.compare(database).await;
        }
    }

    /// All tables once more, as they are and after a restart.
    pub(super) async fn end(&mut self) {
        for _ in 0..2 {
            for database in DATABASES {
                for _ in 0..4 {
                    self.compare(database).await;
                }
            }
            self.restart(false).await;
        }
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        running.task.await.unwrap();
    }

    async fn write(&mut self, database: &'static str) {
        let lines: Vec<Line> = (0..self.random.random_range(1..6))
            .map(|_| Line::random(&mut self.random, self.now))
            .collect();
        let accept_partial = self.random.random();
        let known = self.databases.get(database);
        let known = known.map(|database| &database.tables);
        // Without their points, until it is known what was taken.
        let mut tables: BTreeMap<&str, Table> = known
            .into_iter()
            .flatten()
            .map(|(name, table)| (*name, table.without_points()))
            .collect();
        let (mut taken, mut refused) = (Vec::new(), 0);
        for line in &lines {
            let mut table = tables.get(line.table).cloned().unwrap_or_default();
            if table.take(line) {
                tables.insert(line.table, table);
                taken.push(line);
            } else {
                refused += 1;
            }
        }
        let texts: Vec<String> = lines.iter().map(Line::text).collect();
        let request = WriteRequest {
            database: database.to_owned(),
            text: texts.join("\n").into(),
            precision: Precision::Nanosecond,
            accept_partial,
            no_sync: false,
            trace: Trace::unrecorded(),
        };
        let written = self.storage().write(request).await;
        match written {
            Ok(()) => assert_eq!(refused, 0, "{texts:#?}"),
            Err(WriteError::Partial(bad)) => assert_eq!(bad.len(), refused, "{texts:#?}"),
            Err(WriteError::Line(_)) if refused > 0 && !accept_partial => return,
            Err(other) => panic!("{other:?}: {texts:#?}"),
        }
        // A database or table whose lines are all refused does not come to be.
        for line in taken {
            let database = self.databases.entry(database).or_default();
            database.tables.entry(line.table).or_default().take(line);
        }
    }

    fn hard(&mut self) -> Option<HardDelete> {
        let choices = [
            None,
            Some(HardDelete::Never),
            Some(HardDelete::At(Timestamp(0))),
        ];
        choices[self.random.random_range(0..3)]
    }

    async fn delete_table(&mut self, database: &'static str) {
        let (table, hard) = (
            TABLES[self.random.random_range(0..TABLES.len())],
            self.hard(),
        );
        let deleted = self.storage().delete_table(database, table, hard).await;
        let tables = self
            .databases
            .get_mut(database)
            .map(|found| &mut found.tables);
        let known = tables.and_then(|tables| tables.remove(table));
        assert_eq!(deleted.is_ok(), known.is_some(), "{deleted:?}");
    }

    async fn delete_database(&mut self, database: &'static str) {
        let hard = self.hard();
        let deleted = self.storage().delete_database(database, hard).await;
        let known = self.databases.remove(database);
        assert_eq!(deleted.is_ok(), known.is_some(), "{deleted:?}");
    }

    async fn create_table(&mut self, database: &'static str) {
        let name = TABLES[self.random.random_range(0..TABLES.len())];
        let columns = vec![
            ("t".to_owned(), ColumnType::Tag),
            ("f".to_owned(), ColumnType::Float64),
        ];
        let created = self.storage().create_table(database, name, columns).await;
        let tables = &mut self.databases.entry(database).or_default().tables;
        assert_eq!(created.is_ok(), !tables.contains_key(name), "{created:?}");
        tables.entry(name).or_insert_with(|| Table {
            tags: BTreeSet::from(["t"]),
            fields: [("f".to_owned(), super::lines::Kind::Float)].into(),
            points: BTreeMap::new(),
        });
    }

    async fn limit(&mut self, database: &'static str) {
        let Some(known) = self.databases.get_mut(database) else {
            return;
        };
        known.has_retention = true;
        let change = move |catalog: &Catalog| catalog.set_retention(database, Some(RETENTION));
        self.storage().change(change).await.unwrap();
    }

    async fn compare(&mut self, database: &'static str) {
        let name = TABLES[self.random.random_range(0..TABLES.len())];
        let Some(known) = self.databases.get(database) else {
            return;
        };
        let Some(table) = known.tables.get(name) else {
            return;
        };
        let hour = i64::try_from(RETENTION.as_nanos()).unwrap();
        let oldest = if known.has_retention {
            self.now - hour
        } else {
            i64::MIN
        };
        let mut question = Question::random(&mut self.random, name, table, oldest);
        let mut answer = self.ask(database, &question.sql).await;
        question.rows.sort();
        answer.sort();
        assert_eq!(
            answer, question.rows,
            "seed {}, operation {}, database {database}: {}",
            self.seed, self.operations, question.sql
        );
        self.comparisons += 1;
    }

    async fn ask(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        let engine = &self.running.as_ref().unwrap().engine;
        let plan = engine.plan(database, sql, BTreeMap::new()).await;
        let batches = plan.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let batches = batches.collect().await;
        let batches = batches.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let options = FormatOptions::new().with_null(NULL);
        let mut rows = Vec::new();
        for batch in &batches {
            let columns = batch.columns().iter();
            let columns: Vec<ArrayFormatter<'_>> = columns
                .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let values = columns.iter().map(|column| column.value(row).to_string());
                rows.push(values.collect());
            }
        }
        rows
    }
}
