//! Where log entries lie: one object per entry, created only if absent.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use outrigger_model::ids::Sequence;

use crate::{LogError, durable, entry::Entry};

/// How much a successful put is worth.
#[derive(Clone, Debug)]
pub enum Durability {
    /// The store's own answer is enough: it keeps what it has accepted, or is
    /// only memory and promises nothing.
    Store,
    /// The store is a directory of the local file system: fsync file and directories.
    FileSystem {
        /// The directory that the store's paths are relative to.
        root: PathBuf,
    },
}

impl Durability {
    /// Makes an object durable that was just written, and its name. `with_parents`
    /// also the directories above, which may just have been made.
    pub async fn sync(&self, path: &Path, with_parents: bool) -> Result<(), LogError> {
        let Self::FileSystem { root } = self else {
            return Ok(());
        };
        let file = root.join(path.as_ref());
        let directory = file.parent().unwrap_or(root);
        let top = if with_parents { root } else { directory };
        durable::sync_file(top, &file).await.map_err(not_durable)?;
        if let Some(parent) = root.parent().filter(|_| with_parents) {
            // The root's own name lies in its parent, which may not be ours to open.
            drop(durable::sync_directory(parent).await);
        }
        Ok(())
    }
}

impl Durability {
    /// Makes many objects durable that were just written, with all directories above them.
    pub(crate) async fn sync_all(&self, paths: &[Path]) -> Result<(), LogError> {
        let Self::FileSystem { root } = self else {
            return Ok(());
        };
        let files: Vec<PathBuf> = paths.iter().map(|path| root.join(path.as_ref())).collect();
        durable::sync_files(root, files).await.map_err(not_durable)
    }
}

/// The name of an entry's object: the only place that knows its format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct EntryName(Sequence);

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.entry", self.0.0)
    }
}

impl FromStr for EntryName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let digits = name
            .strip_suffix(".entry")
            .filter(|digits| digits.len() == 20)
            .ok_or(())?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        digits
            .parse()
            .map(|sequence| Self(Sequence(sequence)))
            .or(Err(()))
    }
}

/// The entries of one node.
#[derive(Debug)]
pub struct EntryStore {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    durability: Durability,
    // The directories above the entries are synced with the first entry only.
    directories_are_durable: AtomicBool,
}

impl EntryStore {
    /// The entries under `<node_id>/log/`.
    pub fn new(store: Arc<dyn ObjectStore>, node_id: &str, durability: Durability) -> Self {
        let prefix = Path::from_iter([node_id, "log"]);
        Self {
            store,
            prefix,
            durability,
            directories_are_durable: AtomicBool::new(false),
        }
    }

    /// The name of an entry's object, for messages.
    pub fn object(&self, sequence: Sequence) -> String {
        self.path(sequence).to_string()
    }

    fn path(&self, sequence: Sequence) -> Path {
        self.prefix.clone().join(EntryName(sequence).to_string())
    }

    fn failed(action: &'static str, path: &Path, source: object_store::Error) -> LogError {
        LogError::Store {
            action,
            object: path.to_string(),
            source: Arc::new(source),
        }
    }

