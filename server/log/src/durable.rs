//! When a file on the local file system is safe: after fsync of the file and of
//! every directory that names it.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::File,
    task::spawn_blocking,
    time::{Duration, sleep},
};
use tracing::{info, warn};

/// Linux' numbers for: the process, or the system, has no descriptor left.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];
const OPEN_PAUSE: Duration = Duration::from_millis(100);

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
    let opened = open(path).await.map_err(|error| (path.to_owned(), error))?;
    let file = opened.into_std().await;
    spawn_blocking(move || file.sync_all())
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(|error| (path.to_owned(), error))
}

/// Opens what is to be synced. Where there is no descriptor left for it, nothing is wrong with
/// the file: it waits for one, and so do those who write.
async fn open(path: &Path) -> io::Result<File> {
    let mut waited = false;
    loop {
        match File::open(path).await {
            Err(error) if lacks_descriptors(&error) => {
                if !waited {
                    warn!(path = %path.display(), %error, "the log waits for a file descriptor");
                }
                waited = true;
                sleep(OPEN_PAUSE).await;
            }
            opened => {
                if waited {
                    info!("the log has its file descriptor and goes on");
                }
                return opened;
            }
        }
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| NO_DESCRIPTORS.contains(&code))
}
