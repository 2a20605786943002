//! Plugins on the client's machine, as they are sent to a server.
//!
//! Deliberately absent: what a plugin may be called and how large it may be, which the server
//! decides.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde::Serialize;

use crate::client::{Client, ClientError};

/// Where single files go to.
const FILES: &str = "/api/v3/plugins/files";

/// A plugin that was read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct LocalPlugin {
    /// The last part of its path.
    pub(crate) name: String,
    source: Source,
}

#[derive(Debug, Eq, PartialEq)]
enum Source {
    File(String),
    /// Every Python file below the directory, sorted.
    Directory(Vec<SourceFile>),
}

#[derive(Debug, Eq, PartialEq, Serialize)]
struct SourceFile {
    relative_path: String,
    content: String,
}

#[derive(Debug, Serialize)]
struct FileRequest<'a> {
    plugin_name: &'a str,
    content: &'a str,
}

#[derive(Debug, Serialize)]
struct DirectoryRequest<'a> {
    plugin_name: &'a str,
    files: &'a [SourceFile],
}

#[derive(Debug, Serialize)]
struct RepositoryRequest<'a> {
    plugin_name: &'a str,
    plugin_filename: &'a str,
}

impl LocalPlugin {
    /// Reads a file, or the Python files of a directory.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = name(path)?;
        let metadata =
            fs::metadata(path).with_context(|| format!("read plugin {}", path.display()))?;
        if !metadata.is_dir() {
            let source = Source::File(read_text(path)?);
            return Ok(Self { name, source });
        }
        let mut files = Vec::new();
        collect(path, "", &mut files)?;
        ensure!(!files.is_empty(), "No Python files found in directory");
        if !files.iter().any(|file| file.relative_path == "__init__.py") {
            bail!(
                "Multi-file plugin directory must contain __init__.py: {}",
                path.display()
            );
        }
        files.sort_unstable_by(|a, b| a.relative_path.cmp(&b.relative_path));
        let source = Source::Directory(files);
        Ok(Self { name, source })
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.source, Source::Directory(_))
    }

    /// Puts it into the server's plugin directory, under its own name.
    pub(crate) async fn upload(&self, client: &Client, database: &str) -> Result<(), ClientError> {
        let parameters = [("db", database)];
        for (plugin_name, content) in self.uploads() {
            let request = FileRequest {
                plugin_name: &plugin_name,
                content,
            };
            client
                .send_json(Method::POST, FILES, &parameters, &request)
                .await?;
        }
        Ok(())
    }

    /// Each file of it: its path in the server's plugin directory, and its content.
    fn uploads(&self) -> Vec<(String, &str)> {
        match &self.source {
            Source::File(content) => vec![(self.name.clone(), content)],
            Source::Directory(files) => files
                .iter()
                .map(|file| {
                    let path = format!("{}/{}", self.name, file.relative_path);
                    (path, file.content.as_str())
                })
                .collect(),
        }
    }

    /// Replaces the source of a trigger.
    pub(crate) async fn replace(
        &self,
        client: &Client,
        database: &str,
        trigger: &str,
    ) -> Result<(), ClientError> {
        let parameters = [("db", database)];
        match &self.source {
            Source::File(content) => {
                let request = FileRequest {
                    plugin_name: trigger,
                    content,
                };
                client
                    .send_json(Method::PUT, FILES, &parameters, &request)
                    .await?;
            }
            Source::Directory(files) => {
                let request = DirectoryRequest {
                    plugin_name: trigger,
                    files,
                };
                let path = "/api/v3/plugins/directory";
                client
                    .send_json(Method::PUT, path, &parameters, &request)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Has the server fetch the source of a trigger from its repository.
pub(crate) async fn replace_from_repository(
    client: &Client,
    database: &str,
    trigger: &str,
    plugin: &str,
) -> Result<(), ClientError> {
    let request = RepositoryRequest {
        plugin_name: trigger,
        plugin_filename: plugin,
    };
    let (path, parameters) = ("/api/v3/plugins/repository", [("db", database)]);
    client
        .send_json(Method::PUT, path, &parameters, &request)
        .await?;
    Ok(())
}

/// What the server is to call it. Of `.` and `..` that is the directory's real name.
fn name(path: &Path) -> anyhow::Result<String> {
    let whole = match path.file_name() {
        Some(_) if !path.ends_with(".") => path.to_owned(),
        _ => fs::canonicalize(path).with_context(|| format!("read plugin {}", path.display()))?,
    };
    let name = whole.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has no name to upload as", path.display()))?;
    Ok(name.to_owned())
}

/// Collects the Python files below a directory, without what Python caches and what is hidden,
/// and without following links.
fn collect(directory: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> anyhow::Result<()> {
    let unreadable = || format!("read plugin directory {}", directory.display());
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path: PathBuf = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name == "__pycache__" || name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().with_context(unreadable)?;
        if kind.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "py") {
            files.push(SourceFile {
                relative_path: format!("{prefix}{name}"),
                content: read_text(&path)?,
            });
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read plugin {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_sent_under_its_own_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("double.py");
        fs::write(&path, "x = 1").expect("written");
        let plugin = LocalPlugin::read(&path).expect("a file");
        assert!(!plugin.is_directory());
        assert_eq!(plugin.uploads(), [("double.py".to_owned(), "x = 1")]);
    }

    #[test]
    fn a_directory_is_sent_without_what_is_no_source() {
        let directory = tempfile::tempdir().expect("a directory");
        let pack = directory.path().join("pack");
        for (name, text) in [
            ("inner/b.py", "b"),
            ("__init__.py", "a"),
            ("__pycache__/c.py", "cached"),
            (".venv/d.py", "hidden"),
            ("notes.txt", "no source"),
        ] {
            let path = pack.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, text).expect("written");
        }
        symlink("/etc/passwd", pack.join("link.py")).expect("a link");
        symlink("inner", pack.join("linked")).expect("a link");
        let expected = [
            ("pack/__init__.py".to_owned(), "a"),
            ("pack/inner/b.py".to_owned(), "b"),
        ];
        for path in [pack.clone(), pack.join("."), pack.join("inner/..")] {
            let plugin = LocalPlugin::read(&path).expect("a directory");
            assert!(plugin.is_directory());
            assert_eq!(plugin.uploads(), expected, "{}", path.display());
        }
    }

    #[test]
    fn what_is_no_plugin_is_explained() {
        let directory = tempfile::tempdir().expect("a directory");
        check_refused(directory.path(), "No Python files found in directory");
        fs::write(directory.path().join("a.py"), "").expect("written");
        check_refused(directory.path(), "must contain __init__.py");
        check_refused(&directory.path().join("none.py"), "read plugin ");
    }

    #[track_caller]
    fn check_refused(path: &Path, part: &str) {
        let error = LocalPlugin::read(path).expect_err("no plugin");
        assert!(error.to_string().contains(part), "{error:?}");
    }
}
