//! What the fuzz targets in `tests/` share: a storage on objects in memory, and how to damage
//! bytes in the ways that disks, networks and clients do.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory};
use outrigger_catalog::{
    Catalog,
    grants::Grants,
    progress::EntryRange,
    trigger::{ErrorBehavior, TriggerDefinition, TriggerEvent},
};
use outrigger_log::{commit, replay::TornTail, store::Durability};
use outrigger_model::{
    clock::{SystemClock, Timestamp},
    ids::{Sequence, TriggerId},
    line_protocol::Precision,
    trace::Trace,
};
use outrigger_storage::{
    Commit, OpenError, Settings, Storage, Stores, WriteError, WriteRequest,
    journal::{JournalRows, LogLevel, PluginLog},
    keeping, snapshot,
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The node whose objects these are.
pub const NODE: &str = "n";

/// A storage that runs.
#[derive(Debug)]
pub struct Running {
    /// What it stores.
    pub storage: Storage,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Opens what is in `store`; a snapshot is made after `entries` log entries.
    ///
    /// # Errors
    ///
    /// What is there cannot be read.
    pub async fn open(store: &Arc<InMemory>, entries: NonZeroU64) -> Result<Self, OpenError> {
        let store: Arc<dyn ObjectStore> = store.clone();
        let settings = Settings {
            log: commit::Config {
                flush_interval: Duration::from_millis(1),
                buffer_bytes_max: 1 << 20,
                buffer_submissions_max: 1000,
                buffer_wait_max: Duration::from_secs(5),
                durable_wait_max: Duration::from_secs(5),
            },
            snapshots: snapshot::Config {
                entries,
                ..snapshot::Config::default()
            },
            keeping: keeping::Config::default(),
            torn_tail: TornTail::SetAside,
        };
        let stores = Stores::new(store, NODE, Durability::Store);
        let (storage, task) =
            Storage::open(stores, Arc::new(SystemClock::default()), settings).await?;
        let shutdown = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the fixture owns the task")]
        let task = tokio::spawn(task.run(shutdown.clone()));
        Ok(Self {
            storage,
            shutdown,
            task,
        })
    }

    /// Writes line protocol into `database`; good lines are stored even if others are bad.
    ///
    /// # Errors
    ///
    /// As a client would be told.
    pub async fn write(&self, database: &str, text: &str) -> Result<(), WriteError> {
        let request = WriteRequest {
            database: database.to_owned(),
            text: text.into(),
            precision: Precision::Nanosecond,
            accept_partial: true,
            no_sync: false,
            trace: Trace::unrecorded(),
        };
        self.storage.write(request).await
    }

    /// Has a trigger that has seen everything so far, and said so in its log.
    ///
    /// # Panics
    ///
    /// It cannot be stored.
    pub async fn run_a_trigger(&self, database: &str) {
        let definition = TriggerDefinition {
            name: "trigger".to_owned(),
            plugin: "p.py".to_owned(),
            pin: None,
            event: TriggerEvent::AllTablesWalWrite,
            arguments: Some([("key".to_owned(), "value".to_owned())].into()),
            error_behavior: ErrorBehavior::Retry,
            disabled: false,
            timeout: None,
            run_async: true,
            grants: Grants::default(),
        };
        let database = database.to_owned();
        let create = move |catalog: &Catalog| {
            let create = catalog.create_trigger(&database, definition.clone(), true);
            create.map(Some)
        };
        self.storage.change(create).await.expect("it is created");
        let range = EntryRange {
            after: Sequence(0),
            through: Sequence(2),
        };
        let line = PluginLog {
            event_time: Timestamp(1),
            trigger_name: "trigger".to_owned(),
            log_level: LogLevel::Info,
            log_text: "it has run".to_owned(),
            invocation_id: Some("1-1-2".to_owned()),
            trace: None,
        };
        let commit = Commit {
            writes: Vec::new(),
            done: Some((TriggerId(1), range)),
            change: None,
            journal: Box::new(move |_| JournalRows {
                logs: vec![line.clone()],
                ..JournalRows::default()
            }),
            trace: Trace::unrecorded(),
        };
        self.storage.commit(commit).await.expect("it is stored");
    }

    /// Ends it as a signal does.
    pub async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    /// Ends it in order.
    ///
    /// # Panics
    ///
    /// Its task has panicked.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the storage's task has panicked");
    }
}

/// A runtime with one thread, so that a target's run depends on its input alone.
///
/// # Panics
///
/// The machine has no room for one.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// One way to damage bytes.
pub type Damage = (u8, u16, u8);

/// Damages `bytes` in each of these ways, one after the other: a bit is flipped, a byte is
/// replaced, the end is cut off, a byte is added, a part is repeated.
pub fn damage(bytes: &[u8], ways: &[Damage]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for &(way, at, value) in ways {
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(at) % bytes.len();
        match way % 5 {
            0 => bytes[at] ^= 1 << (value % 8),
            1 => bytes[at] = value,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, value),
            _ => {
                let end = bytes.len().min(at + usize::from(value));
                bytes.extend_from_within(at..end);
            }
        }
    }
    bytes.into()
}

/// Where a snapshot's content begins, its length and its checksum stand: `docs/storage.md`.
const CONTENT: usize = 24;
const LENGTH: usize = 12;
const CHECKSUM: usize = 20;

/// The snapshot with other content, and with the length and the checksum of that.
///
/// # Panics
///
/// It is no snapshot.
pub fn snapshot_with(snapshot: &[u8], other: impl FnOnce(&[u8]) -> Bytes) -> Bytes {
    let (header, content) = snapshot.split_at(CONTENT);
    let (mut header, content) = (header.to_vec(), other(content));
    header[LENGTH..CHECKSUM].copy_from_slice(&(content.len() as u64).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CHECKSUM]);
    hasher.update(&content);
    header[CHECKSUM..].copy_from_slice(&hasher.finalize().to_le_bytes());
    [header, content.to_vec()].concat().into()
}
