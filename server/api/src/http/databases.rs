//! `/api/v3/configure/database`: creates, lists and deletes databases.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringArray},
    compute::kernels::cast_utils::string_to_timestamp_nanos,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use futures::{StreamExt, stream};
use http::StatusCode;
use outrigger_model::names::INTERNAL_DATABASE;
use outrigger_query::QueryError;
use serde::Deserialize;

use super::{Shared, empty, query, request};
use crate::error::HttpError;

#[derive(Debug, Deserialize)]
struct ListParams {
    format: String,
    #[serde(default)]
    show_deleted: bool,
}

#[derive(Debug, Deserialize)]
struct CreateBody {
    db: String,
    retention_period: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeleteParams {
    db: String,
    hard_delete_at: Option<String>,
}

/// All databases, the server's own among them.
pub(crate) async fn list(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let params: ListParams = request::parse_query(request.uri())?;
    let format = query::parse_format(&params.format)?;
    let catalog = shared.storage.catalog();
    let names = catalog.databases().map(|database| database.name.as_str());
    let mut names: Vec<&str> = names.chain([INTERNAL_DATABASE]).collect();
    names.sort_unstable();
    let deleted = BooleanArray::from(vec![false; names.len()]);
    let mut columns = vec![(
        "iox::database",
        Arc::new(StringArray::from(names)) as ArrayRef,
    )];
    if params.show_deleted {
        // A deleted database is gone at once; see `delete`.
        columns.push(("deleted", Arc::new(deleted)));
    }
    let rows = RecordBatch::try_from_iter(columns).map_err(QueryError::Format)?;
    let schema = rows.schema();
    let text = format.encode(schema, stream::iter([Ok(rows)]).boxed());
    query::respond(format, text).await
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let CreateBody {
        db,
        retention_period,
    } = request::json(request, shared.config.max_request_bytes).await?;
    if retention_period.is_some() {
        return Err(HttpError::invalid(
            "retention_period is not supported yet; create the database without it",
        ));
    }
    shared
        .storage
        .change(move |catalog| catalog.create_database(&db).map(Some))
        .await?;
    Ok(empty(StatusCode::OK))
}

/// Deletes a database. In this version every deletion is immediate and complete,
/// whatever `hard_delete_at` says: there is no soft deletion yet from which a database
/// could come back, so the value is checked and has no other effect.
pub(crate) async fn delete(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let DeleteParams { db, hard_delete_at } = request::parse_query(request.uri())?;
    check_hard_delete_at(hard_delete_at.as_deref().unwrap_or("default"))?;
    shared
        .storage
        .change(move |catalog| catalog.delete_database(&db).map(Some))
        .await?;
    Ok(empty(StatusCode::OK))
}

fn check_hard_delete_at(text: &str) -> Result<(), HttpError> {
    if matches!(text, "never" | "now" | "default") {
        return Ok(());
    }
    string_to_timestamp_nanos(text).map_err(|error| {
        HttpError::invalid(format!(
            "invalid hard_delete_at {text:?}, expected never, now, default or an RFC 3339 time: \
             {error}"
        ))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_hard_deletion_are_checked() {
        for good in ["never", "now", "default", "2030-01-01T00:00:00Z"] {
            assert!(check_hard_delete_at(good).is_ok(), "{good}");
        }
        for bad in ["", "soon", "tomorrow"] {
            assert!(check_hard_delete_at(bad).is_err(), "{bad}");
        }
    }
}
