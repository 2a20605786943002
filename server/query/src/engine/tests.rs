mod model;
mod stored;

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::DataType,
    util::pretty::pretty_format_batches,
};
use object_store::{ObjectStore, memory::InMemory};
use outrigger_catalog::trigger::{ErrorBehavior, TriggerDefinition, TriggerEvent};
use outrigger_log::{commit, replay::TornTail, store::Durability};
use outrigger_model::{
    clock::{SystemClock, Timestamp},
    error::{ErrorKind, Report},
    line_protocol::Precision,
    trace::Trace,
};
use outrigger_storage::{
    Settings, Stores, WriteRequest,
    journal::{JournalRows, LogLevel, PluginInvocation, PluginLog},
    snapshot,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;

const LINES: &str = "cpu,host=a load=1.5,n=1i 1000000000\n\
                     cpu,host=b load=2.5,n=2i,up=true,s=\"x\",u=7u 2000000000\n\
                     cpu,host=a load=3.5 61000000000";

#[tokio::test]
async fn columns_are_alphabetical_and_the_last_write_wins() {
    let fixture = Fixture::start().await;
    fixture.write("cpu,host=a n=9i 1000000000").await;
    let expected = [
        "+------+------+---+---+---------------------+---+------+",
        "| host | load | n | s | time                | u | up   |",
        "+------+------+---+---+---------------------+---+------+",
        "| a    | 1.5  | 9 |   | 1970-01-01T00:00:01 |   |      |",
        "| b    | 2.5  | 2 | x | 1970-01-01T00:00:02 | 7 | true |",
        "| a    | 3.5  |   |   | 1970-01-01T00:01:01 |   |      |",
        "+------+------+---+---+---------------------+---+------+",
    ];
    fixture
        .check("SELECT * FROM cpu ORDER BY time", &expected)
        .await;
}

#[tokio::test]
async fn the_announced_schema_is_the_one_of_every_batch() {
    let fixture = Fixture::start().await;
    for sql in [
        "SELECT * FROM cpu",
        "SELECT host, count(*) AS c, max(time) FROM cpu GROUP BY host",
        "SELECT CAST(n AS VARCHAR) || 'x', 1 + 1, now() FROM cpu UNION ALL SELECT 'a', 2.5, now()",
    ] {
        let plan = fixture.plan(sql).await.unwrap();
        let schema = plan.schema().clone();
        let batches = plan.collect().await.unwrap();
        assert!(!batches.is_empty());
        assert!(
            batches.iter().all(|batch| batch.schema() == schema),
            "{sql}"
        );
    }
    let plan = fixture.plan("SELECT host FROM cpu").await.unwrap();
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert_eq!(plan.schema().field(0).data_type(), &tag);
}

#[tokio::test]
async fn the_queries_of_published_plugins_work() {
    let fixture = Fixture::start().await;
    let single_quoted = "SELECT count(*) AS c FROM 'cpu'";
    fixture
        .check(
            single_quoted,
            &["+---+", "| c |", "+---+", "| 3 |", "+---+"],
        )
        .await;
    let binned = "SELECT DATE_BIN(INTERVAL '1 minute', time, '1970-01-01T00:00:00Z') AS t, \
                  first_value(load ORDER BY time) AS f FROM cpu GROUP BY 1 ORDER BY 1";
    let expected = [
        "+---------------------+-----+",
        "| t                   | f   |",
        "+---------------------+-----+",
        "| 1970-01-01T00:00:00 | 1.5 |",
        "| 1970-01-01T00:01:00 | 3.5 |",
        "+---------------------+-----+",
    ];
    fixture.check(binned, &expected).await;
    let recent = "SELECT count(*) AS c FROM cpu WHERE time < now() - INTERVAL '1 day' \
                  AND time >= '1970-01-01T00:00:02Z'";
    fixture
        .check(recent, &["+---+", "| c |", "+---+", "| 2 |", "+---+"])
        .await;
}

#[tokio::test]
async fn information_schema_says_the_types_that_clients_look_for() {
    let fixture = Fixture::start().await;
    let sql = "SELECT column_name, data_type FROM information_schema.columns \
               WHERE table_name = 'cpu' AND column_name IN ('host', 'time', 'n')";
    let expected = [
        "+-------------+-------------------------+",
        "| column_name | data_type               |",
        "+-------------+-------------------------+",
        "| host        | Dictionary(Int32, Utf8) |",
        "| n           | Int64                   |",
        "| time        | Timestamp(ns)           |",
        "+-------------+-------------------------+",
    ];
    fixture.check(sql, &expected).await;
    let tables = fixture.show("SHOW TABLES").await.unwrap();
    assert!(
        tables.contains("| public        | iox                | cpu "),
        "{tables}"
    );
    assert!(tables.contains("processing_engine_logs"), "{tables}");
    assert!(fixture.show("DESCRIBE cpu").await.unwrap().contains("Utf8"));
    let columns = fixture.show("SHOW COLUMNS FROM cpu").await.unwrap();
    assert!(columns.contains("Timestamp(ns)"), "{columns}");
    let listed = fixture.engine.tables("db").await.unwrap();
    assert!(listed.iter().any(|table| table.name == "cpu"));
    assert!(listed.iter().any(|table| table.table_type == "VIEW"));
}

#[tokio::test]
async fn system_tables_show_triggers_of_the_database_and_logs_of_the_server() {
    let fixture = Fixture::start().await;
    fixture.create_trigger().await;
    let rows = JournalRows {
        logs: vec![fixture.log_line(2, "later"), fixture.log_line(1, "first")],
        ..JournalRows::default()
    };
    fixture.storage.append(&rows).await.unwrap();
    let triggers = [
        "+--------------+-----------------+-----------------------------------------------+----------+----------------+",
        "| trigger_name | plugin_filename | trigger_specification                         | disabled | error_behavior |",
        "+--------------+-----------------+-----------------------------------------------+----------+----------------+",
        r#"| t            | p.py            | {"single_table_wal_write":{"table_name":"m"}} | false    | retry          |"#,
        "+--------------+-----------------+-----------------------------------------------+----------+----------------+",
    ];
    fixture
        .check("SELECT * FROM system.processing_engine_triggers", &triggers)
        .await;
    let arguments = fixture
        .show("SELECT * FROM system.processing_engine_trigger_arguments")
        .await
        .unwrap();
    assert!(arguments.contains("| t            | k            | v              |"));
    let logs = [
        "+-------------------------------+--------------+-----------+----------+---------------+----------+---------+",
        "| event_time                    | trigger_name | log_level | log_text | invocation_id | trace_id | span_id |",
        "+-------------------------------+--------------+-----------+----------+---------------+----------+---------+",
        "| 1970-01-01T00:00:00.000000001 | t            | INFO      | first    | i             |          |         |",
        "| 1970-01-01T00:00:00.000000002 | t            | INFO      | later    | i             |          |         |",
        "+-------------------------------+--------------+-----------+----------+---------------+----------+---------+",
    ];
    let sql = "SELECT * FROM system.processing_engine_logs";
    fixture.check(sql, &logs).await;
    let internal = fixture.engine.plan("_internal", sql, BTreeMap::new()).await;
    let batches = internal.unwrap().collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let sql = "SELECT * FROM system.processing_engine_triggers";
    let internal = fixture.engine.plan("_internal", sql, BTreeMap::new()).await;
    let batches = internal.unwrap().collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test]
async fn invocations_are_shown_to_their_own_database_by_time() {
    let fixture = Fixture::start().await;
    let invocation = |database: &str, time| PluginInvocation {
        start_time: Timestamp(time),
        database_name: database.to_owned(),
        trigger_name: "t".to_owned(),
        invocation_id: time.to_string(),
        ..PluginInvocation::default()
    };
    let rows = JournalRows {
        invocations: vec![
            invocation("db", 3),
            invocation("other", 2),
            invocation("db", 1),
        ],
        ..JournalRows::default()
    };
    fixture.storage.append(&rows).await.unwrap();
    let sql = "SELECT invocation_id FROM system.plugin_invocations";
    for (database, expected) in [("db", &["1", "3"][..]), ("_internal", &["1", "2", "3"])] {
        let plan = fixture.engine.plan(database, sql, BTreeMap::new()).await;
        let batches = plan.unwrap().collect().await.unwrap();
        let found: Vec<&str> = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten())
            .collect();
        assert_eq!(found, expected, "{database}");
    }
}

