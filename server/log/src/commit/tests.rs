use bytes::Bytes;
use futures::future::join_all;
use object_store::memory::InMemory;

use super::*;
use crate::{
    replay::{TornTail, replay},
    store::Durability,
};

#[derive(Debug, Default)]
struct Applied(Mutex<Vec<(u64, usize)>>);

impl View for Applied {
    fn apply(&self, entry: Arc<Entry>) -> Result<(), String> {
        self.0.lock().push((entry.sequence.0, entry.records.len()));
        Ok(())
    }
}

struct Fixture {
    store: Arc<EntryStore>,
    view: Arc<Applied>,
    committer: Committer,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(buffer_bytes_max: usize) -> Fixture {
    let config = Config {
        flush_interval: Duration::from_secs(1),
        buffer_bytes_max,
        buffer_submissions_max: 1000,
        buffer_wait_max: Duration::from_secs(5),
        durable_wait_max: Duration::from_secs(5),
    };
    let store = Arc::new(EntryStore::new(
        Arc::new(InMemory::new()),
        "n",
        Durability::Store,
    ));
    let view = Arc::new(Applied::default());
    let (committer, task) = committer(store.clone(), view.clone(), Sequence(0), config);
    let shutdown = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the fixture owns the task")]
    let task = tokio::spawn(task.run(shutdown.clone()));
    Fixture {
        store,
        view,
        committer,
        shutdown,
        task,
    }
}

async fn submit(committer: &Committer, payloads: &[&'static str]) -> Receipt {
    let records = payloads
        .iter()
        .map(|payload| Record {
            kind: 1,
            payload: Bytes::from_static(payload.as_bytes()),
        })
        .collect();
    committer.reserve(100).await.unwrap().submit(records, None)
}

#[tokio::test(start_paused = true)]
async fn submissions_of_one_interval_share_an_entry() {
    let log = start(1 << 20);
    let first = submit(&log.committer, &["a", "b"]).await;
    let second = submit(&log.committer, &["c"]).await;
    assert_eq!(first.wait().await.unwrap(), Sequence(1));
    assert_eq!(second.wait().await.unwrap(), Sequence(1));
    let third = submit(&log.committer, &["d"]).await;
    assert_eq!(third.wait().await.unwrap(), Sequence(2));
    assert_eq!(*log.view.0.lock(), [(1, 3), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_flushes_what_is_buffered() {
    let log = start(1 << 20);
    let receipt = submit(&log.committer, &["a"]).await;
    log.shutdown.cancel();
    assert_eq!(receipt.wait().await.unwrap(), Sequence(1));
    log.task.await.unwrap();
    let late = log.committer.reserve(1).await.unwrap_err();
    assert!(matches!(late, LogError::Stopped));
    let view = Applied::default();
    let replayed = replay(
        &log.store,
        &view,
        Sequence(0),
        TornTail::Refuse,
        async |_| {},
    )
    .await;
    assert_eq!(replayed.unwrap(), Sequence(1));
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_writers_wait_and_then_refuses() {
    let log = start(4096);
    let held = log.committer.reserve(4096).await.unwrap();
    let error = log.committer.reserve(1).await.unwrap_err();
    assert!(matches!(
        error,
        LogError::BufferFull {
            bytes_max: 4096,
            ..
        }
    ));
    let receipt = held.submit(vec![], None);
    receipt.wait().await.unwrap();
    assert!(
        log.committer.reserve(1 << 30).await.is_ok(),
        "a giant goes alone"
    );
}

#[tokio::test(start_paused = true)]
async fn however_small_writes_are_there_are_not_too_many() {
    // The buffer has room for bytes of more.
    let log = start(2000 * 1024);
    let reserve = async |_| log.committer.reserve(1).await;
    let held = join_all((0..1000).map(reserve)).await;
    assert!(held.iter().all(Result::is_ok));
    let refused = log.committer.reserve(1).await.unwrap_err();
    assert!(refused.to_string().contains("1000 writes"), "{refused}");
    drop(held);
    assert!(log.committer.reserve(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_stops_the_log() {
    let log = start(1 << 20);
    log.store
        .create(Sequence(1), Bytes::from_static(b"foreign"))
        .await
        .unwrap();
    let receipt = submit(&log.committer, &["a"]).await;
    assert!(matches!(receipt.wait().await, Err(LogError::Fenced { .. })));
    assert!(matches!(
        log.committer.failed().await,
        LogError::Fenced { .. }
    ));
    assert_eq!(*log.view.0.lock(), []);
}

/// Cannot take anything in.
struct Panics;

impl View for Panics {
    fn apply(&self, _entry: Arc<Entry>) -> Result<(), String> {
        panic!("on purpose")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_nobody_waiting() {
    let store = Arc::new(EntryStore::new(
        Arc::new(InMemory::new()),
        "n",
        Durability::Store,
    ));
    let config = Config {
        flush_interval: Duration::from_secs(1),
        buffer_bytes_max: 1 << 20,
        buffer_submissions_max: 1000,
        buffer_wait_max: Duration::from_secs(5),
        durable_wait_max: Duration::from_secs(5),
    };
    let (committer, task) = committer(store, Arc::new(Panics), Sequence(0), config);
    #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
    let task = tokio::spawn(task.run(CancellationToken::new()));
    let receipt = submit(&committer, &["a"]).await;
    assert!(matches!(receipt.wait().await, Err(LogError::Stopped)));
    assert!(matches!(committer.failed().await, LogError::Panicked));
    assert!(matches!(committer.reserve(1).await, Err(LogError::Stopped)));
    assert!(task.await.is_err());
}