    /// All entries there are, in order. Objects with other names are not ours and ignored.
    pub async fn sequences(&self) -> Result<Vec<Sequence>, LogError> {
        let mut listing = self.store.list(Some(&self.prefix));
        let mut found = Vec::new();
        let failed = |source| Self::failed("list", &self.prefix, source);
        while let Some(object) = listing.try_next().await.map_err(failed)? {
            let in_prefix = object.location.prefix_matches(&self.prefix)
                && object.location.parts_count() == self.prefix.parts_count() + 1;
            let name = object.location.filename().filter(|_| in_prefix);
            found.extend(
                name.and_then(|name| name.parse().ok())
                    .map(|EntryName(sequence)| sequence),
            );
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The bytes of one entry.
    pub async fn read_bytes(&self, sequence: Sequence) -> Result<Bytes, LogError> {
        let path = self.path(sequence);
        let failed = |source| Self::failed("read", &path, source);
        let object = self.store.get(&path).await.map_err(failed)?;
        object.bytes().await.map_err(failed)
    }

    /// One entry, of which it is known that it was acknowledged.
    pub async fn read(&self, sequence: Sequence) -> Result<Entry, LogError> {
        let bytes = self.read_bytes(sequence).await?;
        Entry::decode(sequence, bytes).map_err(|source| LogError::Corrupt {
            object: self.object(sequence),
            source,
        })
    }

    /// Writes an entry durably. Must not be there yet, unless with the same
    /// content: then an earlier attempt had got further than its answer said.
    pub async fn create(&self, sequence: Sequence, bytes: Bytes) -> Result<(), LogError> {
        let path = self.path(sequence);
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self
            .store
            .put_opts(&path, bytes.clone().into(), options)
            .await
        {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.read_bytes(sequence).await? != bytes {
                    return Err(LogError::Fenced {
                        object: path.to_string(),
                    });
                }
            }
            Err(source) => return Err(Self::failed("write", &path, source)),
        }
        let synced = self.sync(&path).await;
        if synced.is_err() {
            // Nobody was told of it, and nobody may rely on it: after a restart it would look
            // sound, though its bytes may be lost.
            drop(self.remove(sequence).await);
        }
        synced
    }

    /// Removes an entry that nothing needs any more; that it is gone already is fine.
    pub async fn remove(&self, sequence: Sequence) -> Result<(), LogError> {
        let path = self.path(sequence);
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Self::failed("remove", &path, source)),
        }
    }

    /// Makes an entry durable that is there.
    pub async fn make_durable(&self, sequence: Sequence) -> Result<(), LogError> {
        self.sync(&self.path(sequence)).await
    }

    async fn sync(&self, path: &Path) -> Result<(), LogError> {
        let with_parents = !self.directories_are_durable.load(Ordering::Relaxed);
        self.durability.sync(path, with_parents).await?;
        self.directories_are_durable.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Puts an entry aside that cannot be read and was never acknowledged.
    pub async fn set_aside(&self, sequence: Sequence) -> Result<String, LogError> {
        let from = self.path(sequence);
        let aside = self
            .prefix
            .clone()
            .join("set-aside")
            .join(EntryName(sequence).to_string());
        let failed = |source| Self::failed("set aside", &from, source);
        match &self.durability {
            Durability::FileSystem { root } => {
                self.store.rename(&from, &aside).await.map_err(failed)?;
                durable::sync_directory(&root.join(self.prefix.as_ref()))
                    .await
                    .map_err(not_durable)?;
            }
            Durability::Store => {
                // Not `rename`: object_store's client for Google (0.13.2) takes "overwrite" for
                // "create" when it copies, and the number may have been put aside before.
                let bytes = self.read_bytes(sequence).await?;
                let put = self.store.put(&aside, bytes.into());
                put.await.map_err(failed)?;
                self.store.delete(&from).await.map_err(failed)?;
            }
        }
        Ok(aside.to_string())
    }
}

fn not_durable((path, source): (PathBuf, std::io::Error)) -> LogError {
    LogError::Durable {
        path: path.display().to_string(),
        source: Arc::new(source),
    }
}

#[cfg(test)]
mod tests {
    use object_store::{local::LocalFileSystem, memory::InMemory};

    use super::*;

    #[test]
    fn foreign_names_are_refused() {
        for name in [
            "42.entry",
            "00000000000000000042",
            "+0000000000000000042.entry",
            "x",
        ] {
            assert!(name.parse::<EntryName>().is_err(), "{name}");
        }
        let name = EntryName(Sequence(42));
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[tokio::test]
    async fn stores_keep_entries_and_refuse_a_second_writer() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
        let durability = Durability::FileSystem {
            root: directory.path().to_owned(),
        };
        check(EntryStore::new(
            Arc::new(InMemory::new()),
            "n",
            Durability::Store,
        ))
        .await;
        check(EntryStore::new(Arc::new(files), "n", durability)).await;
    }

    async fn check(store: EntryStore) {
        assert_eq!(store.sequences().await.unwrap(), []);
        let entry = Entry {
            sequence: Sequence(1),
            records: vec![],
        };
        store.create(Sequence(1), entry.encode()).await.unwrap();
        store.create(Sequence(1), entry.encode()).await.unwrap();
        let foreign = store
            .create(Sequence(1), Bytes::from_static(b"other"))
            .await;
        assert!(matches!(foreign, Err(LogError::Fenced { .. })));
        assert_eq!(store.read(Sequence(1)).await.unwrap(), entry);

        store
            .create(Sequence(2), Bytes::from_static(b"torn"))
            .await
            .unwrap();
        assert_eq!(store.sequences().await.unwrap(), [Sequence(1), Sequence(2)]);
        store.set_aside(Sequence(2)).await.unwrap();
        assert_eq!(store.sequences().await.unwrap(), [Sequence(1)]);
    }
}
