//! Puts clients' source into the plugin directory, all of it or nothing.
//!
//! What is uploaded is written beside what it replaces, under a hidden name, made durable,
//! and then moved into its place. A crash may leave the hidden file behind, never half a
//! plugin. Every step goes through the open directory that the last one found, and none
//! follows a link: to check a path and then use it would leave time to change it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{
        AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat, openat2, renameat,
        renameat2,
    },
    sys::stat::{Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::{
    plugins::is_repository,
    source::{DEPTH_MAX, FILES_MAX, INIT, PluginDirectory, SOURCE_BYTES_MAX, SourceError},
};

/// The longest part of a path: the hidden name beside it must fit into a name too.
const NAME_BYTES_MAX: usize = 200;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// One file of a directory that is uploaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UploadedFile {
    /// Where it is in the directory.
    pub relative_path: String,
    /// What it contains.
    pub content: String,
}

impl PluginDirectory {
    /// Writes a file, and the directories above it if there are none.
    pub(crate) async fn write_file(&self, name: &str, text: String) -> Result<(), SourceError> {
        self.upload(name, move |target| target.write_file(&text))
            .await
    }

    /// Writes the file of a plugin; the one of a directory is its `__init__.py`.
    pub(crate) async fn write_plugin(&self, name: &str, text: String) -> Result<(), SourceError> {
        self.upload(name, move |target| target.write_plugin(&text))
            .await
    }

    /// Replaces the directory of a plugin: what is not in `files` is gone.
    pub(crate) async fn write_package(
        &self,
        name: &str,
        files: Vec<UploadedFile>,
    ) -> Result<(), SourceError> {
        self.upload(name, move |target| target.write_package(&files))
            .await
    }

    /// Blocking file work with a target.
    async fn upload(
        &self,
        name: &str,
        work: impl FnOnce(Target<'_>) -> Result<(), SourceError> + Send + 'static,
    ) -> Result<(), SourceError> {
        let root = self.0.clone().ok_or(SourceError::NoDirectory)?;
        let owned = name.to_owned();
        spawn_blocking(move || work(Target::new(&root, &owned)?))
            .await
            .map_err(|panic| SourceError::Write {
                path: name.into(),
                source: io::Error::other(panic),
            })?
    }
}

/// Where an upload goes to.
struct Target<'a> {
    root: &'a Path,
    name: &'a str,
    /// The directories above it.
    above: Vec<&'a str>,
    /// Its own name.
    last: &'a str,
}

impl<'a> Target<'a> {
    fn new(root: &'a Path, name: &'a str) -> Result<Self, SourceError> {
        let mut above = parts(name.trim_end_matches('/'), name)?;
        let last = above.pop().unwrap_or_default();
        Ok(Self {
            root,
            name,
            above,
            last,
        })
    }

    fn write_file(&self, text: &str) -> Result<(), SourceError> {
        if self.name.ends_with('/') {
            return Err(SourceError::NotFile(self.name.to_owned()));
        }
        let package = self.above.last().filter(|_| self.last == INIT);
        if package.is_some_and(|name| name.contains('.')) {
            return Err(SourceError::Dotted(self.above.join("/")));
        }
        self.check_size(text.len())?;
        let parent = self.parent().map_err(|errno| self.refuse(errno))?;
        self.replace_file(&parent, self.last, text)
    }

    fn write_plugin(&self, text: &str) -> Result<(), SourceError> {
        self.check_size(text.len())?;
        let refuse = |errno| self.refuse(errno);
        let parent = self.parent().map_err(refuse)?;
        if kind(&parent, self.last).map_err(refuse)? == Some(SFlag::S_IFDIR) {
            let directory = open_directory(&parent, self.last).map_err(refuse)?;
            return self.replace_file(&directory, INIT, text);
        }
        self.replace_file(&parent, self.last, text)
    }

