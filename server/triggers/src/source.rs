//! Where plugins' source comes from: the plugin directory, read by the server.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use outrigger_model::{bytes::ByteSize, error::ErrorKind};
use tokio::task::spawn_blocking;

/// The largest source of one file.
const SOURCE_BYTES_MAX: ByteSize = ByteSize::mib(8);

/// A plugin's source as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginSource {
    /// The file's content.
    pub text: Bytes,
    /// Changes whenever the content does.
    pub revision: String,
}

/// Why a plugin's source could not be read. The texts are what existing scripts look for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The server was started without a plugin directory.
    #[error(
        "Node not configured with plugin directory: start the server with --plugin-dir to run plugins"
    )]
    NoDirectory,
    /// The name leaves the plugin directory.
    #[error(
        "Path traversal detected: plugin filename '{0}' attempts to access files outside the plugin \
         directory"
    )]
    Traversal(String),
    /// There is no such file.
    #[error("reading plugin file: Plugin not found: {}", .0.display())]
    NotFound(PathBuf),
    /// It is a directory.
    #[error(
        "reading plugin file: {} is a directory; plugins of several files are not supported by this \
         version yet",
        .0.display()
    )]
    Directory(PathBuf),
    /// It is fetched from a repository.
    #[error("plugins from a repository (gh:) are not supported by this version yet: {0}")]
    Repository(String),
    /// It is too large.
    #[error("reading plugin file: {} is larger than {SOURCE_BYTES_MAX}", .0.display())]
    TooLarge(PathBuf),
    /// The file system refused.
    #[error("reading plugin file: {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SourceError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { .. } => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }
}

/// The plugin directory; absent if the server has none.
#[derive(Clone, Debug)]
pub struct PluginDirectory(pub Option<PathBuf>);

impl PluginDirectory {
    /// Reads a plugin.
    pub async fn read(&self, name: &str) -> Result<PluginSource, SourceError> {
        let root = self.0.clone().ok_or(SourceError::NoDirectory)?;
        let owned = name.to_owned();
        let unfinished = |source| SourceError::Read {
            path: name.into(),
            source,
        };
        spawn_blocking(move || read_file(&root, &owned))
            .await
            .map_err(|panic| unfinished(io::Error::other(panic)))?
    }
}

fn read_file(root: &Path, name: &str) -> Result<PluginSource, SourceError> {
    if name.starts_with("gh:") {
        return Err(SourceError::Repository(name.to_owned()));
    }
    let path = root.join(name);
    let file = File::from(open_beneath(root, name)?);
    let failed = |source| SourceError::Read {
        path: path.clone(),
        source,
    };
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(SourceError::Directory(path));
    }
    let limit = SOURCE_BYTES_MAX.0 as u64;
    let mut text = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(SourceError::TooLarge(path));
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let revision = format!("{:016x}-{}", hasher.finish(), text.len());
    Ok(PluginSource {
        text: text.into(),
        revision,
    })
}

/// Opens a file below `root`. The kernel refuses whatever leads out of it, also by
/// links; to check a path and then open it would leave time to change it.
fn open_beneath(root: &Path, name: &str) -> Result<OwnedFd, SourceError> {
    let path = root.join(name);
    let failed = |errno: Errno| match errno {
        Errno::EXDEV | Errno::ELOOP => SourceError::Traversal(name.to_owned()),
        Errno::ENOENT | Errno::ENOTDIR => SourceError::NotFound(path.clone()),
        errno => SourceError::Read {
            path: path.clone(),
            source: errno.into(),
        },
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(root, flags, Mode::empty()).map_err(failed)?;
    // Opening a pipe must not wait for a writer.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(directory, name.trim_end_matches('/'), how).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn files_are_read_and_a_change_is_a_new_revision() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::write(root.path().join("sub/p.py"), "a = 1").unwrap();
        symlink("sub/p.py", root.path().join("link.py")).unwrap();
        let first = read_file(root.path(), "sub/p.py").unwrap();
        assert_eq!(first.text, "a = 1");
        assert_eq!(read_file(root.path(), "link.py").unwrap(), first);
        fs::write(root.path().join("sub/p.py"), "a = 2").unwrap();
        assert_ne!(
            read_file(root.path(), "sub/p.py").unwrap().revision,
            first.revision
        );
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let root = outside.path().join("plugins");
        fs::create_dir(&root).unwrap();
        symlink("../secret", root.join("link.py")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let absolute = outside.path().join("secret");
        for name in [
            "../secret",
            "link.py",
            "up/secret",
            absolute.to_str().unwrap(),
        ] {
            let result = read_file(&root, name);
            assert!(
                matches!(result, Err(SourceError::Traversal(_))),
                "{name}: {result:?}"
            );
        }
    }

    #[test]
    fn what_is_not_a_plugin_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("package")).unwrap();
        let read = |name| read_file(root.path(), name);
        assert!(matches!(read("missing.py"), Err(SourceError::NotFound(_))));
        assert!(matches!(read("package"), Err(SourceError::Directory(_))));
        assert!(matches!(read("gh:x/y.py"), Err(SourceError::Repository(_))));
    }
}
