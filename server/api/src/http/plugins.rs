//! `/api/v3/plugins`: what clients put into the plugin directory. Where they may is decided
//! by the [`TriggerService`](outrigger_triggers::TriggerService).

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{StatusCode, header};
use outrigger_triggers::UploadedFile;
use serde::Deserialize;

use super::{Shared, empty, request};
use crate::error::HttpError;

/// `plugin_name` is a path in the plugin directory, or a trigger's name.
#[derive(Debug, Deserialize)]
struct FileBody {
    plugin_name: String,
    content: String,
}

#[derive(Debug, Deserialize)]
struct DirectoryBody {
    /// The trigger's name.
    plugin_name: String,
    files: Vec<DirectoryFile>,
}

#[derive(Debug, Deserialize)]
struct DirectoryFile {
    relative_path: String,
    content: String,
}

/// Ours.
#[derive(Debug, Deserialize)]
struct RepositoryBody {
    /// The trigger's name.
    plugin_name: String,
    /// `gh:` and a path.
    plugin_filename: String,
}

/// Unlike in 3.10, the database counts if it is there.
#[derive(Debug, Deserialize)]
struct Params {
    db: Option<String>,
}

/// Refuses what a web page sends. Without authentication, any page that its user looks at
/// could otherwise run code on a server that listens on the user's own machine.
pub(super) fn refuse_pages(request: &Request) -> Result<(), HttpError> {
    if !request.headers().contains_key(header::ORIGIN) {
        return Ok(());
    }
    let text =
        "plugins and packages cannot come from a web page while the server has no authentication";
    Err(HttpError::with_status(StatusCode::FORBIDDEN, text))
}

pub(crate) async fn upload(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    refuse_pages(&request)?;
    let body: FileBody = request::json(request, shared.config.max_request_bytes).await?;
    shared
        .triggers
        .upload_file(&body.plugin_name, body.content)
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn update(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    refuse_pages(&request)?;
    let params: Params = request::parse_query(request.uri())?;
    let body: FileBody = request::json(request, shared.config.max_request_bytes).await?;
    shared
        .triggers
        .update_file(params.db.as_deref(), &body.plugin_name, body.content)
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn update_directory(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    refuse_pages(&request)?;
    let params: Params = request::parse_query(request.uri())?;
    let body: DirectoryBody = request::json(request, shared.config.max_request_bytes).await?;
    let files = body.files.into_iter().map(|file| UploadedFile {
        relative_path: file.relative_path,
        content: file.content,
    });
    shared
        .triggers
        .update_directory(params.db.as_deref(), &body.plugin_name, files.collect())
        .await?;
    Ok(empty(StatusCode::OK))
}

/// Ours: has a trigger run what the repository has now.
pub(crate) async fn update_from_repository(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    refuse_pages(&request)?;
    let params: Params = request::parse_query(request.uri())?;
    let body: RepositoryBody = request::json(request, shared.config.max_request_bytes).await?;
    let (trigger, plugin) = (&body.plugin_name, &body.plugin_filename);
    shared
        .triggers
        .update_from_repository(params.db.as_deref(), trigger, plugin)
        .await?;
    Ok(empty(StatusCode::OK))
}
