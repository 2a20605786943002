//! A store that refuses some objects, or whose disk does not keep them, for as long as is wished.
//!
//! What it has accepted is in memory; what would be there after a power cut, has a file of that
//! name in a directory. So whoever syncs it learns the truth, unlike from a real disk, which says
//! once that it failed.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};
use outrigger_log::store::Durability;
use parking_lot::Mutex;
use tempfile::TempDir;

/// What goes wrong: with all objects whose name contains a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// There is no space for it.
    Full(&'static str),
    /// It is accepted, but cannot be made durable.
    Unsynced(&'static str),
}

#[derive(Debug)]
pub(super) struct Faulty {
    inner: Arc<InMemory>,
    disk: TempDir,
    fault: Mutex<Option<Fault>>,
}

impl Faulty {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::default(),
            disk: tempfile::tempdir().unwrap(),
            fault: Mutex::default(),
        })
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        *self.fault.lock() = fault;
    }

    pub(super) fn durability(&self) -> Durability {
        let root = self.disk.path().to_owned();
        Durability::FileSystem { root }
    }

    pub(super) fn on_disk(&self, path: &str) -> PathBuf {
        self.disk.path().join(path)
    }

    /// What is there after a power cut.
    pub(super) async fn after_power_cut(&self) -> Arc<Self> {
        let survivor = Self::new();
        let all: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        for object in all {
            let path = object.location;
            if self.on_disk(path.as_ref()).exists() {
                let bytes = self.inner.get(&path).await.unwrap().bytes().await.unwrap();
                survivor.put(&path, bytes.into()).await.unwrap();
            }
        }
        survivor
    }

    pub(super) fn inner(&self) -> &Arc<InMemory> {
        &self.inner
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = *self.fault.lock();
        match fault {
            Some(Fault::Full(part)) if location.as_ref().contains(part) => {
                return Err(object_store::Error::Generic {
                    store: "faulty",
                    source: "No space left on device".into(),
                });
            }
            _ => {}
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        if !matches!(fault, Some(Fault::Unsynced(part)) if location.as_ref().contains(part)) {
            let file = self.on_disk(location.as_ref());
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let disk = self.disk.path().to_owned();
        let locations = locations.inspect_ok(move |path| {
            drop(fs::remove_file(disk.join(path.as_ref())));
        });
        self.inner.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
