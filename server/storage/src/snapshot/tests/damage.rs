//! Every truncation of a log entry, and a flipped bit in each of its bytes: the server does
//! without a last entry, or refuses to start and says why.

use outrigger_model::error::Report;

use super::*;

/// The objects of a server that was killed; its log has everything there can be in it.
async fn killed() -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(1_000_000, 0)).await;
    server.write("m,t=t0 f=0,n=0i 0").await;
    server.create_trigger("t", false).await;
    server.write("m,t=t1 f=1,n=1i 1\nm,t=t2 n=5i 1").await;
    let range = EntryRange {
        after: Sequence(2),
        through: Sequence(3),
    };
    let line = PluginLog {
        event_time: Timestamp(1),
        trigger_name: "t".to_owned(),
        log_level: LogLevel::Info,
        log_text: "it has run".to_owned(),
        invocation_id: None,
        trace: None,
    };
    let lines = crate::TargetWrite {
        target: crate::Target::Named("db".to_owned()),
        text: "m,t=t3 f=3,n=3i 3".into(),
    };
    let commit = Commit {
        writes: vec![lines],
        done: Some((TriggerId(1), range)),
        change: None,
        journal: Box::new(move |_| JournalRows {
            logs: vec![line.clone()],
            ..JournalRows::default()
        }),
        trace: Trace::unrecorded(),
    };
    server.storage.commit(commit).await.unwrap();
    server.kill().await;
    store
}

/// Everything that could be made of bytes that are not what was written.
fn damages(bytes: &bytes::Bytes) -> impl Iterator<Item = (String, bytes::Bytes)> {
    let cuts = (0..bytes.len()).map(|length| (format!("cut to {length}"), bytes.slice(..length)));
    let flips = (0..bytes.len()).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        (format!("a bit of byte {at}"), flipped.into())
    });
    cuts.chain(flips)
}

/// What is there, and how many lines the journal has; or why the start is refused.
async fn opened(store: &Arc<InMemory>, torn_tail: TornTail) -> Result<(usize, usize), String> {
    let stores = Stores::new(store.clone(), "n", Durability::Store);
    let server = start_on(stores, config(1_000_000, 0), torn_tail).await;
    let server = server.map_err(|error| Report(&error).to_string())?;
    let rows = points(&server.storage, "db", "m").await.num_rows();
    let logs = server.logs();
    server.kill().await;
    Ok((rows, logs))
}

async fn copy(store: &InMemory) -> Arc<InMemory> {
    let copy = Arc::new(InMemory::new());
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes = store.get(&object.location).await.unwrap().bytes().await;
        let put = copy.put(&object.location, bytes.unwrap().into()).await;
        put.unwrap();
    }
    copy
}

#[tokio::test(start_paused = true)]
async fn a_damaged_last_entry_is_put_aside_or_refused_as_is_wished() {
    let good = killed().await;
    assert_eq!(
        opened(&copy(&good).await, TornTail::Refuse).await,
        Ok((4, 1))
    );
    let last = "n/log/00000000000000000004.entry";
    let path = Path::from(last);
    let bytes = good.get(&path).await.unwrap().bytes().await.unwrap();
    for (number, (damage, bytes)) in damages(&bytes).enumerate() {
        let store = copy(&good).await;
        store.put(&path, bytes.into()).await.unwrap();
        // It takes as long as the rest together.
        if number % 8 == 0 {
            check_refused(&store, last, &damage).await;
        }
        assert_eq!(
            opened(&store, TornTail::SetAside).await,
            Ok((3, 0)),
            "{damage}"
        );
        let aside = names(&store, "log/set-aside").await;
        assert_eq!(
            aside,
            ["n/log/set-aside/00000000000000000004.entry"],
            "{damage}"
        );
    }
}

async fn check_refused(store: &Arc<InMemory>, last: &str, damage: &str) {
    let text = opened(store, TornTail::Refuse).await.expect_err(damage);
    for part in [last, "at byte", "--wal-replay-fail-on-error", "backup"] {
        assert!(text.contains(part), "{damage}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_before_the_last_stops_the_start() {
    let good = killed().await;
    let damaged = "n/log/00000000000000000003.entry";
    let path = Path::from(damaged);
    let bytes = good.get(&path).await.unwrap().bytes().await.unwrap();
    for (damage, bytes) in damages(&bytes) {
        let store = copy(&good).await;
        store.put(&path, bytes.into()).await.unwrap();
        let refused = opened(&store, TornTail::SetAside).await;
        let text = refused.expect_err(&damage);
        for part in [damaged, "at byte", "is not the last entry", "backup"] {
            assert!(text.contains(part), "{damage}: {text}");
        }
        assert_eq!(names(&store, "log").await.len(), 4, "nothing was changed");
    }
}

/// A snapshot covers it, but a trigger has still to see its rows.
#[tokio::test(start_paused = true)]
async fn a_damaged_entry_that_a_trigger_has_still_to_see_stops_the_start() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, config(3, 0)).await;
    server.write("m,t=t0 f=0,n=0i 0").await;
    server.create_trigger("t", false).await;
    server.write("m,t=t0 f=1 1").await;
    snapshot_of(&store, 3).await;
    server.kill().await;
    let damaged = "n/log/00000000000000000003.entry";
    let path = Path::from(damaged);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    for (damage, bytes) in damages(&bytes) {
        store.put(&path, bytes.into()).await.unwrap();
        let text = opened(&store, TornTail::SetAside).await.expect_err(&damage);
        for part in [damaged, "at byte", "backup"] {
            assert!(text.contains(part), "{damage}: {text}");
        }
    }
}
