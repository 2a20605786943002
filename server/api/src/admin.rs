//! What the API asks of whoever looks after triggers.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use outrigger_catalog::trigger::ErrorBehavior;
use outrigger_model::error::ErrorKind;

/// Creates, deletes, enables and disables triggers.
#[async_trait]
pub trait TriggerAdmin: fmt::Debug + Send + Sync {
    /// Creates a trigger; returns when it is durable.
    async fn create(
        &self,
        database: &str,
        request: CreateTrigger,
    ) -> Result<(), TriggerAdminError>;

    /// Deletes a trigger; one that is enabled only by `force`.
    async fn delete(
        &self,
        database: &str,
        trigger: &str,
        force: bool,
    ) -> Result<(), TriggerAdminError>;

    /// Disables or enables a trigger; nothing happens if it is so already.
    async fn set_disabled(
        &self,
        database: &str,
        trigger: &str,
        disabled: bool,
    ) -> Result<(), TriggerAdminError>;
}

/// What a client says when it creates a trigger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreateTrigger {
    /// Unique in its database.
    pub trigger_name: String,
    /// Where the plugin is, in the plugin directory.
    pub plugin_filename: String,
    /// When it fires, as the client wrote it.
    pub trigger_specification: String,
    /// What the plugin gets as `args`; `None` if the client gave nothing.
    pub trigger_arguments: Option<BTreeMap<String, String>>,
    /// Whether invocations may overlap.
    pub run_async: bool,
    /// What happens after the plugin failed.
    pub error_behavior: ErrorBehavior,
    /// Whether it waits to be enabled.
    pub disabled: bool,
}

/// A request about a trigger that was refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TriggerAdminError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// What the client is told: the whole chain of causes.
    pub message: String,
}
