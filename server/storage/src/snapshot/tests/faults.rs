//! A full disk and a failing one: writers are told, nothing that was acknowledged is lost, and it
//! goes on by itself once the disk works.

use outrigger_model::error::{ErrorKind, Report};

use super::{
    faulty::{Fault, Faulty},
    *,
};

async fn start(disk: &Arc<Faulty>, config: Config) -> Running {
    try_start(disk, config).await.unwrap()
}

async fn try_start(disk: &Arc<Faulty>, config: Config) -> Result<Running, crate::OpenError> {
    let stores = Stores::new(disk.clone(), "n", disk.durability());
    start_on(stores, config, TornTail::SetAside).await
}

/// The points that are there; none where there is no table yet.
async fn found(server: &Running) -> BTreeMap<Key, Fields> {
    match server.storage.snapshot("db") {
        Ok(snapshot) if snapshot.tables().contains_key("m") => {
            stored(&points(&server.storage, "db", "m").await)
        }
        _ => BTreeMap::new(),
    }
}

#[track_caller]
fn check_told(error: &WriteError, parts: &[&str]) {
    let text = Report(error).to_string();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn writers_are_told_of_a_full_disk_and_go_on_when_there_is_room() {
    let disk = Faulty::new();
    let server = start(&disk, config(1_000_000, 0)).await;
    server.write("m,t=a f=1,n=1i 1").await;
    disk.set(Some(Fault::Full("/log/")));
    let parts = ["No space left on device", "may still be stored"];
    check_told(&server.try_write("m,t=b f=2 2").await.unwrap_err(), &parts);
    let create =
        |catalog: &outrigger_catalog::Catalog| catalog.create_database("other", None).map(Some);
    check_told(&server.storage.change(create).await.unwrap_err(), &parts);
    assert_eq!(
        found(&server).await.len(),
        1,
        "it can be read all the while"
    );

    disk.set(None);
    server.write("m,t=c f=3 3").await;
    assert_eq!(found(&server).await.len(), 3);
    assert!(server.storage.catalog().database("other").is_ok());
    server.kill().await;
    let disk = disk.after_power_cut().await;
    let server = start(&disk, config(1_000_000, 0)).await;
    assert_eq!(found(&server).await.len(), 3);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_no_snapshot_can_be_made_writers_wait_and_memory_is_bounded() {
    const KEPT: usize = 64;
    let disk = Faulty::new();
    let little = || Config {
        memory: ByteSize::kib(KEPT),
        ..config(1_000_000, 0)
    };
    let server = start(&disk, little()).await;
    disk.set(Some(Fault::Full("/dbs/")));
    let lines = |write: usize| {
        let lines = (0..100).map(|n| format!("m,t=t{n} f={n},n=1i {write}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut acknowledged = 0;
    let refused = loop {
        match server.try_write(&lines(acknowledged)).await {
            Ok(()) => acknowledged += 1,
            Err(refused) => break refused,
        }
        assert!(acknowledged < 1000, "memory grows without a bound");
    };
    let parts = [
        "No space left on device",
        "--force-snapshot-mem-threshold",
        "nothing of this",
    ];
    check_told(&refused, &parts);
    // Rows that came with the last write that there was room for.
    assert!(
        server.rows_bytes() < 2.5 * 1024.0 * 64.0,
        "{}",
        server.rows_bytes()
    );
    assert_eq!(found(&server).await.len(), acknowledged * 100);

    disk.set(None);
    server.write(&lines(acknowledged)).await;
    assert!(
        server.rows_bytes() < 1024.0 * 64.0,
        "{}",
        server.rows_bytes()
    );
    assert_eq!(found(&server).await.len(), (acknowledged + 1) * 100);
    server.kill().await;
    let server = start(&disk.after_power_cut().await, little()).await;
    assert_eq!(found(&server).await.len(), (acknowledged + 1) * 100);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_made_durable_stops_the_log_and_does_not_come_back() {
    let disk = Faulty::new();
    let server = start(&disk, config(1_000_000, 0)).await;
    server.write("m,t=a f=1,n=1i 1").await;
    disk.set(Some(Fault::Unsynced("/log/")));
    check_told(
        &server.try_write("m,t=b f=2 2").await.unwrap_err(),
        &["durable"],
    );
    let failed = server.storage.failed().await;
    assert!(matches!(failed, LogError::Durable { .. }), "{failed}");
    server.stop().await;

    disk.set(None);
    let server = start(&disk, config(1_000_000, 0)).await;
    assert_eq!(
        found(&server).await.len(),
        1,
        "nobody was told that it is there"
    );
    server.write("m,t=c f=3 3").await;
    server.kill().await;
    let server = start(&disk.after_power_cut().await, config(1_000_000, 0)).await;
    assert_eq!(found(&server).await.len(), 2);
    server.stop().await;
}

/// A snapshot that was written and not synced looks sound after a kill. What it has replaced must
/// not go before it is durable.
#[tokio::test(start_paused = true)]
async fn an_older_snapshot_stays_until_the_newest_is_durable() {
    let disk = Faulty::new();
    let server = start(&disk, config(2, 0)).await;
    server.write("m,t=a f=1,n=1i 1").await;
    server.write("m,t=b f=1,n=1i 1").await;
    snapshot_of(disk.inner(), 2).await;
    server.kill().await;
    let [older] = &names(disk.inner(), "snapshots").await[..] else {
        panic!("there is one snapshot");
    };
    // As if the server had been killed in between.
    let bytes = disk.get(&Path::from(older.as_str())).await.unwrap();
    let bytes = bytes.bytes().await.unwrap();
    disk.set(Some(Fault::Unsynced("snapshots")));
    let newer = Path::from("n/snapshots/00000000000000000002-1.snapshot");
    disk.put(&newer, bytes.into()).await.unwrap();
    let refused = try_start(&disk, config(2, 0)).await.err().unwrap();
    let text = Report(&refused).to_string();
    assert!(text.contains("make") && text.contains("durable"), "{text}");
    let disk = disk.after_power_cut().await;
    let server = start(&disk, config(2, 0)).await;
    assert_eq!(found(&server).await.len(), 2);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_put_of_an_entry_has_left_is_removed() {
    let disk = Faulty::new();
    let server = start(&disk, config(1_000_000, 0)).await;
    server.write("m,t=a f=1,n=1i 1").await;
    server.kill().await;
    let left = disk.on_disk("n/log/00000000000000000002.entry#1");
    std::fs::write(&left, "half of an entry").unwrap();
    let server = start(&disk, config(1_000_000, 0)).await;
    assert!(!left.exists());
    server.stop().await;
}

/// Each write until it is acknowledged, as a client does that is told to come again.
async fn insist(server: &Running, lines: &str) {
    for _ in 0..1000 {
        match server.try_write(lines).await {
            Ok(()) => return,
            Err(error) => check_told(&error, &[]),
        }
    }
    panic!("writes are refused for ever");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_disk_refuses_for_a_while_nothing_is_lost() {
    let faults = [
        Fault::Full("/log/"),
        Fault::Full("/dbs/"),
        Fault::Full("/snapshots/"),
        Fault::Full("/journals/"),
        Fault::Unsynced("/dbs/"),
        Fault::Unsynced("/snapshots/"),
        Fault::Unsynced("/journals/"),
    ];
    for (seed, fault) in (0..).zip(faults) {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Faulty::new();
        let server = start(&disk, joining()).await;
        let mut model = BTreeMap::new();
        server.begin(&mut model).await;
        for step in 0..40 {
            let lines = upsert(&mut model, &mut random);
            let is_faulty = matches!(step % 10, 4..8);
            disk.set(is_faulty.then_some(fault));
            if is_faulty && matches!(fault, Fault::Full("/log/")) {
                drop(server.try_write(&lines).await);
                disk.set(None);
            }
            insist(&server, &lines).await;
            server.log("x").await.unwrap();
            let pause = random.random_range(1..900);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            assert_eq!(found(&server).await, model, "{fault:?}, step {step}");
        }
        disk.set(None);
        // A snapshot that failed is tried again, and what was left over goes.
        check_nothing_is_left(disk.inner(), &server).await;
        server.kill().await;
        let server = start(&disk.after_power_cut().await, joining()).await;
        assert_eq!(found(&server).await, model, "{fault:?} and a power cut");
        assert_eq!(server.logs(), 40, "{fault:?} and a power cut");
        server.stop().await;
    }
}
