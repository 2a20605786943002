//! Where a plugin's source comes from: the plugin directory, or what was pinned of the
//! repository.

use outrigger_catalog::trigger::{Pin, TriggerDefinition};

use crate::{
    pinned::{PinnedSources, sha256},
    repository::{PREFIX, Repository},
    source::{PluginDirectory, PluginSource, PluginText, SourceError},
};

/// All places that source comes from.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// Files of this machine.
    pub directory: PluginDirectory,
    /// Where `gh:` plugins are fetched.
    pub repository: Repository,
    /// What was fetched.
    pub pinned: PinnedSources,
}

impl Plugins {
    /// What a trigger has to run now. What is pinned never needs the repository.
    pub(crate) async fn read(
        &self,
        definition: &TriggerDefinition,
    ) -> Result<PluginSource, SourceError> {
        let Some(pin) = &definition.pin else {
            return self.directory.read(&definition.plugin).await;
        };
        Ok(PluginSource {
            text: PluginText::File(self.pinned.get(pin).await?),
            revision: pin.sha256.clone(),
        })
    }

    /// What a plugin is now, for whoever tries it out; one of the repository is fetched anew.
    pub(crate) async fn newest(&self, plugin: &str) -> Result<PluginSource, SourceError> {
        let Some(path) = plugin.strip_prefix(PREFIX) else {
            return self.directory.read(plugin).await;
        };
        let text = self.repository.fetch(path).await?;
        Ok(PluginSource {
            revision: sha256(&text),
            text: PluginText::File(text),
        })
    }

    /// Looks whether a new trigger can have the plugin; fetches it if it is from the repository.
    pub(crate) async fn admit(&self, plugin: &str) -> Result<Option<Pin>, SourceError> {
        if is_repository(plugin) {
            return self.fetch(plugin).await.map(Some);
        }
        self.directory.read(plugin).await?;
        Ok(None)
    }

    /// Fetches a `gh:` plugin and keeps it.
    pub(crate) async fn fetch(&self, plugin: &str) -> Result<Pin, SourceError> {
        let path = plugin
            .strip_prefix(PREFIX)
            .ok_or_else(|| SourceError::NotRepository(plugin.to_owned()))?;
        // It could not run.
        if self.directory.0.is_none() {
            return Err(SourceError::NoDirectory);
        }
        let text = self.repository.fetch(path).await?;
        Ok(self.pinned.put(text).await?)
    }
}

/// Whether a plugin is from the repository.
pub(crate) fn is_repository(plugin: &str) -> bool {
    plugin.starts_with(PREFIX)
}
