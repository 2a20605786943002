//! What users do with triggers: create, delete, enable, disable, give them new source.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use outrigger_catalog::{
    Catalog,
    grants::Grants,
    trigger::{ErrorBehavior, Pin, TriggerDefinition, TriggerEvent},
};
use outrigger_model::{
    error::{ErrorKind, Report},
    trace::TraceContext,
};
use outrigger_storage::{
    Storage, WriteError,
    journal::{JournalRows, LogLevel, PluginLog},
};
use outrigger_supervisor::{Request, Response};

use tracing::{info, warn};

use crate::{
    board::Board,
    plugins::{Plugins, is_repository},
    requests::AnswerError,
    source::SourceError,
    spec::{SpecError, TriggerKind, TriggerSpec},
    upload::UploadedFile,
};

/// What a client says when it creates a trigger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreateTrigger {
    /// Unique in its database.
    pub trigger_name: String,
    /// Where the plugin is, in the plugin directory, or after `gh:` in the repository.
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
    /// How long one invocation may take; the server's own limit if `None`.
    pub timeout: Option<Duration>,
    /// Where a WAL trigger starts.
    pub start: Start,
    /// What its plugin may do beyond what every plugin may.
    pub grants: Grants,
}

/// Where a new WAL trigger starts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Start {
    /// With what is written from now on.
    #[default]
    Now,
    /// With the oldest entry of the log that is kept.
    Earliest,
}

/// A request about a trigger that was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// It has no name.
    #[error("the trigger's name is empty")]
    NoName,
    /// An invocation would have no time.
    #[error("the timeout must be longer than 0s")]
    Timeout,
    /// There is nothing earlier to start with.
    #[error(
        "only a trigger on writes (all_tables, table:) can start with the earliest entry; a \
         trigger on files, a schedule or a request trigger starts now: leave out start"
    )]
    Start,
    /// The server takes no such triggers.
    #[error("invalid request: server is configured to reject {0:?} plugin triggers")]
    Restricted(TriggerKind),
    /// The specification is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No database has a trigger of that name.
    #[error("trigger not found: {0:?}")]
    NotFound(String),
    /// Several databases have a trigger of that name.
    #[error(
        "the trigger {trigger:?} exists in several databases ({databases}): say which with db="
    )]
    Ambiguous {
        /// The name.
        trigger: String,
        /// The databases, comma-separated.
        databases: String,
    },
    /// The plugin cannot be read or written.
    #[error("Plugin error")]
    Source(#[from] SourceError),
    /// The catalog refused, or the change could not be made durable.
    #[error(transparent)]
    Storage(#[from] WriteError),
}

impl TriggerError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoName | Self::Timeout | Self::Start | Self::Restricted(_) | Self::Spec(_) => {
                ErrorKind::Invalid
            }
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Conflict,
            Self::Source(error) => error.kind(),
            Self::Storage(error) => error.kind(),
        }
    }
}

/// Creates, deletes, enables and disables triggers, and takes their source. The manager
/// sees the change in the catalog and does the rest.
#[derive(Clone, Debug)]
pub struct TriggerService {
    storage: Storage,
    plugins: Plugins,
    board: Board,
    allowed: BTreeSet<TriggerKind>,
}

impl TriggerService {
    /// A service over the server's parts.
    pub fn new(storage: Storage, plugins: Plugins, board: Board) -> Self {
        Self {
            storage,
            plugins,
            board,
            allowed: TriggerKind::ALL.into(),
        }
    }

    /// Creates only triggers of these kinds. Those that exist go on.
    pub fn restricted_to(self, allowed: BTreeSet<TriggerKind>) -> Self {
        Self { allowed, ..self }
    }

    /// Has the request trigger of `path` answer, within the request's trace.
    pub async fn answer(
        &self,
        path: &str,
        request: Request,
        trace: TraceContext,
    ) -> Result<Response, AnswerError> {
        let catalog = self.storage.catalog();
        let runs_plugins = self.plugins.directory.0.is_some();
        let is_expected = runs_plugins && catalog.triggers().any(|(_, trigger)| {
            let definition = &trigger.definition;
            !definition.disabled
                && matches!(&definition.event, TriggerEvent::RequestPath { path: of } if of == path)
        });
        let routes = &self.board.routes;
        routes.answer(path, (request, trace), is_expected).await
    }