    fn write_package(&self, files: &[UploadedFile]) -> Result<(), SourceError> {
        check_package(files, &self.path())?;
        self.check_size(files.iter().map(|file| file.content.len()).sum())?;
        let refuse = |errno| self.refuse(errno);
        let parent = self.parent().map_err(refuse)?;
        match kind(&parent, self.last).map_err(refuse)? {
            None => return Err(SourceError::NotFound(self.path())),
            Some(SFlag::S_IFDIR) => {}
            Some(SFlag::S_IFLNK) => return Err(SourceError::Traversal(self.name.to_owned())),
            Some(_) => return Err(SourceError::NotDirectory(self.path())),
        }
        let new = beside(self.last);
        let result = fill(&parent, &new, files)
            .and_then(|()| exchange(&parent, &new, self.last).map_err(refuse));
        // What is left under that name: the old directory, or what was not finished.
        if let Err(error) = remove(&parent, &new) {
            warn!(plugin = self.name, left = new, %error, "an old plugin directory stays");
        }
        result
    }

    /// Replaces a file, durably.
    fn replace_file(&self, parent: &OwnedFd, name: &str, text: &str) -> Result<(), SourceError> {
        match kind(parent, name).map_err(|errno| self.refuse(errno))? {
            None | Some(SFlag::S_IFREG) => {}
            // Moving a file over a link would be safe, but not what its owner meant.
            Some(SFlag::S_IFLNK) => return Err(SourceError::Traversal(self.name.to_owned())),
            Some(_) => return Err(SourceError::NotFile(self.name.to_owned())),
        }
        let new = beside(name);
        let written = create_file(parent, &new, text).and_then(|()| {
            renameat(parent, new.as_str(), parent, name)?;
            sync(parent)
        });
        written.map_err(|source| {
            // Nothing else can be done about it.
            unlinkat(parent, new.as_str(), UnlinkatFlags::NoRemoveDir).ok();
            self.failed(source)
        })
    }

    /// The directory that it is in, made if there is none.
    fn parent(&self) -> nix::Result<OwnedFd> {
        let root = open(self.root, DIRECTORY, Mode::empty())?;
        descend(root, &self.above)
    }

    fn path(&self) -> PathBuf {
        self.root.join(self.name)
    }

    fn check_size(&self, bytes: usize) -> Result<(), SourceError> {
        if bytes > SOURCE_BYTES_MAX.0 {
            return Err(SourceError::TooLarge(self.path()));
        }
        Ok(())
    }

    /// What it means that a directory cannot be opened or made.
    fn refuse(&self, errno: Errno) -> SourceError {
        match errno {
            Errno::EXDEV | Errno::ELOOP => SourceError::Traversal(self.name.to_owned()),
            Errno::ENOTDIR => SourceError::NotDirectory(self.path()),
            Errno::ENAMETOOLONG => SourceError::BadName(self.name.to_owned()),
            errno => self.failed(errno.into()),
        }
    }

    fn failed(&self, source: io::Error) -> SourceError {
        let path = self.path();
        SourceError::Write { path, source }
    }
}

/// The parts of a path that an upload may have; `whole` is what the client named.
fn parts<'a>(path: &'a str, whole: &str) -> Result<Vec<&'a str>, SourceError> {
    let outside = path.starts_with('/') || path.split('/').any(|part| part == "..");
    if outside || whole.starts_with('/') {
        return Err(SourceError::Traversal(whole.to_owned()));
    }
    if is_repository(whole) {
        return Err(SourceError::Repository(whole.to_owned()));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
    let bad = |part: &&str| {
        part.is_empty()
            || part.starts_with('.')
            || part.contains('\0')
            || part.len() > NAME_BYTES_MAX
    };
    if parts.is_empty() || parts.len() > DEPTH_MAX || parts.iter().any(bad) {
        return Err(SourceError::BadName(whole.to_owned()));
    }
    Ok(parts)
}

/// Checks what can be checked before anything is written.
fn check_package(files: &[UploadedFile], path: &Path) -> Result<(), SourceError> {
    if files.len() > FILES_MAX {
        return Err(SourceError::TooMany(path.to_owned()));
    }
    let mut names = BTreeSet::new();
    for file in files {
        let name = &file.relative_path;
        if !names.insert(parts(name, name)?) {
            return Err(SourceError::Twice(name.clone()));
        }
    }
    // A name above another one would be a file and a directory.
    for name in &names {
        if (1..name.len()).any(|length| names.contains(&name[..length])) {
            return Err(SourceError::Twice(name.join("/")));
        }
    }
    if !names.contains(&[INIT][..]) {
        return Err(SourceError::NoInit(path.to_owned()));
    }
    Ok(())
}

/// A hidden name for what will take the place of `name`.
fn beside(name: &str) -> String {
    format!(".{name}.new-{:016x}", rand::random::<u64>())
}