#[tokio::test]
async fn parameters_have_types() {
    let fixture = Fixture::start().await;
    let sql = "SELECT n FROM cpu WHERE host = $host AND load > $load AND up = $up \
               AND time >= $since AND n IN ($n, $u)";
    let params = BTreeMap::from([
        ("host".to_owned(), Param::Text("b".to_owned())),
        ("load".to_owned(), Param::Float(2.0)),
        ("up".to_owned(), Param::Bool(true)),
        (
            "since".to_owned(),
            Param::Text("1970-01-01T00:00:01Z".to_owned()),
        ),
        ("n".to_owned(), Param::Int(2)),
        ("u".to_owned(), Param::Uint(3)),
    ]);
    let plan = fixture.engine.plan("db", sql, params).await.unwrap();
    let batches = plan.collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    fixture
        .check_refused("SELECT $missing", ErrorKind::Invalid, "$missing")
        .await;
}

#[tokio::test]
async fn a_list_is_searched_with_array_has() {
    let fixture = Fixture::start().await;
    let sql = "SELECT n FROM cpu WHERE array_has($p, host)";
    let count = async |items: &[&str]| {
        let items = items.iter().map(|text| Param::Text((*text).to_owned()));
        let params = BTreeMap::from([("p".to_owned(), Param::List(items.collect()))]);
        let plan = fixture.engine.plan("db", sql, params).await.unwrap();
        let batches = plan.collect().await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum::<usize>()
    };
    assert_eq!(
        count(&["b", "nowhere"]).await,
        count_of(&fixture, "b").await
    );
    assert_eq!(count(&["nowhere"]).await, 0);
    assert_eq!(count(&[]).await, 0);
}

