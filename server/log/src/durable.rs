//! When a file on the local file system is safe: after fsync of the file and of
//! every directory that names it.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{fs::File, task::spawn_blocking};

/// Makes `file` and its name durable. The directories from `root` down to the
/// file were possibly just created, so each is synced: a directory's own name
/// lives in its parent.
pub(crate) async fn sync_file(root: &Path, file: &Path) -> Result<(), (PathBuf, io::Error)> {
    sync(file).await?;
    let mut directory = file.parent();
    while let Some(path) = directory.filter(|path| path.starts_with(root)) {
        sync(path).await?;
        directory = path.parent();
    }
    Ok(())
}

/// Makes the name of a file that just appeared in, or left, `directory` durable.
pub(crate) async fn sync_directory(directory: &Path) -> Result<(), (PathBuf, io::Error)> {
    sync(directory).await
}

async fn sync(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let opened = File::open(path)
        .await
        .map_err(|error| (path.to_owned(), error))?;
    let file = opened.into_std().await;
    spawn_blocking(move || file.sync_all())
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(|error| (path.to_owned(), error))
}
