//! Where the content of repository plugins is kept: one object per content, named by its
//! hash.
//!
//! An object is durable before a trigger names it. Nothing is removed: why, says "Repository
//! plugins are pinned" in docs/decisions.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use outrigger_catalog::trigger::Pin;
use outrigger_log::{LogError, store::Durability};
use sha2::{Digest, Sha256};

/// Why pinned content cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinnedError {
    /// The object store refused.
    #[error("{action} the pinned plugin {object}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// The object.
        object: String,
        /// Why not.
        source: object_store::Error,
    },
    /// It could not be made durable.
    #[error("store the pinned plugin")]
    Durable(#[from] LogError),
    /// It is not what was stored.
    #[error(
        "the pinned plugin {object} is damaged: restore it from a backup, or fetch it again with \
         update trigger --path gh:…"
    )]
    Damaged {
        /// The object.
        object: String,
    },
}

/// The pinned contents of one node.
#[derive(Clone, Debug)]
pub struct PinnedSources {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    durability: Durability,
}

impl PinnedSources {
    /// The contents under `<node_id>/plugins/`.
    pub fn new(store: Arc<dyn ObjectStore>, node_id: &str, durability: Durability) -> Self {
        let prefix = Path::from_iter([node_id, "plugins"]);
        Self {
            store,
            prefix,
            durability,
        }
    }

    /// Stores content durably.
    pub(crate) async fn put(&self, text: Bytes) -> Result<Pin, PinnedError> {
        let pin = Pin {
            sha256: sha256(&text),
            bytes: text.len() as u64,
        };
        let path = self.path(&pin);
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let put = self.store.put_opts(&path, text.clone().into(), options);
        match put.await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => self.mend(&pin, text).await?,
            Err(source) => return Err(failed("write", &path, source)),
        }
        // Also of one that was there: who put it may have died before it was durable.
        self.durability.sync(&path, true).await?;
        Ok(pin)
    }

    /// Replaces an object that is there, should it be damaged.
    async fn mend(&self, pin: &Pin, text: Bytes) -> Result<(), PinnedError> {
        let path = self.path(pin);
        match self.get(pin).await {
            Err(PinnedError::Damaged { .. }) => {
                let put = self.store.put(&path, text.into()).await;
                put.map_err(|source| failed("mend", &path, source))?;
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Reads content, and checks that it is what was stored.
    pub(crate) async fn get(&self, pin: &Pin) -> Result<Bytes, PinnedError> {
        let path = self.path(pin);
        let read = |source| failed("read", &path, source);
        let object = self.store.get(&path).await.map_err(read)?;
        let damaged = || PinnedError::Damaged {
            object: path.to_string(),
        };
        if object.meta.size != pin.bytes {
            return Err(damaged());
        }
        let text = object.bytes().await.map_err(read)?;
        if sha256(&text) != pin.sha256 {
            return Err(damaged());
        }
        Ok(text)
    }

    fn path(&self, pin: &Pin) -> Path {
        self.prefix.clone().join(pin.sha256.as_str())
    }
}

fn failed(action: &'static str, path: &Path, source: object_store::Error) -> PinnedError {
    PinnedError::Store {
        action,
        object: path.to_string(),
        source,
    }
}

pub(crate) fn sha256(text: &[u8]) -> String {
    format!("{:x}", Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn content_is_kept_once_and_damage_is_noticed_and_mended() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let store = LocalFileSystem::new_with_prefix(&root).unwrap();
        let durability = Durability::FileSystem { root: root.clone() };
        let pinned = PinnedSources::new(Arc::new(store), "n", durability);
        let text = Bytes::from_static(b"x = 1\n");
        let pin = pinned.put(text.clone()).await.unwrap();
        assert_eq!(pinned.put(text.clone()).await.unwrap(), pin);
        assert_eq!(pinned.get(&pin).await.unwrap(), text);

        for damage in ["x = 2\n", "x", ""] {
            let object = root.join("n/plugins").join(&pin.sha256);
            fs::write(object, damage).unwrap();
            let error = pinned.get(&pin).await.unwrap_err();
            assert!(matches!(error, PinnedError::Damaged { .. }), "{error:?}");
            assert_eq!(pinned.put(text.clone()).await.unwrap(), pin);
            assert_eq!(pinned.get(&pin).await.unwrap(), text);
        }
    }
}
