//! When a file on the local file system is safe: after fsync of the file and of
//! every directory that names it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
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

/// How many syncs are under way at a time: a file system makes several durable at once.
const SYNCS_AT_A_TIME: usize = 16;

/// Makes files and their names durable, as [`sync_file`] does, but each directory only once.
pub(crate) async fn sync_files(
    root: &Path,
    files: Vec<PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    let above = files.iter().flat_map(|file| file.ancestors().skip(1));
    let directories: BTreeSet<PathBuf> = above
        .filter(|path| path.starts_with(root))
        .map(Path::to_owned)
        .collect();
    for paths in [files, directories.into_iter().collect()] {
        let syncs = stream::iter(paths).map(|path| async move { sync(&path).await });
        let syncs = syncs.buffer_unordered(SYNCS_AT_A_TIME);
        syncs.try_collect::<Vec<()>>().await?;
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

/// Removes every file below `top` that a put was writing when the process was killed:
/// `LocalFileSystem` gives them the object's name with `#` and a number behind it.
pub(crate) async fn remove_unfinished(top: PathBuf) -> io::Result<usize> {
    let removed = spawn_blocking(move || {
        let (mut directories, mut removed) = (vec![top], 0);
        while let Some(directory) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                } else if is_unfinished(&entry.file_name().to_string_lossy()) {
                    fs::remove_file(entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    });
    removed
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn is_unfinished(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once('#')
        .is_some_and(|(_, number)| is_number(number))
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
