//! `/api/v3/configure/plugin_environment`: what plugins can import. What may be installed, and
//! how, is decided by [`Packages`](outrigger_supervisor::environment::Packages).

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use outrigger_supervisor::environment::Wanted;
use serde::Deserialize;

use super::{Shared, empty, plugins::refuse_pages, request};
use crate::error::HttpError;

#[derive(Debug, Deserialize)]
struct PackagesBody {
    packages: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct RequirementsBody {
    requirements_location: String,
}

/// A list cannot be said in a query string, so one is always an error, as in 3.10.
pub(crate) async fn install_packages(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    refuse_pages(&request)?;
    let body: PackagesBody =
        request::query_or_json(request, shared.config.max_request_bytes).await?;
    shared
        .packages
        .install(Wanted::Packages(body.packages))
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn install_requirements(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    refuse_pages(&request)?;
    let body: RequirementsBody =
        request::query_or_json(request, shared.config.max_request_bytes).await?;
    shared
        .packages
        .install(Wanted::Requirements(body.requirements_location))
        .await?;
    Ok(empty(StatusCode::OK))
}
