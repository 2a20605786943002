//! `/api/v3/configure/table`: creates and deletes tables.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use outrigger_model::schema::ColumnType;
use serde::Deserialize;

use super::{Shared, databases::parse_hard_delete_at, empty, request};
use crate::error::HttpError;

#[derive(Debug, Deserialize)]
struct CreateBody {
    db: String,
    table: String,
    tags: Vec<String>,
    fields: Vec<FieldBody>,
}

#[derive(Debug, Deserialize)]
struct FieldBody {
    name: String,
    #[serde(rename = "type")]
    field_type: FieldType,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FieldType {
    Utf8,
    Int64,
    Uint64,
    Float64,
    Bool,
}

impl From<FieldType> for ColumnType {
    fn from(field: FieldType) -> Self {
        match field {
            FieldType::Utf8 => Self::Utf8,
            FieldType::Int64 => Self::Int64,
            FieldType::Uint64 => Self::Uint64,
            FieldType::Float64 => Self::Float64,
            FieldType::Bool => Self::Bool,
        }
    }
}

#[derive(Debug, Deserialize)]
struct DeleteParams {
    db: String,
    table: String,
    hard_delete_at: Option<String>,
}

/// Creates a table, and its database if need be.
pub(crate) async fn create(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let body: CreateBody = request::json(request, shared.config.max_request_bytes).await?;
    let tags = body.tags.into_iter().map(|tag| (tag, ColumnType::Tag));
    let fields = body.fields.into_iter();
    let fields = fields.map(|field| (field.name, field.field_type.into()));
    let columns = tags.chain(fields).collect();
    let storage = &shared.storage;
    storage.create_table(&body.db, &body.table, columns).await?;
    Ok(empty(StatusCode::OK))
}

/// Deletes a table. It has another name from then on, under which it can be read until its
/// rows go.
pub(crate) async fn delete(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let params: DeleteParams = request::parse_query(request.uri())?;
    let asked = parse_hard_delete_at(params.hard_delete_at.as_deref())?;
    let storage = &shared.storage;
    storage
        .delete_table(&params.db, &params.table, asked)
        .await?;
    Ok(empty(StatusCode::OK))
}