async fn count_of(fixture: &Fixture, host: &str) -> usize {
    let sql = format!("SELECT n FROM cpu WHERE host = '{host}'");
    let plan = fixture.engine.plan("db", &sql, BTreeMap::new()).await;
    let batches = plan.unwrap().collect().await.unwrap();
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    assert!(rows > 0);
    rows
}

#[tokio::test]
async fn what_is_not_a_query_is_refused() {
    let fixture = Fixture::start().await;
    let invalid = ErrorKind::Invalid;
    for (sql, part) in [
        ("CREATE TABLE x AS SELECT 1", "DDL not supported"),
        ("DROP TABLE cpu", "DDL not supported"),
        ("INSERT INTO cpu (n) VALUES (1)", "DML not supported"),
        ("COPY cpu TO '/tmp/x.csv'", "DML not supported"),
        ("SET datafusion.execution.batch_size = 1", "not supported"),
        (
            "EXPLAIN ANALYZE INSERT INTO cpu (n) VALUES (1)",
            "DML not supported",
        ),
        ("SELEC 1", "sql parser error"),
        (
            "SELECT * FROM nothing",
            "table 'public.iox.nothing' not found",
        ),
        ("SELECT nothing FROM cpu", "nothing"),
        ("SELECT 1; SELECT 2", "single SQL statement"),
        ("", ""),
    ] {
        fixture.check_refused(sql, invalid, part).await;
    }
    let missing = fixture.engine.plan("no", "SELECT 1", BTreeMap::new()).await;
    let missing = missing.unwrap_err();
    assert_eq!(missing.to_string(), "database not found: no");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn failures_at_run_time_have_a_kind() {
    let fixture = Fixture::start().await;
    let divided = fixture
        .show("SELECT n / (n - n) FROM cpu")
        .await
        .unwrap_err();
    assert_eq!(divided.kind(), ErrorKind::Invalid, "{}", Report(&divided));
    let greedy = "SELECT array_agg(CAST(a.value AS VARCHAR) || b.value ORDER BY a.value) FROM \
                  generate_series(1, 2000) AS a, generate_series(1, 2000) AS b";
    let greedy = fixture.show(greedy).await.unwrap_err();
    assert_eq!(greedy.kind(), ErrorKind::Exhausted, "{}", Report(&greedy));
}

struct Fixture {
    storage: Storage,
    engine: QueryEngine,
    shutdown: CancellationToken,
    _tasks: TaskTracker,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Fixture {
    /// A database `db` with the table `cpu` in it.
    async fn start() -> Self {
        Self::start_with(snapshot::Config::default()).await
    }

    async fn start_with(snapshots: snapshot::Config) -> Self {
        let store = Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
        let stores = Stores::new(store, "n", Durability::Store);
        let log = commit::Config {
            flush_interval: Duration::from_millis(1),
            buffer_bytes_max: 1 << 20,
            buffer_submissions_max: 1000,
            buffer_wait_max: Duration::from_secs(5),
            durable_wait_max: Duration::from_secs(5),
        };
        let settings = Settings {
            log,
            snapshots,
            keeping: outrigger_storage::keeping::Config::default(),
            torn_tail: TornTail::SetAside,
        };
        let clock = Arc::new(SystemClock::default());
        let (storage, task) = Storage::open(stores, clock, settings).await.unwrap();
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(task.run(shutdown.clone()));
        let config = Config {
            exec_mem_pool_bytes: ByteSize::mib(16),
            target_partitions: NonZeroUsize::new(2).unwrap(),
        };
        let engine = QueryEngine::new(storage.clone(), config);
        let fixture = Self {
            storage,
            engine,
            shutdown,
            _tasks: tasks,
        };
        fixture.write(LINES).await;
        fixture
    }

    async fn write(&self, text: &str) {
        let request = WriteRequest {
            database: "db".to_owned(),
            text: text.into(),
            precision: Precision::Nanosecond,
            accept_partial: false,
            no_sync: false,
            trace: Trace::unrecorded(),
        };
        self.storage.write(request).await.unwrap();
    }

    async fn create_trigger(&self) {
        let definition = TriggerDefinition {
            name: "t".to_owned(),
            plugin: "p.py".to_owned(),
            pin: None,
            event: TriggerEvent::SingleTableWalWrite {
                table_name: "m".to_owned(),
            },
            arguments: Some(BTreeMap::from([("k".to_owned(), "v".to_owned())])),
            error_behavior: ErrorBehavior::Retry,
            disabled: false,
            timeout: None,
            run_async: false,
            grants: outrigger_catalog::grants::Grants::default(),
        };
        self.storage
            .change(move |catalog| {
                catalog
                    .create_trigger("db", definition.clone(), false)
                    .map(Some)
            })
            .await
            .unwrap();
    }

    #[expect(clippy::unused_self, reason = "reads better in the tests")]
    fn log_line(&self, time: i64, text: &str) -> PluginLog {
        PluginLog {
            event_time: Timestamp(time),
            trigger_name: "t".to_owned(),
            log_level: LogLevel::Info,
            log_text: text.to_owned(),
            invocation_id: Some("i".to_owned()),
            trace: None,
        }
    }

    async fn plan(&self, sql: &str) -> Result<Plan, QueryError> {
        self.engine.plan("db", sql, BTreeMap::new()).await
    }

    async fn show(&self, sql: &str) -> Result<String, QueryError> {
        let batches = self.plan(sql).await?.collect().await?;
        Ok(pretty_format_batches(&batches).unwrap().to_string())
    }

    async fn check(&self, sql: &str, expected: &[&str]) {
        assert_eq!(self.show(sql).await.unwrap(), expected.join("\n"), "{sql}");
    }

    async fn check_refused(&self, sql: &str, kind: ErrorKind, part: &str) {
        let error = self.show(sql).await.expect_err(sql);
        let text = Report(&error).to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(part), "{text}");
    }
}
