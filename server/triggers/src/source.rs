//! What the plugin directory holds, read by the server.

use std::{
    fs::{self, File},
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
use outrigger_supervisor::{Package, Source};
use tokio::task::spawn_blocking;

use crate::{pinned::PinnedError, plugins::is_repository, repository::FetchError};

/// The largest source of one file.
pub(crate) const SOURCE_BYTES_MAX: ByteSize = ByteSize::mib(8);

/// How many files a plugin of several may have, and how deep they may lie.
pub(crate) const FILES_MAX: usize = 1000;
pub(crate) const DEPTH_MAX: usize = 16;

/// The file that makes a directory a plugin.
pub(crate) const INIT: &str = "__init__.py";

/// What a plugin consists of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PluginText {
    /// One file's content.
    File(Bytes),
    /// A directory with `__init__.py`.
    Directory {
        /// The name it is imported by.
        name: String,
        /// Paths relative to the directory, and contents, sorted.
        files: Vec<(String, Bytes)>,
    },
}

impl PluginText {
    /// As a worker gets it.
    pub(crate) fn for_worker(&self) -> Source {
        match self {
            Self::File(text) => Source::SingleFile(text.clone()),
            Self::Directory { name, files } => Source::Package(Package {
                name: name.clone(),
                files: files.clone(),
            }),
        }
    }
}

/// A plugin's source as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginSource {
    /// Its content.
    pub text: PluginText,
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
    /// A directory is not a package.
    #[error("Multi-file plugin directory must contain __init__.py: {}", .0.display())]
    NoInit(PathBuf),
    /// A directory's name is not one that Python imports.
    #[error(
        "the plugin directory {0:?} cannot be imported because of the dot in its name: rename it"
    )]
    Dotted(String),
    /// A directory has too much in it.
    #[error(
        "reading plugin directory: {} has more than {FILES_MAX} files, or lies more than \
         {DEPTH_MAX} directories deep",
        .0.display()
    )]
    TooMany(PathBuf),
    /// It is from the repository, so there is no file of it.
    #[error(
        "{0:?} is from the plugin repository and has no file here: give the trigger another version \
         with update trigger --path gh:…, or delete it and create it with another plugin"
    )]
    Repository(String),
    /// It should be from the repository.
    #[error("{0:?} is not from the plugin repository: it does not begin with gh:")]
    NotRepository(String),
    /// The repository did not give it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What the repository gave cannot be kept, or read again.
    #[error(transparent)]
    Pinned(#[from] PinnedError),
    /// It is too large.
    #[error("plugin too large: {} is larger than {SOURCE_BYTES_MAX}", .0.display())]
    TooLarge(PathBuf),
    /// An upload's name cannot be one.
    #[error(
        "invalid plugin file name {0:?}: its parts must not be empty, start with a dot or be longer \
         than 200 bytes, and not more than {DEPTH_MAX}"
    )]
    BadName(String),
    /// An upload has two files of one name, or one below the other.
    #[error("the plugin file {0:?} is there twice, or is a directory too")]
    Twice(String),
    /// An upload would replace something that is no file.
    #[error("{0:?} is not a plugin file")]
    NotFile(String),
    /// An upload needs a directory, and this is none.
    #[error("not a directory: {}", .0.display())]
    NotDirectory(PathBuf),
    /// An upload could not be written.
    #[error("writing plugin file: {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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
            Self::Read { .. } | Self::Write { .. } | Self::Pinned(_) => ErrorKind::Internal,
            Self::Fetch(error) => error.kind(),
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
        spawn_blocking(move || read_plugin(&root, &owned))
            .await
            .map_err(|panic| unfinished(io::Error::other(panic)))?
    }
}

fn read_plugin(root: &Path, name: &str) -> Result<PluginSource, SourceError> {
    if is_repository(name) {
        return Err(SourceError::Repository(name.to_owned()));
    }
    // The kernel would resolve what stays inside; an upload to the same name is refused.
    if name.split('/').any(|part| part == "..") {
        return Err(SourceError::Traversal(name.to_owned()));
    }
    let name = name.trim_end_matches('/');
    let file = File::from(open_beneath(root, name)?);
    let path = root.join(name);
    let failed = |source| SourceError::Read {
        path: path.clone(),
        source,
    };
    let mut budget = SOURCE_BYTES_MAX.0;
    let text = if file.metadata().map_err(failed)?.is_dir() {
        read_package(root, name, &mut budget)?
    } else {
        PluginText::File(read_file(file, &path, &mut budget)?)
    };
    let mut hasher = DefaultHasher::new();
    match &text {
        PluginText::File(text) => text.hash(&mut hasher),
        PluginText::Directory { name, files } => (name, files).hash(&mut hasher),
    }
    let revision = format!("{:016x}-{}", hasher.finish(), SOURCE_BYTES_MAX.0 - budget);
    Ok(PluginSource { text, revision })
}

/// Reads a file to its end, as long as the budget lasts.
fn read_file(file: File, path: &Path, budget: &mut usize) -> Result<Bytes, SourceError> {
    let mut text = Vec::new();
    file.take(*budget as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|source| SourceError::Read {
            path: path.to_owned(),
            source,
        })?;
    match budget.checked_sub(text.len()) {
        Some(left) => *budget = left,
        None => return Err(SourceError::TooLarge(path.to_owned())),
    }
    Ok(text.into())
}