/// What there is of that name; of a link, not what it leads to.
fn kind(parent: &OwnedFd, name: &str) -> nix::Result<Option<SFlag>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(
            SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT,
        )),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn open_directory(parent: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(DIRECTORY).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_SYMLINKS,
    );
    openat2(parent, name, how)
}

/// Opens directories below `directory`, each in the one before, and makes those that are
/// missing.
fn descend(mut directory: OwnedFd, names: &[&str]) -> nix::Result<OwnedFd> {
    for name in names {
        match mkdirat(&directory, *name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => nix::unistd::fsync(&directory)?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        directory = open_directory(&directory, name)?;
    }
    Ok(directory)
}

/// Creates a file that does not exist, with content that is durable.
fn create_file(parent: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    let mut file = File::from(openat(parent, name, flags, mode)?);
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync(directory: &OwnedFd) -> io::Result<()> {
    Ok(nix::unistd::fsync(directory)?)
}

/// Makes the directory `new` with the files in it, durably.
fn fill(parent: &OwnedFd, new: &str, files: &[UploadedFile]) -> Result<(), SourceError> {
    for file in files {
        let write = || -> io::Result<()> {
            let mut above = vec![new];
            above.extend(file.relative_path.split('/').filter(|part| *part != "."));
            let name = above.pop().unwrap_or_default();
            let directory = descend(parent.try_clone()?, &above)?;
            create_file(&directory, name, &file.content)?;
            sync(&directory)
        };
        write().map_err(|source| SourceError::Write {
            path: file.relative_path.clone().into(),
            source,
        })?;
    }
    Ok(())
}

/// Has two directories swap their names.
fn exchange(parent: &OwnedFd, new: &str, name: &str) -> nix::Result<()> {
    match renameat2(parent, new, parent, name, RenameFlags::RENAME_EXCHANGE) {
        // Not every file system can do it.
        Err(Errno::EINVAL | Errno::ENOSYS) => exchange_in_steps(parent, new, name)?,
        result => result?,
    }
    nix::unistd::fsync(parent)
}

/// The same in steps, of which the first is undone if the second fails.
fn exchange_in_steps(parent: &OwnedFd, new: &str, name: &str) -> nix::Result<()> {
    let old = beside(name);
    renameat(parent, name, parent, old.as_str())?;
    if let Err(errno) = renameat(parent, new, parent, name) {
        renameat(parent, old.as_str(), parent, name)?;
        return Err(errno);
    }
    renameat(parent, old.as_str(), parent, new)
}

/// Removes a directory and what is in it, if there is one. The standard library does so
/// without following links, and finds the open parent by its number.
fn remove(parent: &OwnedFd, name: &str) -> io::Result<()> {
    let parent = format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd());
    match fs::remove_dir_all(Path::new(&parent).join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_created_and_replaced() {
        let root = tempfile::tempdir().unwrap();
        let write = |name, text| Target::new(root.path(), name)?.write_file(text);
        write("a/b/p.py", "x = 1").unwrap();
        let before = File::open(root.path().join("a/b/p.py")).unwrap();
        write("./a/b/p.py", "x = 2").unwrap();
        assert_eq!(read(root.path(), "a/b/p.py"), "x = 2");
        // Who has the old file open goes on reading the old one.
        assert_eq!(io::read_to_string(before).unwrap(), "x = 1");
        assert_eq!(names(&root.path().join("a/b")), ["p.py"]);
        assert!(matches!(write("a/b", ""), Err(SourceError::NotFile(_))));
        assert!(matches!(write("a/b/", ""), Err(SourceError::NotFile(_))));
        let below_file = write("a/b/p.py/x.py", "");
        assert!(matches!(below_file, Err(SourceError::NotDirectory(_))));
        let large = "x".repeat(SOURCE_BYTES_MAX.0 + 1);
        assert!(matches!(
            write("l.py", &large),
            Err(SourceError::TooLarge(_))
        ));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("plugins");
        fs::create_dir(&root).unwrap();
        fs::write(outside.path().join("secret"), "kept").unwrap();
        symlink("../secret", root.join("link.py")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let absolute = outside.path().join("secret");
        for name in [
            "../secret",
            "a/../../secret",
            "link.py",
            "up/secret",
            "up/new.py",
            "magic/new.py",
            "/",
            absolute.to_str().unwrap(),
        ] {
            for result in [
                Target::new(&root, name).and_then(|target| target.write_file("x")),
                Target::new(&root, name).and_then(|target| target.write_plugin("x")),
                Target::new(&root, name).and_then(|target| target.write_package(&package())),
            ] {
                assert!(
                    matches!(
                        result,
                        Err(SourceError::Traversal(_) | SourceError::NotDirectory(_))
                    ),
                    "{name}: {result:?}"
                );
            }
        }
        assert_eq!(names(outside.path()), ["plugins", "secret"]);
        assert_eq!(read(outside.path(), "secret"), "kept");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let deep = "d/".repeat(DEPTH_MAX) + "p.py";
        for name in ["", ".", "a//b.py", ".venv/x.py", "a\0b", &long, &deep] {
            let result = Target::new(root.path(), name).map(|_| ());
            assert!(
                matches!(result, Err(SourceError::BadName(_))),
                "{name}: {result:?}"
            );
        }
        let repository = Target::new(root.path(), "gh:x/y.py").map(|_| ());
        assert!(matches!(repository, Err(SourceError::Repository(_))));
    }

    #[test]
    fn a_directory_is_replaced_with_everything_in_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("group/pack");
        fs::create_dir_all(path.join("gone")).unwrap();
        fs::write(path.join("gone/old.py"), "").unwrap();
        fs::write(path.join(INIT), "old").unwrap();
        symlink("/", path.join("gone/link")).unwrap();
        let target = Target::new(root.path(), "group/pack/").unwrap();
        target.write_package(&package()).unwrap();
        assert_eq!(names(&path), [INIT, "inner"]);
        assert_eq!(read(&path, "inner/x.py"), "x = 1");
        assert_eq!(names(&root.path().join("group")), ["pack"]);
        target.write_plugin("changed").unwrap();
        assert_eq!(read(&path, INIT), "changed");
        assert_eq!(names(&path), [INIT, "inner"]);
    }

    #[test]
    fn directories_that_are_no_plugins_change_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("pack")).unwrap();
        fs::write(root.path().join("pack/kept.py"), "").unwrap();
        fs::write(root.path().join("file.py"), "").unwrap();
        let write = |name, files: &[UploadedFile]| {
            Target::new(root.path(), name)
                .and_then(|target| target.write_package(files))
                .unwrap_err()
        };
        let with = |path| [package(), vec![file(path, "")]].concat();
        assert!(matches!(write("pack", &[]), SourceError::NoInit(_)));
        for twice in [INIT, "./inner/x.py", "inner", "__init__.py/x.py"] {
            let error = write("pack", &with(twice));
            assert!(matches!(error, SourceError::Twice(_)), "{twice}: {error:?}");
        }
        let outside = write("pack", &with("../x.py"));
        assert!(matches!(outside, SourceError::Traversal(_)));
        assert!(matches!(
            write("none", &package()),
            SourceError::NotFound(_)
        ));
        let error = write("file.py", &package());
        assert!(matches!(error, SourceError::NotDirectory(_)), "{error:?}");
        assert_eq!(names(root.path()), ["file.py", "pack"]);
        assert_eq!(names(&root.path().join("pack")), ["kept.py"]);
    }

    #[test]
    fn without_an_exchange_the_steps_can_be_undone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("old")).unwrap();
        fs::write(root.path().join("old/a"), "").unwrap();
        let parent = open(root.path(), DIRECTORY, Mode::empty()).unwrap();
        assert!(exchange_in_steps(&parent, "missing", "old").is_err());
        assert_eq!(names(root.path()), ["old"]);
        fs::create_dir(root.path().join("new")).unwrap();
        exchange_in_steps(&parent, "new", "old").unwrap();
        assert_eq!(names(&root.path().join("new")), ["a"]);
        assert_eq!(names(root.path()), ["new", "old"]);
    }

    fn package() -> Vec<UploadedFile> {
        vec![file(INIT, "new"), file("inner/x.py", "x = 1")]
    }

    fn file(path: &str, content: &str) -> UploadedFile {
        UploadedFile {
            relative_path: path.to_owned(),
            content: content.to_owned(),
        }
    }

    #[track_caller]
    fn read(root: &Path, name: &str) -> String {
        fs::read_to_string(root.join(name)).unwrap()
    }

    #[track_caller]
    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
}
