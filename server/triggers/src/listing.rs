//! Which files a plugin consists of, for `system.plugin_files`.

use std::{
    fs::{self, File},
    path::Path,
    time::UNIX_EPOCH,
};

use tracing::debug;

use crate::source::{PluginDirectory, SourceError, file_names, open_beneath};

/// A file of a plugin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PluginFile {
    /// Its name; in a directory, its path there.
    pub(crate) name: String,
    /// Its absolute path.
    pub(crate) path: String,
    /// Its size.
    pub(crate) bytes: i64,
    /// When it was last modified, in milliseconds since the epoch.
    pub(crate) modified_ms: i64,
}

impl PluginDirectory {
    /// The files of a plugin as it is now. May take time. A plugin that is gone or cannot be read has no files, nor has one from the repository.
    pub(crate) fn files(&self, plugin: &str) -> Vec<PluginFile> {
        let Some(root) = &self.0 else {
            return Vec::new();
        };
        files(root, plugin).unwrap_or_else(|error| {
            debug!(plugin, %error, "a plugin's files cannot be listed");
            Vec::new()
        })
    }
}

fn files(root: &Path, plugin: &str) -> Result<Vec<PluginFile>, SourceError> {
    let plugin = plugin.trim_end_matches('/');
    let metadata = metadata(root, plugin)?;
    if !metadata.is_dir() {
        let name = plugin.rsplit('/').next().unwrap_or(plugin);
        return Ok(vec![describe(name, &root.join(plugin), &metadata)]);
    }
    let mut files = Vec::new();
    for name in file_names(root, plugin)? {
        let path = format!("{plugin}/{name}");
        files.push(describe(
            &name,
            &root.join(&path),
            &self::metadata(root, &path)?,
        ));
    }
    Ok(files)
}

fn metadata(root: &Path, name: &str) -> Result<fs::Metadata, SourceError> {
    let file = File::from(open_beneath(root, name)?);
    file.metadata().map_err(|source| SourceError::Read {
        path: root.join(name),
        source,
    })
}

fn describe(name: &str, path: &Path, metadata: &fs::Metadata) -> PluginFile {
    let modified = metadata.modified().ok();
    let since_epoch = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let milliseconds = since_epoch.map(|time| time.as_millis()).unwrap_or_default();
    PluginFile {
        name: name.to_owned(),
        path: path.display().to_string(),
        bytes: metadata.len().try_into().unwrap_or(i64::MAX),
        modified_ms: milliseconds.try_into().unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_packages_are_listed_and_what_is_gone_is_not() {
        let root = tempfile::tempdir().unwrap();
        let pack = root.path().join("group/pack/inner");
        fs::create_dir_all(&pack).unwrap();
        fs::write(root.path().join("group/p.py"), "12345").unwrap();
        fs::write(pack.join("../__init__.py"), "").unwrap();
        fs::write(pack.join("x.py"), "123").unwrap();
        let directory = PluginDirectory(Some(root.path().to_owned()));
        let list = |plugin| -> Vec<(String, String, i64)> {
            let files = directory.files(plugin).into_iter();
            files
                .map(|file| {
                    assert!(file.modified_ms > 1_600_000_000_000, "{file:?}");
                    (file.name, file.path, file.bytes)
                })
                .collect()
        };
        let path = |name: &str| root.path().join(name).display().to_string();
        let file = ("p.py".to_owned(), path("group/p.py"), 5);
        assert_eq!(list("group/p.py"), [file]);
        assert_eq!(
            list("group/pack/"),
            [
                ("__init__.py".to_owned(), path("group/pack/__init__.py"), 0),
                ("inner/x.py".to_owned(), path("group/pack/inner/x.py"), 3),
            ]
        );
        for none in ["gone.py", "gh:x/p.py", "../secret"] {
            assert_eq!(list(none), [], "{none}");
        }
    }
}
