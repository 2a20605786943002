//! Which source of a plugin runs: the newest that loads.

use outrigger_model::error::Report;
use tracing::debug;

use crate::source::{PluginDirectory, PluginSource, SourceError};

/// The sources of one trigger's plugin, as they come and go.
#[derive(Debug)]
pub(crate) struct LastGood {
    plugins: PluginDirectory,
    name: String,
    /// The last source that a worker has loaded.
    loaded: Option<PluginSource>,
    /// The revision that did not load since.
    broken: Option<String>,
    /// How often something was installed, when that was last asked.
    installations: u64,
}

impl LastGood {
    pub(crate) fn new(plugins: PluginDirectory, name: String) -> Self {
        Self {
            plugins,
            name,
            loaded: None,
            broken: None,
            installations: 0,
        }
    }

    /// The source to run now: the file's, unless it is gone or known not to load and
    /// an earlier one did.
    pub(crate) async fn current(&self) -> Result<PluginSource, SourceError> {
        match (self.plugins.read(&self.name).await, &self.loaded) {
            (Ok(source), Some(loaded)) if self.broken.as_ref() == Some(&source.revision) => {
                Ok(loaded.clone())
            }
            (Ok(source), _) => Ok(source),
            (Err(error), Some(loaded)) => {
                debug!(error = %Report(&error), "plugin file is gone, using its last content");
                Ok(loaded.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// How often something was installed: what did not load may load after it.
    pub(crate) fn on_installations(&mut self, installations: u64) {
        if self.installations != installations {
            self.installations = installations;
            self.broken = None;
        }
    }

    /// A worker has loaded this source.
    pub(crate) fn on_loaded(&mut self, source: PluginSource) {
        self.broken = self
            .broken
            .take()
            .filter(|broken| *broken != source.revision);
        self.loaded = Some(source);
    }

    /// A worker could not load this source; returns the one to run instead, if there is one.
    pub(crate) fn on_broken(&mut self, source: &PluginSource) -> Option<PluginSource> {
        let instead = self
            .loaded
            .clone()
            .filter(|loaded| loaded.revision != source.revision)?;
        self.broken = Some(source.revision.clone());
        Some(instead)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::PluginText;

    #[tokio::test]
    async fn a_source_that_does_not_load_leaves_the_last_good_one_running() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.py");
        let plugins = PluginDirectory(Some(directory.path().to_owned()));
        let mut sources = LastGood::new(plugins, "p.py".to_owned());
        assert!(sources.current().await.is_err());

        fs::write(&file, "good").unwrap();
        let good = sources.current().await.unwrap();
        sources.on_loaded(good.clone());
        fs::write(&file, "broken").unwrap();
        let broken = sources.current().await.unwrap();
        assert_eq!(sources.on_broken(&broken), Some(good.clone()));
        assert_eq!(sources.current().await.unwrap(), good);
        sources.on_installations(0);
        assert_eq!(sources.current().await.unwrap(), good);
        sources.on_installations(1);
        assert_eq!(sources.current().await.unwrap(), broken);

        fs::write(&file, "mended").unwrap();
        assert_eq!(
            sources.current().await.unwrap().text,
            PluginText::File("mended".into())
        );
        fs::remove_file(&file).unwrap();
        assert_eq!(sources.current().await.unwrap(), good);
    }

    #[tokio::test]
    async fn a_first_source_that_does_not_load_has_nothing_to_run_instead() {
        let plugins = PluginDirectory(None);
        let mut sources = LastGood::new(plugins, "p.py".to_owned());
        let source = PluginSource {
            text: PluginText::File("x".into()),
            revision: "1".to_owned(),
        };
        assert_eq!(sources.on_broken(&source), None);
    }
}