fn read_package(root: &Path, name: &str, budget: &mut usize) -> Result<PluginText, SourceError> {
    let path = root.join(name);
    let names = file_names(root, name)?;
    if !names.iter().any(|name| name == INIT) {
        return Err(SourceError::NoInit(path));
    }
    let own_name = name.rsplit('/').next().unwrap_or(name).to_owned();
    if own_name.contains('.') {
        return Err(SourceError::Dotted(name.to_owned()));
    }
    let mut files = Vec::new();
    for relative in names {
        let below = format!("{name}/{relative}");
        let file = File::from(open_beneath(root, &below)?);
        let text = read_file(file, &root.join(below), budget)?;
        files.push((relative, text));
    }
    Ok(PluginText::Directory {
        name: own_name,
        files,
    })
}

/// The files of a directory plugin, sorted.
pub(crate) fn file_names(root: &Path, plugin: &str) -> Result<Vec<String>, SourceError> {
    let mut names = Vec::new();
    list(&root.join(plugin), "", DEPTH_MAX, &mut names)?;
    names.sort_unstable();
    Ok(names)
}

/// Collects the files below `directory`, without what Python caches and what is hidden.
/// Only names: each file is opened beneath the plugin directory afterwards.
fn list(
    directory: &Path,
    prefix: &str,
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Read {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name == "__pycache__" || name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        if names.len() >= FILES_MAX || depth == 0 {
            return Err(SourceError::TooMany(directory.to_owned()));
        }
        if kind.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), depth - 1, names)?;
        } else {
            names.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

/// Opens a file below `root`. The kernel refuses whatever leads out of it, also by
/// links; to check a path and then open it would leave time to change it.
pub(crate) fn open_beneath(root: &Path, name: &str) -> Result<OwnedFd, SourceError> {
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
    openat2(directory, name, how).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_read_and_a_change_is_a_new_revision() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::write(root.path().join("sub/p.py"), "a = 1").unwrap();
        symlink("sub/p.py", root.path().join("link.py")).unwrap();
        let first = read_plugin(root.path(), "sub/p.py").unwrap();
        assert_eq!(first.text, PluginText::File("a = 1".into()));
        assert_eq!(read_plugin(root.path(), "link.py").unwrap(), first);
        fs::write(root.path().join("sub/p.py"), "a = 2").unwrap();
        assert_ne!(
            read_plugin(root.path(), "sub/p.py").unwrap().revision,
            first.revision
        );
    }

    #[test]
    fn a_directory_is_read_with_everything_that_is_source() {
        let root = tempfile::tempdir().unwrap();
        let package = root.path().join("group/pack");
        fs::create_dir_all(package.join("inner/__pycache__")).unwrap();
        for (name, text) in [
            ("__init__.py", "from .inner import x"),
            ("inner/__init__.py", "x = 1"),
            ("inner/__pycache__/x.pyc", "cached"),
            (".hidden", "hidden"),
            ("data.json", "{}"),
        ] {
            fs::write(package.join(name), text).unwrap();
        }
        let source = read_plugin(root.path(), "group/pack/").unwrap();
        let PluginText::Directory { name, files } = &source.text else {
            panic!("{source:?}")
        };
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (name.as_str(), names),
            (
                "pack",
                vec!["__init__.py", "data.json", "inner/__init__.py"]
            )
        );
        fs::write(package.join("inner/__init__.py"), "x = 2").unwrap();
        assert_ne!(
            read_plugin(root.path(), "group/pack").unwrap().revision,
            source.revision
        );
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let root = outside.path().join("plugins");
        fs::create_dir_all(root.join("package")).unwrap();
        fs::write(root.join("package/__init__.py"), "").unwrap();
        symlink("../secret", root.join("link.py")).unwrap();
        symlink("../../secret", root.join("package/link.py")).unwrap();
        symlink("..", root.join("up")).unwrap();
        fs::write(root.join("inside.py"), "").unwrap();
        let absolute = outside.path().join("secret");
        for name in [
            "../secret",
            "package/../inside.py",
            "missing/../inside.py",
            "package/..",
            "link.py",
            "up/secret",
            "package",
            absolute.to_str().unwrap(),
        ] {
            let result = read_plugin(&root, name);
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
        let read = |name| read_plugin(root.path(), name);
        assert!(matches!(read("missing.py"), Err(SourceError::NotFound(_))));
        assert!(matches!(read("package"), Err(SourceError::NoInit(_))));
        // A file may lie in such a directory, but the directory is no package.
        fs::create_dir(root.path().join("my.pack")).unwrap();
        for file in ["__init__.py", "plugin.py"] {
            fs::write(root.path().join("my.pack").join(file), "").unwrap();
        }
        assert!(matches!(read("my.pack/"), Err(SourceError::Dotted(_))));
        assert!(read("my.pack/plugin.py").is_ok());
        assert!(matches!(read("gh:x/y.py"), Err(SourceError::Repository(_))));
    }
}
