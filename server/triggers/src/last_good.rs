//! Which source of a plugin runs: the newest that loads.

use outrigger_model::error::Report;
use parking_lot::Mutex;
use tracing::debug;

use crate::source::{PluginDirectory, PluginSource, SourceError};

/// The sources of one trigger's plugin, as they come and go.
#[derive(Debug)]
pub(crate) struct LastGood {
    plugins: PluginDirectory,
    name: String,
    known: Mutex<Known>,
}

/// What is known from having tried.
#[derive(Debug, Default)]
struct Known {
    /// The last source that a worker has loaded.
    loaded: Option<PluginSource>,
    /// The revision that did not load since.
    broken: Option<String>,
}

impl LastGood {
    pub(crate) fn new(plugins: PluginDirectory, name: String) -> Self {
        Self {
            plugins,
            name,
            known: Mutex::default(),
        }
    }

    /// The source to run now: the file's, unless it is gone or known not to load and
    /// an earlier one did.
    pub(crate) async fn current(&self) -> Result<PluginSource, SourceError> {
        let read = self.plugins.read(&self.name).await;
        let known = self.known.lock();
        match (read, &known.loaded) {
            (Ok(source), Some(loaded)) if known.broken.as_ref() == Some(&source.revision) => {
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

    /// A worker has loaded this source.
    pub(crate) fn on_loaded(&self, source: PluginSource) {
        let mut known = self.known.lock();
        known.broken = known
            .broken
            .take()
            .filter(|broken| *broken != source.revision);
        known.loaded = Some(source);
    }

    /// A worker could not load this source; returns the one to run instead, if there is one.
    pub(crate) fn on_broken(&self, source: &PluginSource) -> Option<PluginSource> {
        let mut known = self.known.lock();
        let instead = known
            .loaded
            .clone()
            .filter(|loaded| loaded.revision != source.revision)?;
        known.broken = Some(source.revision.clone());
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
        let sources = LastGood::new(plugins, "p.py".to_owned());
        assert!(sources.current().await.is_err());

        fs::write(&file, "good").unwrap();
        let good = sources.current().await.unwrap();
        sources.on_loaded(good.clone());
        fs::write(&file, "broken").unwrap();
        let broken = sources.current().await.unwrap();
        assert_eq!(sources.on_broken(&broken), Some(good.clone()));
        assert_eq!(sources.current().await.unwrap(), good);

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
        let sources = LastGood::new(plugins, "p.py".to_owned());
        let source = PluginSource {
            text: PluginText::File("x".into()),
            revision: "1".to_owned(),
        };
        assert_eq!(sources.on_broken(&source), None);
    }
}
