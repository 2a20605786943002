//! What is known about this node before anything else: where its data lies, and the
//! id of the cluster that it is.

mod lock;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
    throttle::{ThrottleConfig, ThrottledStore},
};
use outrigger_log::{LogError, store::Durability};
use outrigger_storage::Stores;
use outrigger_triggers::PinnedSources;
use uuid::Uuid;

pub(crate) use self::lock::NodeLock;
use crate::{
    config::StoreConfig,
    remote_store::{RemoteStore, RemoteStoreError},
};

/// Why the stored data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NodeError {
    /// The data directory cannot be made.
    #[error("make the data directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    /// Another server runs on the same data.
    #[error(
        "{holder} uses the data of this node already ({path}): two servers run with the same \
         --node-id on the same object store; stop one of them"
    )]
    Taken { holder: String, path: PathBuf },
    /// The lock cannot be taken.
    #[error("lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    /// The object store cannot be used.
    #[error("open the object store")]
    Store(#[from] object_store::Error),
    /// The same, of a store elsewhere.
    #[error(transparent)]
    Remote(#[from] RemoteStoreError),
    /// The cluster's id could not be made durable.
    #[error("store the cluster's id")]
    Durable(#[from] LogError),
    /// The cluster's id is damaged.
    #[error("the object {object} does not hold a UUID: restore it from a backup")]
    ClusterId { object: String, source: uuid::Error },
}

/// A node's stored data.
#[derive(Debug)]
pub(crate) struct Node {
    store: Arc<dyn ObjectStore>,
    durability: Durability,
    id: String,
    lock: Option<NodeLock>,
    /// Which settings lead to the store, if it is elsewhere.
    remote: Option<Box<RemoteStore>>,
}

impl Node {
    /// Opens the store; makes the data directory if it is not there.
    pub(crate) fn open(config: &StoreConfig, node_id: &str) -> Result<Self, NodeError> {
        let (store, durability, lock): (Arc<dyn ObjectStore>, _, _) = match config {
            StoreConfig::Memory => (Arc::new(InMemory::new()), Durability::Store, None),
            StoreConfig::MemoryThrottled => {
                let store = ThrottledStore::new(InMemory::new(), throttled());
                (Arc::new(store), Durability::Store, None)
            }
            StoreConfig::Remote(remote) => (remote.open()?, Durability::Store, None),
            StoreConfig::File(path) => {
                fs::create_dir_all(path).map_err(|source| NodeError::Directory {
                    path: path.clone(),
                    source,
                })?;
                let lock = NodeLock::take(&path.join(node_id))?;
                let store = LocalFileSystem::new_with_prefix(path)?;
                let durability = Durability::FileSystem { root: path.clone() };
                (Arc::new(store), durability, Some(lock))
            }
        };
        Ok(Self {
            store,
            durability,
            id: node_id.to_owned(),
            lock,
            remote: match config {
                StoreConfig::Remote(remote) => Some(remote.clone()),
                StoreConfig::Memory | StoreConfig::MemoryThrottled | StoreConfig::File(_) => None,
            },
        })
    }

    /// Its log, and what lies beside it.
    pub(crate) fn stores(&self) -> Stores {
        Stores::new(self.store.clone(), &self.id, self.durability.clone())
    }

    /// What keeps others from it, to be held as long as it is used.
    pub(crate) fn lock(&mut self) -> Option<NodeLock> {
        self.lock.take()
    }

    /// What it keeps of the plugin repository.
    pub(crate) fn pinned_sources(&self) -> PinnedSources {
        PinnedSources::new(self.store.clone(), &self.id, self.durability.clone())
    }

    /// The id that the data has had since its first start.
    pub(crate) async fn cluster_uuid(&self) -> Result<Uuid, NodeError> {
        let path = Path::from_iter([self.id.as_str(), "cluster-uuid"]);
        // Looked for first: on a full disk, what is stored can still be read.
        match self.store.get(&path).await {
            Ok(stored) => return uuid(&path, &stored.bytes().await?),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(self.refused(error)),
        }
        let new = Uuid::new_v4();
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self
            .store
            .put_opts(&path, new.to_string().into(), options)
            .await
        {
            Ok(_) => {
                self.durability.sync(&path, true).await?;
                Ok(new)
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                uuid(&path, &self.store.get(&path).await?.bytes().await?)
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// The first requests are those that tell whether the store can be used at all.
    fn refused(&self, error: object_store::Error) -> NodeError {
        match &self.remote {
            Some(remote) => remote.refused(error).into(),
            None => error.into(),
        }
    }
}

fn uuid(path: &Path, stored: &[u8]) -> Result<Uuid, NodeError> {
    Uuid::try_parse_ascii(stored.trim_ascii()).map_err(|source| NodeError::ClusterId {
        object: path.to_string(),
        source,
    })
}

/// A store elsewhere as one may expect it: 100 ms for each call, 1 GB per second.
fn throttled() -> ThrottleConfig {
    const CALL: Duration = Duration::from_millis(100);
    ThrottleConfig {
        wait_delete_per_call: CALL,
        wait_get_per_byte: Duration::from_nanos(1),
        wait_get_per_call: CALL,
        wait_list_per_call: CALL,
        wait_list_per_entry: CALL / 1000,
        wait_list_with_delimiter_per_call: CALL,
        wait_list_with_delimiter_per_entry: CALL / 1000,
        wait_put_per_call: CALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cluster_keeps_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let config = StoreConfig::File(directory.path().join("new"));
        let first = Node::open(&config, "n")
            .unwrap()
            .cluster_uuid()
            .await
            .unwrap();
        let second = Node::open(&config, "n")
            .unwrap()
            .cluster_uuid()
            .await
            .unwrap();
        assert_eq!(first, second);
    }
}
