//! Keeping house: files are joined, what was deleted goes, and what is too old; whenever the
//! store dies.

use super::*;

/// A server that joins files as soon as it can.
pub(super) fn joining() -> Config {
    Config {
        compaction_memory: ByteSize::mib(64),
        retention_check: Duration::from_millis(500),
        ..config(3, 0)
    }
}

impl Running {
    fn files(&self, table: &str) -> usize {
        let snapshot = self.storage.snapshot("db").unwrap();
        let view = snapshot.tables().get(table);
        view.map_or(0, |view| view.files().len())
    }

    /// Waits until a table has so many files.
    async fn until_files(&self, table: &str, count: usize) {
        for _ in 0..10_000 {
            if self.files(table) == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{table} has {} files, not {count}", self.files(table));
    }
}

/// Every file that lies there is one of a table's: nothing was left over, nothing is missing.
pub(super) async fn check_nothing_is_left(store: &InMemory, server: &Running) {
    for _ in 0..1000 {
        let mut named = Vec::new();
        for database in server.storage.catalog().databases() {
            let snapshot = server.storage.snapshot(database.name.as_str()).unwrap();
            let views = snapshot.tables().values();
            let files = views.flat_map(|view| view.files().iter().cloned().collect::<Vec<_>>());
            named.extend(files.map(|file| file.path.clone()));
        }
        named.sort();
        if named == names(store, "dbs").await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("files lie there: {:?}", names(store, "dbs").await);
}

#[tokio::test(start_paused = true)]
async fn small_files_are_joined_and_readers_keep_theirs() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, joining()).await;
    let (mut random, mut model) = (StdRng::seed_from_u64(3), BTreeMap::new());
    server.write("m,t=t0 f=0,n=0i 0").await;
    model.insert(("t0".to_owned(), 0), (Some(0.0), Some(0)));
    let mut views = Vec::new();
    for _ in 0..40 {
        server.write(&upsert(&mut model, &mut random)).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let view = server.storage.snapshot("db").unwrap();
        views.push((view, model.clone()));
        let points = stored(&points(&server.storage, "db", "m").await);
        assert_eq!(points, model);
    }
    // Two hours, and nothing that is in memory only.
    server.write("other f=1 1").await;
    server.write("other f=1 2").await;
    server.until_files("m", 2).await;
    for (view, _) in &views {
        for file in view.tables()["m"].files().iter() {
            let object = store.get(&Path::from(file.path.as_str())).await;
            assert_eq!(object.unwrap().meta.size, file.size_bytes);
        }
    }
    drop(views);
    check_nothing_is_left(&store, &server).await;
    assert_eq!(stored(&points(&server.storage, "db", "m").await), model);
    server.kill().await;
    let server = start(&store, joining()).await;
    assert_eq!(stored(&points(&server.storage, "db", "m").await), model);
    check_nothing_is_left(&store, &server).await;
    server.stop().await;
}

/// What was acknowledged of keeping house.
#[derive(Default)]
struct House {
    points: Acknowledged,
    is_deleted: bool,
    has_expired: bool,
}

impl House {
    async fn keep(&mut self, server: Running) {
        let mut random = StdRng::seed_from_u64(11);
        for step in 0..10 {
            self.points.under_way = self.points.model.clone();
            let mut lines = String::new();
            if step == 0 {
                // All columns.
                lines.push_str("m,t=t0 f=0,n=0i 0\n");
                let point = (("t0".to_owned(), 0), (Some(0.0), Some(0)));
                self.points.under_way.extend([point]);
            }
            lines.push_str(&upsert(&mut self.points.under_way, &mut random));
            if step < 3 {
                lines.extend([format!("gone f={step} {step}")]);
            }
            server.try_write(&lines).await.unwrap();
            self.points.model = self.points.under_way.clone();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        server.until_files("m", 2).await;
        let now = Some(HardDelete::At(Timestamp(0)));
        server
            .storage
            .delete_table("db", "gone", now)
            .await
            .unwrap();
        self.is_deleted = true;
        for name in ["more", "and_more"] {
            server.try_write(&format!("{name} f=1 1")).await.unwrap();
        }
        // All of it is from 1970.
        let retention = Some(Duration::from_hours(1));
        self.has_expired = true;
        let change =
            move |catalog: &outrigger_catalog::Catalog| catalog.set_retention("db", retention);
        server.storage.change(change).await.unwrap();
        server.until_files("m", 0).await;
        server.stop().await;
    }
}

/// The store dies at every change in turn: while files are joined, while a deleted table goes,
/// while files expire.
#[tokio::test(start_paused = true)]
async fn wherever_a_server_dies_that_keeps_house_nothing_is_lost_or_left() {
    let mut changes = 0;
    loop {
        let store = Arc::new(InMemory::new());
        let failing = Arc::new(Failing::after(changes, store.clone()));
        let mut house = House::default();
        let server = try_start(failing.clone(), joining()).await.unwrap();
        let task = server.task.abort_handle();
        let died = tokio::select! {
            () = house.keep(server) => false,
            () = failing.died() => true,
        };
        task.abort();
        let server = start(&store, joining()).await;
        let view = server.storage.snapshot("db");
        let has = |name: &str| {
            let view = view.as_ref().ok();
            view.is_some_and(|view| view.tables().contains_key(name))
        };
        if house.is_deleted {
            assert!(!has("gone"), "after {changes} changes");
        }
        if !house.has_expired {
            let found = if has("m") {
                stored(&points(&server.storage, "db", "m").await)
            } else {
                BTreeMap::new()
            };
            let expected = [&house.points.model, &house.points.under_way];
            assert!(
                expected.contains(&&found),
                "after {changes} changes: {found:?}"
            );
        }
        drop(view);
        // A write makes the next snapshot come.
        for _ in 0..3 {
            server.write("later f=1 1").await;
        }
        check_nothing_is_left(&store, &server).await;
        server.stop().await;
        if !died {
            break;
        }
        changes += 1;
    }
    assert!(changes > 40, "{changes} changes");
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_deleted_table_are_no_event_any_more() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(100, 0)).await;
    server.write("m f=1 1").await;
    server.create_trigger("t", true).await;
    server.write("m f=1 2\nn f=1 2").await;
    let lag = || server.storage.feed().lag(TriggerId(1), None).rows;
    assert_eq!((server.delivered(Sequence(0)).await.0, lag()), (3, 3));
    let never = Some(HardDelete::Never);
    let deleted = server.storage.delete_table("db", "m", never).await;
    deleted.unwrap();
    assert_eq!((server.delivered(Sequence(0)).await.0, lag()), (1, 1));
    server.stop().await;
}
