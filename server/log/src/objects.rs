//! How other objects of a node come to lie beside its log: created only if absent, and
//! durable before they are named anywhere.

use std::{collections::BTreeSet, io, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use parking_lot::Mutex;

use crate::{LogError, durable, store::Durability};

/// The objects of one node. Clones are handles to the same store.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    root: Path,
    durability: Durability,
    /// What could not be made durable, and could not be removed either.
    distrusted: Arc<Mutex<BTreeSet<Path>>>,
}

impl Objects {
    /// The objects under `<node_id>/`.
    pub fn new(store: Arc<dyn ObjectStore>, node_id: &str, durability: Durability) -> Self {
        Self {
            store,
            root: Path::from(node_id),
            durability,
            distrusted: Arc::default(),
        }
    }

    /// The store that they lie in.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where the object of that name lies, which may have several parts.
    pub fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.root))
    }

    /// Writes an object durably. Must not be there yet, unless with the same content: then
    /// an earlier attempt had got further than its answer said.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<(), LogError> {
        self.put(path, bytes).await?;
        let synced = self.durability.sync(path, true).await;
        if synced.is_err() {
            self.distrust(std::slice::from_ref(path)).await;
        }
        synced
    }

    /// Makes an object durable that is there.
    pub async fn make_durable(&self, path: &Path) -> Result<(), LogError> {
        self.durability.sync(path, true).await
    }

    /// Writes many objects likewise; that costs less than one by one.
    pub async fn create_all(&self, objects: Vec<(Path, Bytes)>) -> Result<(), LogError> {
        let mut paths = Vec::with_capacity(objects.len());
        for (path, bytes) in objects {
            self.put(&path, bytes).await?;
            paths.push(path);
        }
        let synced = self.durability.sync_all(&paths).await;
        if synced.is_err() {
            self.distrust(&paths).await;
        }
        synced
    }

    /// Removes objects that could not be made durable. The system says so only once: of the same
    /// file, a second attempt would seem to succeed, though its bytes are lost. So that attempt
    /// has to write a new one.
    async fn distrust(&self, paths: &[Path]) {
        for path in paths {
            if self.remove(path).await.is_err() {
                self.distrusted.lock().insert(path.clone());
            }
        }
    }

    async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), LogError> {
        let is_distrusted = self.distrusted.lock().contains(path);
        if is_distrusted {
            self.remove(path).await?;
            self.distrusted.lock().remove(path);
        }
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let payload = bytes.clone().into();
        match self.store.put_opts(path, payload, options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.read(path).await? != bytes {
                    let object = path.to_string();
                    return Err(LogError::Fenced { object });
                }
            }
            Err(source) => return Err(failed("write", path, source)),
        }
        Ok(())
    }

    /// The bytes of an object.
    pub async fn read(&self, path: &Path) -> Result<Bytes, LogError> {
        let failed = |source| failed("read", path, source);
        let object = self.store.get(path).await.map_err(failed)?;
        object.bytes().await.map_err(failed)
    }

    /// Removes an object; that it is gone already is fine.
    pub async fn remove(&self, path: &Path) -> Result<(), LogError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("remove", path, source)),
        }
    }

    /// Every object whose name begins with that directory, in the order of their names.
    pub async fn list(&self, directory: &str) -> Result<Vec<Path>, LogError> {
        let prefix = self.path(directory);
        let listing = self.store.list(Some(&prefix));
        let found: Result<Vec<_>, _> = listing.map_ok(|object| object.location).try_collect().await;
        let mut found = found.map_err(|source| failed("list", &prefix, source))?;
        found.sort_unstable();
        Ok(found)
    }

    /// Removes what puts into that directory have left that a kill has interrupted. Stores
    /// other than a file system leave nothing. Returns how many there were.
    pub async fn remove_unfinished(&self, directory: &str) -> Result<usize, LogError> {
        let Durability::FileSystem { root } = &self.durability else {
            return Ok(0);
        };
        let top = root.join(self.path(directory).as_ref());
        let removed = durable::remove_unfinished(top.clone()).await;
        removed.map_err(|source: io::Error| LogError::Durable {
            path: top.display().to_string(),
            source: Arc::new(source),
        })
    }
}

fn failed(action: &'static str, path: &Path, source: object_store::Error) -> LogError {
    LogError::Store {
        action,
        object: path.to_string(),
        source: Arc::new(source),
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn objects_are_created_once_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
        let root = directory.path().to_owned();
        let objects = Objects::new(Arc::new(store), "n", Durability::FileSystem { root });
        let (one, two) = (objects.path("a/b/1"), objects.path("a/2"));
        objects.create(&one, "x".into()).await.unwrap();
        objects.create(&one, "x".into()).await.unwrap();
        let both = vec![(one.clone(), "x".into()), (two.clone(), "y".into())];
        objects.create_all(both).await.unwrap();
        let other = objects.create(&one, "z".into()).await;
        assert!(matches!(other, Err(LogError::Fenced { .. })), "{other:?}");
        assert_eq!(objects.list("a").await.unwrap(), [two, one.clone()]);
        // As LocalFileSystem names what it has not finished.
        let unfinished = directory.path().join("n/a/b/3#1");
        std::fs::write(&unfinished, "torn").unwrap();
        assert_eq!(objects.remove_unfinished("a").await.unwrap(), 1);
        assert!(!unfinished.exists());
        objects.remove(&one).await.unwrap();
        objects.remove(&one).await.unwrap();
        assert_eq!(objects.list("a").await.unwrap().len(), 1);
        assert_eq!(objects.remove_unfinished("missing").await.unwrap(), 0);
    }
}
