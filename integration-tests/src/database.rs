//! One database of a server: its rows, its triggers, and what its plugins have said.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::{Client, Reply},
    eventually::eventually,
};

const TRIGGER: &str = "/api/v3/configure/processing_engine_trigger";

/// A database by name.
#[derive(Clone, Debug)]
pub struct Database {
    client: Client,
    name: String,
}

/// A row of `system.processing_engine_logs`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogRow {
    /// `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// What was said.
    pub text: String,
}

impl Database {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        let name = name.to_owned();
        Self { client, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates it.
    pub async fn create(self) -> Self {
        self.client
            .post("/api/v3/configure/database", &json!({ "db": self.name }))
            .await
            .check_success("create a database");
        self
    }

    /// Writes lines, all of which must be stored.
    pub async fn write(&self, lines: impl Into<String>) {
        let reply = self.write_with(&[], lines).await;
        assert_eq!(reply.status, 204, "write: {reply:?}");
    }

    /// Writes lines with further parameters; whatever the answer is.
    pub async fn write_with(&self, parameters: &[(&str, &str)], lines: impl Into<String>) -> Reply {
        let request = self.write_request(lines).query(parameters);
        self.client.answer(request).await
    }

    /// Writes lines to a server that may be gone.
    pub async fn try_write(&self, lines: impl Into<String>) -> reqwest::Result<Reply> {
        self.client.send(self.write_request(lines)).await
    }

    fn write_request(&self, lines: impl Into<String>) -> reqwest::RequestBuilder {
        self.client
            .request(Method::POST, "/api/v3/write_lp")
            .query(&[("db", &self.name)])
            .body(lines.into())
    }

    /// Queries; whatever the answer is.
    pub async fn try_query(&self, sql: &str) -> Reply {
        let query = json!({ "db": self.name, "q": sql, "format": "json" });
        self.client.post("/api/v3/query_sql", &query).await
    }

    /// The rows of a query that must succeed, as an array of objects.
    pub async fn query(&self, sql: &str) -> Value {
        let reply = self.try_query(sql).await;
        assert_eq!(reply.status, 200, "{sql}: {reply:?}");
        reply.json()
    }

    /// The single number that a query gives; 0 if it is null.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.query(sql).await;
        let row = rows.get(0).and_then(Value::as_object);
        row.unwrap_or_else(|| panic!("{sql}: no row in {rows}"))
            .values()
            .next()
            .map_or(0, |value| {
                value
                    .as_i64()
                    .unwrap_or_else(|| panic!("{sql}: {value} is no integer"))
            })
    }

    /// Waits until a query gives exactly these rows. Its tables need not exist yet.
    pub async fn until(&self, sql: &str, expected: Value) {
        eventually(&format!("{sql} gives {expected}"), async || {
            let reply = self.try_query(sql).await;
            if reply.status == 200 && reply.json() == expected {
                return Ok(());
            }
            Err(format!("{reply:?}\nplugin log:\n{}", self.all_logs().await))
        })
        .await;
    }

    /// What a trigger's plugin and the engine have said, in order.
    pub async fn logs(&self, trigger: &str) -> Vec<LogRow> {
        let sql = format!(
            "SELECT log_level, log_text FROM system.processing_engine_logs \
             WHERE trigger_name = '{trigger}' ORDER BY event_time"
        );
        let rows = self.query(&sql).await;
        let text = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter()
            .map(|row| LogRow {
                level: text(row, "log_level"),
                text: text(row, "log_text"),
            })
            .collect()
    }

    /// Waits until `count` lines that contain `part` have been logged for the trigger.
    pub async fn until_logged(&self, trigger: &str, count: usize, part: &str) -> Vec<LogRow> {
        let what = format!("{count} log lines of {trigger} contain {part:?}");
        self.until_found(&what, trigger, part, |found| found == count)
            .await
    }

    /// Waits until a line that contains `part` has been logged for the trigger, perhaps again and
    /// again.
    pub async fn until_said(&self, trigger: &str, part: &str) -> Vec<LogRow> {
        let what = format!("a log line of {trigger} contains {part:?}");
        self.until_found(&what, trigger, part, |found| found > 0)
            .await
    }

    async fn until_found(
        &self,
        what: &str,
        trigger: &str,
        part: &str,
        is_enough: impl Fn(usize) -> bool + Sync,
    ) -> Vec<LogRow> {
        eventually(what, async || {
            let logs = self.logs(trigger).await;
            let found = logs.iter().filter(|row| row.text.contains(part));
            let found: Vec<_> = found.cloned().collect();
            if is_enough(found.len()) {
                Ok(found)
            } else {
                Err(format!("{logs:#?}"))
            }
        })
        .await
    }

