//! Tables whose rows are partly in files and partly in memory.

use std::num::NonZeroU64;

use object_store::{ObjectStoreExt as _, path::Path};

use super::*;

const SECOND: i64 = 1_000_000_000;
const WINDOW: i64 = 600 * SECOND;

async fn start(entries: u64) -> Fixture {
    Fixture::start_with(snapshot::Config {
        entries: NonZeroU64::new(entries).unwrap(),
        entries_kept: 0,
        ..snapshot::Config::default()
    })
    .await
}

impl Fixture {
    /// Waits until all rows are in files, of which so many are of the table.
    async fn until_files(&self, table: &str, count: usize) {
        loop {
            let snapshot = self.storage.snapshot("db").unwrap();
            let view = &snapshot.tables()[table];
            if view.files().len() == count && view.batches().unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The plan, and what is said of files.
    async fn explain(&self, sql: &str) -> (String, String) {
        let explained = self.plan(&format!("EXPLAIN {sql}")).await.unwrap();
        let rows = explained.collect().await.unwrap();
        let text = |row: &str| {
            let texts = rows.iter().flat_map(|rows| {
                let (types, texts) = (rows.column(0), rows.column(1));
                let types = types.as_string::<i32>().iter();
                types.zip(texts.as_string::<i32>().iter())
            });
            let mut found = texts.filter(|(kind, _)| *kind == Some(row));
            found.next().and_then(|(_, text)| text).unwrap().to_owned()
        };
        (text("physical_plan"), text("files"))
    }
}

#[tokio::test]
async fn points_that_are_in_several_places_are_one() {
    let fixture = start(1).await;
    fixture.until_files("cpu", 1).await;
    fixture.write("cpu,host=a n=5i 1000000000").await;
    fixture.until_files("cpu", 2).await;
    // A tag and a field that the files don't have.
    fixture
        .write("cpu,host=a load=9 1000000000\ncpu,dc=x,host=a n=7i,z=1i 1000000000")
        .await;
    let expected = [
        "+----+------+------+---+---+---------------------+---+------+---+",
        "| dc | host | load | n | s | time                | u | up   | z |",
        "+----+------+------+---+---+---------------------+---+------+---+",
        "|    | a    | 9.0  | 5 |   | 1970-01-01T00:00:01 |   |      |   |",
        "| x  | a    |      | 7 |   | 1970-01-01T00:00:01 |   |      | 1 |",
        "|    | b    | 2.5  | 2 | x | 1970-01-01T00:00:02 | 7 | true |   |",
        "|    | a    | 3.5  |   |   | 1970-01-01T00:01:01 |   |      |   |",
        "+----+------+------+---+---+---------------------+---+------+---+",
    ];
    fixture
        .check("SELECT * FROM cpu ORDER BY time, n", &expected)
        .await;
    let count = ["+---+", "| n |", "+---+", "| 4 |", "+---+"];
    fixture.check("SELECT count(*) AS n FROM cpu", &count).await;
    // The value that was replaced does not come back because its replacement is filtered out.
    let none = ["++", "++"];
    fixture.check("SELECT n FROM cpu WHERE n = 1", &none).await;
    let five = ["+---+", "| n |", "+---+", "| 5 |", "+---+"];
    fixture
        .check("SELECT n FROM cpu WHERE n > 2 AND dc IS NULL", &five)
        .await;
    fixture
        .check("SELECT n FROM cpu WHERE load = 9", &five)
        .await;
    fixture
        .check("SELECT n FROM cpu WHERE load = 1.5", &none)
        .await;
}

#[tokio::test]
async fn files_of_other_times_are_left_out_and_nothing_is_merged_needlessly() {
    let fixture = start(1).await;
    for window in 0..4 {
        let time = window * WINDOW;
        fixture
            .write(&format!(
                "m,t=a f={window} {time}\nm,t=b f={window} {}",
                time + 1
            ))
            .await;
    }
    fixture.until_files("m", 4).await;
    let (all, files) = fixture.explain("SELECT * FROM m").await;
    assert!(files.starts_with("m: 4 of 4 files read"), "{files}");
    assert!(!all.contains("MergeExec"), "{all}");
    assert_eq!(all.matches(".parquet").count(), 4, "{all}");
    let some =
        "SELECT f FROM m WHERE time >= '1970-01-01T00:10:00' AND time < '1970-01-01T00:30:00'";
    let (plan, files) = fixture.explain(some).await;
    assert!(files.starts_with("m: 2 of 4 files read"), "{files}");
    assert_eq!(
        files.matches("left out by time: n/dbs/").count(),
        2,
        "{files}"
    );
    assert!(
        !files.contains("read: n/dbs/1/2/1970-01-01/00-00"),
        "{files}"
    );
    assert_eq!(plan.matches(".parquet").count(), 2, "{plan}");
    assert!(plan.contains("00-10") && plan.contains("00-20"), "{plan}");
    assert!(plan.contains("pruning_predicate="), "{plan}");
    assert!(plan.contains("projection=[f"), "{plan}");
    let (nothing, _) = fixture
        .explain("SELECT f FROM m WHERE time > '2000-01-01'")
        .await;
    assert!(!nothing.contains(".parquet"), "{nothing}");

    // Only what may have the same points is merged.
    fixture.write(&format!("m,t=a f=9 {WINDOW}")).await;
    fixture.until_files("m", 5).await;
    let (merged, _) = fixture
        .explain("SELECT f FROM m WHERE f > 0 AND t = 'a'")
        .await;
    assert_eq!(merged.matches("MergeExec: inputs=2").count(), 1, "{merged}");
    assert_eq!(merged.matches(".parquet").count(), 5, "{merged}");
    let values = fixture.show("SELECT f FROM m ORDER BY time").await.unwrap();
    assert!(values.contains("9.0"), "{values}");
}

#[tokio::test]
async fn a_limit_leaves_out_files_that_are_not_needed() {
    let fixture = start(1).await;
    for window in 0..4 {
        let time = window * WINDOW;
        let lines = format!("m,t=a f=1 {time}\nm,t=b f=2 {}", time + 1);
        fixture.write(&lines).await;
    }
    fixture.until_files("m", 4).await;
    for (limit, read) in [(1, 1), (2, 1), (3, 2), (8, 4), (9, 4)] {
        let sql = format!("SELECT f, t FROM m LIMIT {limit}");
        let (_, files) = fixture.explain(&sql).await;
        assert!(
            files.starts_with(&format!("m: {read} of 4 files")),
            "{files}"
        );
        let left_out = files.matches("left out by limit").count();
        assert_eq!(left_out, 4 - read, "{files}");
        let rows = fixture.plan(&sql).await.unwrap().collect().await.unwrap();
        let rows: usize = rows.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, limit.min(8));
    }
    // What is filtered or sorted needs all.
    for sql in [
        "SELECT f FROM m WHERE f = 2 LIMIT 1",
        "SELECT f FROM m ORDER BY time DESC LIMIT 1",
        "SELECT count(*) FROM m LIMIT 1",
    ] {
        let (_, files) = fixture.explain(sql).await;
        assert!(files.starts_with("m: 4 of 4 files"), "{sql}: {files}");
    }
    // Points that are in two files count once, and not what is in memory too.
    fixture.write(&format!("m,t=a f=9 {WINDOW}")).await;
    fixture.until_files("m", 5).await;
    for limit in 1..=9 {
        let sql = format!("SELECT count(*) AS n FROM (SELECT f FROM m LIMIT {limit})");
        let count = fixture.show(&sql).await.unwrap();
        assert!(
            count.contains(&format!("| {} ", limit.min(8))),
            "{limit}: {count}"
        );
    }
}

#[tokio::test]
async fn files_are_in_a_system_table() {
    let fixture = start(1).await;
    fixture.until_files("cpu", 1).await;
    fixture.write("m f=1 5\nm f=2 9").await;
    fixture.until_files("m", 1).await;
    let sql = "SELECT table_name, path, size_bytes > 100 AS sized, row_count, min_time, max_time \
               FROM system.parquet_files WHERE table_name = 'm'";
    let expected = [
        "+------------+------------------------------------------------+-------+-----------+----------+----------+",
        "| table_name | path                                           | sized | row_count | min_time | max_time |",
        "+------------+------------------------------------------------+-------+-----------+----------+----------+",
        "| m          | n/dbs/1/2/1970-01-01/00-00/0000000002.parquet | true  | 2         | 5        | 9        |",
        "+------------+------------------------------------------------+-------+-----------+----------+----------+",
    ];
    let shown = fixture.show(sql).await.unwrap();
    assert_eq!(shown.lines().nth(3), Some(expected[3]), "{shown}");
}

/// What a disk makes of a file is an error or rows, and never the end of a connection or of the
/// server.
#[tokio::test]
async fn a_damaged_file_is_an_error_or_rows() {
    let fixture = start(1).await;
    fixture.until_files("cpu", 1).await;
    let view = fixture.storage.snapshot("db").unwrap();
    let path = Path::from(view.tables()["cpu"].files()[0].path.as_str());
    let files = fixture.storage.files();
    let good = files.get(&path).await.unwrap().bytes().await.unwrap();
    let (mut refused, mut tried) = (0, 0);
    for at in (0..good.len()).step_by(31) {
        let mut bad = good.to_vec();
        bad[at] ^= [0xff, 0x10, 0x7f, 0x01][at % 4];
        files.put(&path, bad.into()).await.unwrap();
        // Another one, since an engine remembers what it has read of a file.
        let config = Config {
            exec_mem_pool_bytes: ByteSize::mib(16),
            target_partitions: NonZeroUsize::new(2).unwrap(),
        };
        let engine = QueryEngine::new(fixture.storage.clone(), config);
        let plan = engine.plan("db", "SELECT * FROM cpu WHERE n > 0", BTreeMap::new());
        let answer = plan.await.unwrap().collect().await;
        refused += usize::from(answer.is_err());
        tried += 1;
    }
    assert!(refused > tried / 4, "{refused} of {tried}");
    files.put(&path, good.into()).await.unwrap();
    assert!(fixture.show("SELECT * FROM cpu").await.is_ok());
}

#[tokio::test]
async fn rows_that_are_too_old_are_not_seen_wherever_they_are() {
    let fixture = start(1).await;
    let now = fixture.storage.clock().now().0;
    let hour = 3600 * SECOND;
    let (old, new) = (now - 2 * hour, now - hour / 2);
    fixture.until_files("cpu", 1).await;
    // A file of only old rows, one with both, two that are merged, and memory.
    fixture.write(&format!("m,t=a f=1 {old}")).await;
    fixture.until_files("m", 1).await;
    let spread = (0..70).map(|n| format!("m,t=b f=2 {}", old - 10 + n * 100 * SECOND));
    fixture.write(&spread.collect::<Vec<_>>().join("\n")).await;
    fixture
        .write(&format!("m,t=c f=3 {new}\nm,t=d f=3,g=1i {}", old + 1))
        .await;
    let retention = Some(Duration::from_hours(1));
    let count = "SELECT count(*) AS n, count(f) AS f, min(time) AS least FROM m";
    let all = fixture.show(count).await.unwrap();
    assert!(all.contains("| 73 | 73 |"), "{all}");
    let change = move |catalog: &outrigger_catalog::Catalog| catalog.set_retention("db", retention);
    fixture.storage.change(change).await.unwrap();
    // Those of the spread that are at most an hour old, and one more.
    let kept = (0..70)
        .filter(|n| old - 10 + n * 100 * SECOND >= now - hour)
        .count()
        + 1;
    for sql in [
        "SELECT count(*) AS n FROM m",
        "SELECT count(f) AS n FROM m",
        "SELECT count(*) AS n FROM m WHERE f > 0",
        "SELECT count(t) AS n FROM (SELECT t, f FROM m LIMIT 1000)",
    ] {
        let shown = fixture.show(sql).await.unwrap();
        assert!(
            shown.contains(&format!("| {kept} ")),
            "{sql}: {kept} in {shown}"
        );
    }
    let (_, files) = fixture.explain("SELECT f FROM m").await;
    assert!(files.contains("left out by retention"), "{files}");
    let forever = |catalog: &outrigger_catalog::Catalog| catalog.set_retention("db", None);
    fixture.storage.change(forever).await.unwrap();
    assert_eq!(fixture.show(count).await.unwrap(), all);
}
