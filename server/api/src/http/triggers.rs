//! `/api/v3/configure/processing_engine_trigger`: creates, deletes, enables and disables
//! triggers. What a trigger may be is decided by the [`TriggerService`](outrigger_triggers::TriggerService).

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{StatusCode, Uri};
use outrigger_catalog::{grants::Grants, trigger::ErrorBehavior};
use outrigger_sandbox::Network;
use outrigger_triggers::{CreateTrigger, Start};
use serde::Deserialize;
use serde_json::Value;

use super::{Shared, empty, plugins, request};
use crate::error::HttpError;

/// More tolerant than 3.10, because its documentation is: settings may be missing,
/// their case does not matter, arguments may be any scalar.
#[derive(Debug, Deserialize)]
struct CreateBody {
    db: String,
    plugin_filename: String,
    trigger_name: String,
    trigger_specification: String,
    #[serde(default)]
    trigger_settings: Option<Settings>,
    #[serde(default)]
    trigger_arguments: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Settings {
    #[serde(default)]
    run_async: bool,
    #[serde(default)]
    error_behavior: Option<String>,
    /// Ours: how long one run may take, for example "30s".
    #[serde(default)]
    timeout: Option<String>,
    /// Ours: "now" or "earliest".
    #[serde(default)]
    start: Option<String>,
    /// Ours: "none", "outbound" or "HOST:PORT,…".
    #[serde(default)]
    network: Option<String>,
    /// Ours: whether the plugin may start processes.
    #[serde(default)]
    allow_subprocess: bool,
}

#[derive(Debug, Deserialize)]
struct DeleteParams {
    db: String,
    trigger_name: String,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
struct NameParams {
    db: String,
    trigger_name: String,
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    if request.uri().query().is_some() {
        return Err(HttpError::invalid(
            "serde error: a trigger is described by a JSON body, not by a query string",
        ));
    }
    let page = plugins::refuse_pages(&request);
    let body: CreateBody = request::json(request, shared.config.max_request_bytes).await?;
    if body.plugin_filename.starts_with("gh:") {
        // Code that is not here yet.
        page?;
    }
    let database = body.db.clone();
    shared
        .triggers
        .create(&database, body.into_request()?)
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn delete(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let params: DeleteParams =
        request::query_or_json(request, shared.config.max_request_bytes).await?;
    shared
        .triggers
        .delete(&params.db, &params.trigger_name, params.force)
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn enable(State(shared): State<Shared>, uri: Uri) -> Result<Response, HttpError> {
    set_disabled(&shared, &uri, false).await
}

pub(crate) async fn disable(State(shared): State<Shared>, uri: Uri) -> Result<Response, HttpError> {
    set_disabled(&shared, &uri, true).await
}

async fn set_disabled(shared: &Shared, uri: &Uri, disabled: bool) -> Result<Response, HttpError> {
    let params: NameParams = request::parse_query(uri)?;
    shared
        .triggers
        .set_disabled(&params.db, &params.trigger_name, disabled)
        .await?;
    Ok(empty(StatusCode::OK))
}

impl CreateBody {
    fn into_request(self) -> Result<CreateTrigger, HttpError> {
        let settings = self.trigger_settings.unwrap_or_default();
        let error_behavior = match settings.error_behavior {
            None => ErrorBehavior::default(),
            Some(name) => name
                .parse()
                .map_err(|text: String| HttpError::invalid(text))?,
        };
        let trigger_arguments = self
            .trigger_arguments
            .map(|arguments| arguments.into_iter().map(argument).collect())
            .transpose()?;
        Ok(CreateTrigger {
            trigger_name: self.trigger_name,
            plugin_filename: self.plugin_filename,
            trigger_specification: self.trigger_specification,
            trigger_arguments,
            run_async: settings.run_async,
            error_behavior,
            disabled: self.disabled,
            timeout: settings.timeout.as_deref().map(timeout).transpose()?,
            start: start(settings.start.as_deref())?,
            grants: Grants {
                network: settings.network.as_deref().map(network).transpose()?,
                subprocesses: settings.allow_subprocess,
            },
        })
    }
}

/// How long a run may take.
pub(super) fn timeout(text: &str) -> Result<Duration, HttpError> {
    let refuse = |error| HttpError::invalid(format!("timeout {text:?} is no duration: {error}"));
    humantime::parse_duration(text).map_err(refuse)
}

fn network(text: &str) -> Result<Network, HttpError> {
    let refuse = |error| HttpError::invalid(format!("network {text:?} is not known: {error}"));
    text.parse().map_err(refuse)
}

fn start(text: Option<&str>) -> Result<Start, HttpError> {
    match text {
        None | Some("now") => Ok(Start::Now),
        Some("earliest") => Ok(Start::Earliest),
        Some(other) => Err(HttpError::invalid(format!(
            "unknown start {other:?}, expected now or earliest"
        ))),
    }
}

/// An argument as the plugin gets it: always text.
pub(super) fn argument((key, value): (String, Value)) -> Result<(String, String), HttpError> {
    if key.trim().is_empty() {
        return Err(HttpError::invalid(format!(
            "the argument with the value {value} has no name"
        )));
    }
    let text = match value {
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(HttpError::invalid(format!(
                "argument {key:?} must be a string, a number or a boolean"
            )));
        }
    };
    Ok((key, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_may_be_missing_and_arguments_may_be_scalars() {
        let body = json!({
            "db": "db", "plugin_filename": "p.py", "trigger_name": "t",
            "trigger_specification": "all_tables", "trigger_settings": {
                "error_behavior": "Retry", "network": "a:1", "allow_subprocess": true,
            },
            "trigger_arguments": {"a": "x", "b": 2, "c": true},
        });
        let request = parse(body).unwrap();
        assert_eq!(request.error_behavior, ErrorBehavior::Retry);
        assert!(!request.run_async && !request.disabled);
        assert_eq!(request.grants.network, Some("a:1".parse().unwrap()));
        assert!(request.grants.subprocesses);
        let arguments = request.trigger_arguments.unwrap();
        let values: Vec<&str> = arguments.values().map(String::as_str).collect();
        assert_eq!(values, ["x", "2", "true"]);
    }

    #[test]
    fn nested_arguments_and_unknown_behaviors_are_refused() {
        for (field, value) in [
            ("trigger_arguments", json!({"a": [1]})),
            ("trigger_arguments", json!({"": "5"})),
            ("trigger_settings", json!({"error_behavior": "panic"})),
            ("trigger_settings", json!({"timeout": "soon"})),
            ("trigger_settings", json!({"start": "yesterday"})),
            ("trigger_settings", json!({"network": "internet"})),
            ("trigger_settings", json!({"allow_subprocess": "yes"})),
        ] {
            let mut body = json!({
                "db": "db", "plugin_filename": "p.py", "trigger_name": "t",
                "trigger_specification": "all_tables", "disabled": true,
            });
            body[field] = value;
            let body = serde_json::from_value::<CreateBody>(body);
            let refused = body.map_or(true, |body| body.into_request().is_err());
            assert!(refused, "{field}");
        }
    }

    fn parse(body: Value) -> Result<CreateTrigger, HttpError> {
        serde_json::from_value::<CreateBody>(body)
            .unwrap()
            .into_request()
    }
}
