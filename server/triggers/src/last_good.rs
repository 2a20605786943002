//! Which source of a plugin runs: the newest that loads.

use outrigger_catalog::trigger::TriggerDefinition;
use outrigger_model::error::Report;
use parking_lot::Mutex;
use tracing::debug;

use crate::{
    plugins::Plugins,
    source::{PluginSource, SourceError},
};

/// The sources of one trigger's plugin, as they come and go.
#[derive(Debug)]
pub(crate) struct LastGood {
    plugins: Plugins,
    /// How often the plugin was read. Held while it is, so that a higher number is never an older
    /// source.
    reads: tokio::sync::Mutex<u64>,
    known: Mutex<Known>,
}

/// A source, and how new it is: runs that overlap end in any order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) source: PluginSource,
    number: u64,
}

/// What is known from having tried.
#[derive(Debug, Default)]
struct Known {
    /// The newest source that a worker has loaded.
    loaded: Option<Found>,
    /// The revision that did not load since.
    broken: Option<String>,
    /// How often something was installed, when that was last asked.
    installations: u64,
}

impl LastGood {
    pub(crate) fn new(plugins: Plugins) -> Self {
        Self {
            plugins,
            reads: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The source to run now: what is there, unless it is gone or known not to load and
    /// an earlier one did.
    pub(crate) async fn current(
        &self,
        definition: &TriggerDefinition,
    ) -> Result<Found, SourceError> {
        if let Some(loaded) = self.known.lock().pinned(definition) {
            return Ok(loaded);
        }
        let mut reads = self.reads.lock().await;
        let read = self.plugins.read(definition).await;
        *reads += 1;
        let number = *reads;
        drop(reads);
        let known = self.known.lock();
        match (read, &known.loaded) {
            (Ok(source), Some(loaded)) if known.broken.as_ref() == Some(&source.revision) => {
                Ok(loaded.clone())
            }
            (Ok(source), _) => Ok(Found { source, number }),
            (Err(error), Some(loaded)) => {
                debug!(error = %Report(&error), "plugin cannot be read, using its last content");
                Ok(loaded.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// How often something was installed: what did not load may load after it.
    pub(crate) fn on_installations(&self, installations: u64) {
        let mut known = self.known.lock();
        if known.installations != installations {
            known.installations = installations;
            known.broken = None;
        }
    }

    /// A worker has loaded this source.
    pub(crate) fn on_loaded(&self, found: Found) {
        let mut known = self.known.lock();
        let is_newest = |loaded: &Found| loaded.number <= found.number;
        if !known.loaded.as_ref().is_none_or(is_newest) {
            return;
        }
        known.broken = known
            .broken
            .take()
            .filter(|broken| *broken != found.source.revision);
        known.loaded = Some(found);
    }

    /// A worker could not load this source; returns the one to run instead, if there is one.
    pub(crate) fn on_broken(&self, source: &PluginSource) -> Option<Found> {
        let mut known = self.known.lock();
        let instead = known
            .loaded
            .clone()
            .filter(|loaded| loaded.source.revision != source.revision)?;
        known.broken = Some(source.revision.clone());
        Some(instead)
    }
}

impl Known {
    /// What runs in the place of a pinned source that is known: it cannot have changed.
    fn pinned(&self, definition: &TriggerDefinition) -> Option<Found> {
        let (pin, loaded) = (definition.pin.as_ref()?, self.loaded.as_ref()?);
        let known = [Some(&loaded.source.revision), self.broken.as_ref()];
        known.contains(&Some(&pin.sha256)).then(|| loaded.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc, time::Duration};

    use object_store::memory::InMemory;
    use outrigger_catalog::trigger::{ErrorBehavior, TriggerEvent};
    use outrigger_log::store::Durability;

    use super::*;
    use crate::{
        pinned::PinnedSources,
        repository::Repository,
        source::{PluginDirectory, PluginText},
    };

    #[tokio::test]
    async fn a_source_that_does_not_load_leaves_the_last_good_one_running() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.py");
        let definition = definition("p.py");
        let sources = LastGood::new(plugins(Some(directory.path())));
        assert!(sources.current(&definition).await.is_err());

        fs::write(&file, "good").unwrap();
        let good = sources.current(&definition).await.unwrap();
        sources.on_loaded(good.clone());
        fs::write(&file, "broken").unwrap();
        let broken = sources.current(&definition).await.unwrap();
        assert_eq!(sources.on_broken(&broken.source), Some(good.clone()));
        assert_eq!(sources.current(&definition).await.unwrap(), good);
        sources.on_installations(0);
        assert_eq!(sources.current(&definition).await.unwrap(), good);
        sources.on_installations(1);
        let again = sources.current(&definition).await.unwrap();
        assert_eq!(again.source, broken.source);

        fs::write(&file, "mended").unwrap();
        assert_eq!(
            sources.current(&definition).await.unwrap().source.text,
            PluginText::File("mended".into())
        );
        fs::remove_file(&file).unwrap();
        assert_eq!(sources.current(&definition).await.unwrap(), good);
    }

    #[tokio::test]
    async fn a_run_that_ends_late_brings_no_older_source_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.py");
        let definition = definition("p.py");
        let sources = LastGood::new(plugins(Some(directory.path())));
        fs::write(&file, "eleven").unwrap();
        let eleven = sources.current(&definition).await.unwrap();
        fs::write(&file, "twelve").unwrap();
        let twelve = sources.current(&definition).await.unwrap();
        sources.on_loaded(twelve.clone());
        // It had begun before the edit.
        sources.on_loaded(eleven);
        fs::write(&file, "broken").unwrap();
        let broken = sources.current(&definition).await.unwrap();
        assert_eq!(sources.on_broken(&broken.source), Some(twelve));
        // Whoever goes back to it has it again.
        fs::write(&file, "eleven").unwrap();
        let eleven = sources.current(&definition).await.unwrap();
        sources.on_loaded(eleven.clone());
        assert_eq!(sources.on_broken(&broken.source), Some(eleven));
    }

    #[tokio::test]
    async fn a_new_pin_is_read_once_and_replaces_the_old_one_if_it_loads() {
        let plugins = plugins(None);
        let mut definition = definition("gh:p.py");
        let sources = LastGood::new(plugins.clone());
        definition.pin = Some(plugins.pinned.put("one".into()).await.unwrap());
        let one = sources.current(&definition).await.unwrap();
        assert_eq!(one.source.text, PluginText::File("one".into()));
        sources.on_loaded(one.clone());

        definition.pin = Some(plugins.pinned.put("two".into()).await.unwrap());
        let two = sources.current(&definition).await.unwrap();
        assert_eq!(two.source.text, PluginText::File("two".into()));
        assert_eq!(sources.on_broken(&two.source), Some(one.clone()));
        assert_eq!(sources.current(&definition).await.unwrap(), one);
        sources.on_loaded(two.clone());
        assert_eq!(sources.current(&definition).await.unwrap(), two);
    }

    #[tokio::test]
    async fn a_first_source_that_does_not_load_has_nothing_to_run_instead() {
        let sources = LastGood::new(plugins(None));
        let source = PluginSource {
            text: PluginText::File("x".into()),
            revision: "1".to_owned(),
        };
        assert_eq!(sources.on_broken(&source), None);
    }

    fn plugins(directory: Option<&Path>) -> Plugins {
        let url = "http://127.0.0.1:1/".parse().unwrap();
        Plugins {
            directory: PluginDirectory(directory.map(Path::to_owned)),
            repository: Repository::new(url, Duration::from_secs(1)),
            pinned: PinnedSources::new(Arc::new(InMemory::new()), "n", Durability::Store),
        }
    }

    fn definition(plugin: &str) -> TriggerDefinition {
        TriggerDefinition {
            name: "t".to_owned(),
            plugin: plugin.to_owned(),
            pin: None,
            event: TriggerEvent::AllTablesWalWrite,
            arguments: None,
            error_behavior: ErrorBehavior::Log,
            disabled: false,
            timeout: None,
            run_async: false,
            grants: outrigger_catalog::grants::Grants::default(),
        }
    }
}