    async fn all_logs(&self) -> String {
        let sql = "SELECT trigger_name, log_level, log_text FROM system.processing_engine_logs \
                   ORDER BY event_time DESC LIMIT 20";
        self.try_query(sql).await.body
    }

    /// Describes a trigger that runs `plugin` when any table is written to.
    pub fn trigger(&self, name: &str, plugin: &str) -> TriggerBuilder {
        TriggerBuilder {
            database: self.clone(),
            name: name.to_owned(),
            plugin: plugin.to_owned(),
            spec: "all_tables".to_owned(),
            arguments: BTreeMap::new(),
            error_behavior: "log",
            run_async: false,
            timeout: None,
            network: None,
            allow_subprocess: false,
            disabled: false,
        }
    }

    /// Enables a trigger.
    pub async fn enable(&self, trigger: &str) {
        self.switch(trigger, "enable").await;
    }

    /// Disables a trigger.
    pub async fn disable(&self, trigger: &str) {
        self.switch(trigger, "disable").await;
    }

    async fn switch(&self, trigger: &str, position: &str) {
        let parameters = [("db", self.name.as_str()), ("trigger_name", trigger)];
        let request = self
            .client
            .request(Method::POST, &format!("{TRIGGER}/{position}"))
            .query(&parameters);
        self.client.answer(request).await.check_success(position);
    }

    /// Deletes a trigger; whatever the answer is.
    pub async fn delete_trigger(&self, trigger: &str, force: bool) -> Reply {
        let force = if force { "true" } else { "false" };
        let parameters = [("db", self.name.as_str()), ("trigger_name", trigger)];
        let request = self
            .client
            .request(Method::DELETE, TRIGGER)
            .query(&parameters)
            .query(&[("force", force)]);
        self.client.answer(request).await
    }
}

/// A trigger that is about to be created.
#[derive(Clone, Debug)]
pub struct TriggerBuilder {
    database: Database,
    name: String,
    plugin: String,
    spec: String,
    arguments: BTreeMap<String, String>,
    error_behavior: &'static str,
    run_async: bool,
    timeout: Option<&'static str>,
    network: Option<String>,
    allow_subprocess: bool,
    disabled: bool,
}

impl TriggerBuilder {
    /// When it fires, instead of `all_tables`.
    pub fn spec(mut self, spec: &str) -> Self {
        spec.clone_into(&mut self.spec);
        self
    }

    /// Adds an argument.
    pub fn argument(mut self, key: &str, value: &str) -> Self {
        self.arguments.insert(key.to_owned(), value.to_owned());
        self
    }

    /// What happens when the plugin fails, instead of `log`.
    pub fn error_behavior(mut self, behavior: &'static str) -> Self {
        self.error_behavior = behavior;
        self
    }

    /// Its invocations may overlap.
    pub fn asynchronous(mut self) -> Self {
        self.run_async = true;
        self
    }

    /// How long one invocation may take, instead of what the server says.
    pub fn timeout(mut self, timeout: &'static str) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What its plugin may connect to, instead of what the server says.
    pub fn network(mut self, network: &str) -> Self {
        self.network = Some(network.to_owned());
        self
    }

    /// Its plugin may start processes.
    pub fn subprocesses(mut self) -> Self {
        self.allow_subprocess = true;
        self
    }

    /// It waits to be enabled.
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// Creates it.
    pub async fn create(self) {
        self.try_create().await.check_success("create a trigger");
    }

    /// Creates it; whatever the answer is.
    pub async fn try_create(self) -> Reply {
        let arguments = (!self.arguments.is_empty()).then_some(&self.arguments);
        let mut settings =
            json!({ "run_async": self.run_async, "error_behavior": self.error_behavior });
        if let Some(timeout) = self.timeout {
            settings["timeout"] = timeout.into();
        }
        if let Some(network) = self.network {
            settings["network"] = network.into();
        }
        if self.allow_subprocess {
            settings["allow_subprocess"] = true.into();
        }
        let body = json!({
            "db": self.database.name,
            "plugin_filename": self.plugin,
            "trigger_name": self.name,
            "trigger_specification": self.spec,
            "trigger_settings": settings,
            "trigger_arguments": arguments,
            "disabled": self.disabled,
        });
        self.database.client.post(TRIGGER, &body).await
    }
}