    /// Creates a trigger; returns when it is durable. The plugin must be readable,
    /// but is not compiled; a table that it names need not exist yet. A plugin from the
    /// repository is fetched, and runs as it is then until it is updated.
    pub async fn create(&self, database: &str, request: CreateTrigger) -> Result<(), TriggerError> {
        if request.trigger_name.trim().is_empty() {
            return Err(TriggerError::NoName);
        }
        let TriggerSpec(event) = request.trigger_specification.parse()?;
        let kind = TriggerKind::from(&event);
        if !self.allowed.contains(&kind) {
            return Err(TriggerError::Restricted(kind));
        }
        let earliest = request.start == Start::Earliest;
        if earliest && kind != TriggerKind::WalRows {
            return Err(TriggerError::Start);
        }
        if request.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(TriggerError::Timeout);
        }
        let mut definition = TriggerDefinition {
            name: request.trigger_name,
            plugin: request.plugin_filename,
            pin: None,
            event,
            arguments: request.trigger_arguments,
            error_behavior: request.error_behavior,
            disabled: request.disabled,
            timeout: request.timeout,
            run_async: request.run_async,
            grants: request.grants,
        };
        let (name, plugin) = (definition.name.clone(), definition.plugin.clone());
        if is_repository(&plugin) {
            // Nothing is fetched in vain.
            let catalog = self.storage.catalog();
            let create = catalog.create_trigger(database, definition.clone(), earliest);
            create.map_err(WriteError::from)?;
        }
        definition.pin = self.plugins.admit(&plugin).await?;
        let (pin, owned) = (definition.pin.clone(), database.to_owned());
        let create = move |catalog: &Catalog| {
            let change = catalog.create_trigger(&owned, definition.clone(), earliest);
            change.map(Some)
        };
        self.storage.change(create).await?;
        if let Some(pin) = pin {
            self.announce(database, &name, &plugin, &pin).await;
        }
        Ok(())
    }

    /// Fetches a plugin from the repository, for a trigger that exists. The next run has it.
    pub async fn update_from_repository(
        &self,
        database: Option<&str>,
        trigger: &str,
        plugin: &str,
    ) -> Result<(), TriggerError> {
        let (database, _) = self.find(database, trigger)?;
        let pin = self.plugins.fetch(plugin).await?;
        let names = (database.clone(), trigger.to_owned(), plugin.to_owned());
        let new = pin.clone();
        let update = move |catalog: &Catalog| {
            let (database, trigger, plugin) = &names;
            catalog.set_trigger_pin(database, trigger, plugin.clone(), new.clone())
        };
        self.storage.change(update).await?;
        self.announce(&database, trigger, plugin, &pin).await;
        Ok(())
    }

    /// Tells the operator and the trigger's own log what was pinned.
    async fn announce(&self, database: &str, trigger: &str, plugin: &str, pin: &Pin) {
        let Pin { sha256, bytes } = pin;
        let repository = self.plugins.repository.url();
        info!(trigger, db = database, plugin, %repository, sha256, bytes, "pinned a repository plugin");
        let line = PluginLog {
            event_time: self.storage.clock().now(),
            trigger_name: trigger.to_owned(),
            log_level: LogLevel::Info,
            log_text: format!("pinned {plugin} of {repository}: {bytes} bytes, sha256 {sha256}"),
            invocation_id: None,
            trace: None,
        };
        let rows = JournalRows {
            logs: vec![line],
            ..JournalRows::default()
        };
        // The trigger has it in any case, and the server's log says so.
        if let Err(error) = self.storage.append(&rows).await {
            warn!(trigger, error = %Report(&error), "cannot store what was pinned in the plugin log");
        }
    }

    /// Deletes a trigger; one that is enabled only by `force`.
    pub async fn delete(
        &self,
        database: &str,
        trigger: &str,
        force: bool,
    ) -> Result<(), TriggerError> {
        let (database, trigger) = (database.to_owned(), trigger.to_owned());
        self.storage
            .change(move |catalog| catalog.delete_trigger(&database, &trigger, force).map(Some))
            .await?;
        Ok(())
    }

    /// Disables or enables a trigger; nothing happens if it is so already, except that
    /// enabling ends a pause.
    pub async fn set_disabled(
        &self,
        database: &str,
        trigger: &str,
        disabled: bool,
    ) -> Result<(), TriggerError> {
        let (name, home) = (trigger.to_owned(), database.to_owned());
        self.storage
            .change(move |catalog| catalog.set_trigger_disabled(&home, &name, disabled))
            .await?;
        let catalog = self.storage.catalog();
        let found = catalog
            .database(database)
            .and_then(|db| db.trigger(trigger));
        if let Ok(enabled) = found.map(|found| found.id)
            && !disabled
        {
            self.board.wish_resumption(enabled);
        }
        Ok(())
    }

    /// Writes a file into the plugin directory, whether or not a trigger uses it.
    pub async fn upload_file(&self, name: &str, content: String) -> Result<(), TriggerError> {
        Ok(self.plugins.directory.write_file(name, content).await?)
    }

    /// Replaces a trigger's file, or the `__init__.py` of its directory. The next run has it.
    pub async fn update_file(
        &self,
        database: Option<&str>,
        trigger: &str,
        content: String,
    ) -> Result<(), TriggerError> {
        let (_, plugin) = self.find(database, trigger)?;
        Ok(self
            .plugins
            .directory
            .write_plugin(&plugin, content)
            .await?)
    }

    /// Replaces a trigger's whole directory. The next run has it.
    pub async fn update_directory(
        &self,
        database: Option<&str>,
        trigger: &str,
        files: Vec<UploadedFile>,
    ) -> Result<(), TriggerError> {
        let (_, plugin) = self.find(database, trigger)?;
        Ok(self.plugins.directory.write_package(&plugin, files).await?)
    }

    /// The database and the plugin of a trigger, whose name must be unique if its database
    /// is not given.
    fn find(&self, database: Option<&str>, name: &str) -> Result<(String, String), TriggerError> {
        let catalog = self.storage.catalog();
        if let Some(database) = database {
            let trigger = catalog.trigger(database, name).map_err(WriteError::from)?;
            return Ok((database.to_owned(), trigger.definition.plugin.clone()));
        }
        let found: Vec<_> = catalog
            .triggers()
            .filter(|(database, _)| database.deletion.is_none())
            .filter(|(_, trigger)| trigger.definition.name == name)
            .collect();
        match &found[..] {
            [] => Err(TriggerError::NotFound(name.to_owned())),
            [(database, trigger)] => {
                let plugin = trigger.definition.plugin.clone();
                Ok((database.name.to_string(), plugin))
            }
            several => Err(TriggerError::Ambiguous {
                trigger: name.to_owned(),
                databases: several
                    .iter()
                    .map(|(database, _)| database.name.to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}
