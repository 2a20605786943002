//! Tables whose rows are partly in files and partly in memory.

use std::num::NonZeroU64;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

const SECOND: i64 = 1_000_000_000;
const WINDOW: i64 = 600 * SECOND;

/// A point: two tags, of which the second may be missing, and its time. Its fields.
type Key = (String, Option<String>, i64);
type Fields = (Option<f64>, Option<i64>);
type Model = BTreeMap<Key, Fields>;

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

    async fn explain(&self, sql: &str) -> String {
        self.show(&format!("EXPLAIN {sql}")).await.unwrap()
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
    let all = fixture.explain("SELECT * FROM m").await;
    assert!(!all.contains("MergeExec"), "{all}");
    assert_eq!(all.matches(".parquet").count(), 4, "{all}");
    let some =
        "SELECT f FROM m WHERE time >= '1970-01-01T00:10:00' AND time < '1970-01-01T00:30:00'";
    let plan = fixture.explain(some).await;
    assert_eq!(plan.matches(".parquet").count(), 2, "{plan}");
    assert!(plan.contains("00-10") && plan.contains("00-20"), "{plan}");
    assert!(plan.contains("pruning_predicate="), "{plan}");
    assert!(plan.contains("projection=[f"), "{plan}");
    let nothing = fixture
        .explain("SELECT f FROM m WHERE time > '2000-01-01'")
        .await;
    assert!(!nothing.contains(".parquet"), "{nothing}");

    // Only what may have the same points is merged.
    fixture.write(&format!("m,t=a f=9 {WINDOW}")).await;
    fixture.until_files("m", 5).await;
    let merged = fixture
        .explain("SELECT f FROM m WHERE f > 0 AND t = 'a'")
        .await;
    assert_eq!(merged.matches("MergeExec: inputs=2").count(), 1, "{merged}");
    assert_eq!(merged.matches(".parquet").count(), 5, "{merged}");
    let values = fixture.show("SELECT f FROM m ORDER BY time").await.unwrap();
    assert!(values.contains("9.0"), "{values}");
}

/// Writes points of which many replace others.
fn upsert(model: &mut Model, random: &mut StdRng, step: usize) -> String {
    let mut lines = String::new();
    for _ in 0..random.random_range(1..8) {
        let tag = format!("t{}", random.random_range(0..3));
        // The second tag comes later.
        let other =
            (step > 12 && random.random()).then(|| format!("s{}", random.random_range(0..2)));
        let time = random.random_range(0..3) * SECOND + random.random_range(-1..3) * WINDOW;
        let (f, n) = (
            f64::from(random.random_range(0..9_u8)),
            random.random_range(0..9),
        );
        let (f, n) = match random.random_range(0..3) {
            0 => (Some(f), None),
            1 => (None, Some(n)),
            _ => (Some(f), Some(n)),
        };
        let fields = f.map(|f| format!("f={f:?}")).into_iter();
        let fields: Vec<_> = fields.chain(n.map(|n| format!("n={n}i"))).collect();
        let tags = other
            .as_deref()
            .map_or(String::new(), |s| format!(",s={s}"));
        let fields = fields.join(",");
        lines.extend([format!("m,t={tag}{tags} {fields} {time}\n")]);
        let point = model.entry((tag, other, time)).or_default();
        *point = (f.or(point.0), n.or(point.1));
    }
    lines
}

/// How many points pass, and the sums of their fields.
fn sums(model: &Model, passes: &dyn Fn(&Key, &Fields) -> bool) -> (usize, f64, i64) {
    let passed = model.iter().filter(|(key, fields)| passes(key, fields));
    passed.fold((0, 0.0, 0), |(points, f_sum, n_sum), (_, (f, n))| {
        let (f, n) = (f.unwrap_or_default(), n.unwrap_or_default());
        (points + 1, f_sum + f, n_sum + n)
    })
}

/// A condition in SQL, and as a function.
type Condition = (String, Box<dyn Fn(&Key, &Fields) -> bool>);

fn condition(random: &mut StdRng, step: usize) -> Condition {
    let value = random.random_range(0..9);
    let time = random.random_range(-1..4) * 600;
    match random.random_range(0..if step > 13 { 7 } else { 6 }) {
        0 => ("true".to_owned(), Box::new(|_, _| true)),
        1 => (
            format!("n > {value}"),
            Box::new(move |_, (_, n)| n.is_some_and(|n| n > value)),
        ),
        2 => (
            format!("f IS NULL OR n = {value}"),
            Box::new(move |_, (f, n)| f.is_none() || *n == Some(value)),
        ),
        3 => (
            format!("time >= to_timestamp({time})"),
            Box::new(move |(_, _, at), _| *at >= time * SECOND),
        ),
        4 => (
            format!("time < to_timestamp({time}) AND t = 't1'"),
            Box::new(move |(t, _, at), _| *at < time * SECOND && t == "t1"),
        ),
        5 => (
            format!("t <> 't0' OR n < {value}"),
            Box::new(move |(t, _, _), (_, n)| t != "t0" || n.is_some_and(|n| n < value)),
        ),
        _ => (
            "s = 's1'".to_owned(),
            Box::new(|(_, s, _), _| s.as_deref() == Some("s1")),
        ),
    }
}

#[tokio::test]
async fn every_query_answers_as_a_plain_map_would() {
    let mut comparisons = 0;
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let fixture = start(1 + seed % 4).await;
        let mut model = Model::new();
        fixture.write("m,t=t0 f=0,n=0i 0").await;
        model.insert(("t0".to_owned(), None, 0), (Some(0.0), Some(0)));
        for step in 0..24 {
            fixture.write(&upsert(&mut model, &mut random, step)).await;
            if step == 13 {
                fixture.write("m,t=t0,s=s1 n=1i 0").await;
                let point = model
                    .entry(("t0".to_owned(), Some("s1".to_owned()), 0))
                    .or_default();
                point.1 = Some(1);
            }
            for _ in 0..4 {
                let (sql, passes) = condition(&mut random, step);
                let (points, f_sum, n_sum) = sums(&model, &passes);
                let sql = format!(
                    "SELECT count(*) AS points, coalesce(sum(f), 0) AS f, \
                     coalesce(sum(n), 0) AS n FROM m WHERE {sql}"
                );
                let shown = fixture.show(&sql).await.unwrap();
                let row = shown.lines().nth(3).unwrap();
                let values: Vec<&str> = row.split('|').map(str::trim).collect();
                let expected = [
                    "",
                    &points.to_string(),
                    &format!("{f_sum:?}"),
                    &n_sum.to_string(),
                    "",
                ];
                assert_eq!(values, expected, "seed {seed}, step {step}: {sql}");
                comparisons += 1;
            }
        }
    }
    assert!(comparisons >= 300, "{comparisons}");
}
