//! `/api/v3/configure/database`: creates, lists and deletes databases, and says how long they
//! keep rows.

use std::{sync::Arc, time::Duration};

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
use outrigger_catalog::{Catalog, deletion::HardDelete};
use outrigger_model::{clock::Timestamp, names::INTERNAL_DATABASE};
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
struct RetentionBody {
    db: String,
    retention_period: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeleteParams {
    db: String,
    hard_delete_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RetentionParams {
    db: String,
    duration: String,
}

#[derive(Debug, Deserialize)]
struct DatabaseParams {
    db: String,
}

/// All databases, the server's own among them.
pub(crate) async fn list(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let params: ListParams = request::parse_query(request.uri())?;
    let format = query::parse_format(&params.format)?;
    let catalog = shared.storage.catalog();
    let databases = catalog.databases();
    let all = databases.map(|database| (database.name.as_str(), database.deletion.is_some()));
    let mut all: Vec<(&str, bool)> = all
        .chain([(INTERNAL_DATABASE, false)])
        .filter(|(_, deleted)| params.show_deleted || !deleted)
        .collect();
    all.sort_unstable();
    let names = StringArray::from_iter_values(all.iter().map(|(name, _)| name));
    let mut columns = vec![("iox::database", Arc::new(names) as ArrayRef)];
    if params.show_deleted {
        let deleted: BooleanArray = all.iter().map(|(_, deleted)| Some(*deleted)).collect();
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
    let body: RetentionBody = request::json(request, shared.config.max_request_bytes).await?;
    let retention = parse_retention(body.retention_period.as_deref())?;
    shared
        .storage
        .change(move |catalog| catalog.create_database(&body.db, retention).map(Some))
        .await?;
    Ok(empty(StatusCode::OK))
}

/// Changes how long a database keeps rows; without a time, forever.
pub(crate) async fn update(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let body: RetentionBody = request::json(request, shared.config.max_request_bytes).await?;
    set_retention(&shared, body.db, body.retention_period.as_deref()).await?;
    Ok(empty(StatusCode::OK))
}

/// The same with parameters in the URL.
pub(crate) async fn put_retention(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let RetentionParams { db, duration } = request::parse_query(request.uri())?;
    set_retention(&shared, db, Some(&duration)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Has a database keep its rows forever.
pub(crate) async fn delete_retention(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let DatabaseParams { db } = request::parse_query(request.uri())?;
    set_retention(&shared, db, None).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn set_retention(
    shared: &Shared,
    database: String,
    retention: Option<&str>,
) -> Result<(), HttpError> {
    let retention = parse_retention(retention)?;
    let change = move |catalog: &Catalog| catalog.set_retention(&database, retention);
    Ok(shared.storage.change(change).await?)
}

/// How long rows are kept; forever if nothing is said.
fn parse_retention(text: Option<&str>) -> Result<Option<Duration>, HttpError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let refuse = |reason: &str| {
        HttpError::invalid(format!(
            "invalid retention period {text:?}, expected a duration such as 7d, 36h or \"1h 30m\": \
             {reason}"
        ))
    };
    let retention = humantime::parse_duration(text).map_err(|error| refuse(&error.to_string()))?;
    if retention.is_zero() {
        return Err(refuse("it must be longer than 0s"));
    }
    if i64::try_from(retention.as_nanos()).is_err() {
        return Err(refuse(
            "it is longer than 292 years: leave it out to keep rows forever",
        ));
    }
    Ok(Some(retention))
}

/// Deletes a database. It has another name from then on, under which it can be read until
/// its data goes.
pub(crate) async fn delete(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, HttpError> {
    let DeleteParams { db, hard_delete_at } = request::parse_query(request.uri())?;
    let asked = parse_hard_delete_at(hard_delete_at.as_deref())?;
    shared.storage.delete_database(&db, asked).await?;
    Ok(empty(StatusCode::OK))
}

/// When the data of what is deleted goes; nothing if that is the server's to say.
pub(super) fn parse_hard_delete_at(text: Option<&str>) -> Result<Option<HardDelete>, HttpError> {
    let Some(text) = text else {
        return Ok(None);
    };
    match text.to_ascii_lowercase().as_str() {
        "never" => Ok(Some(HardDelete::Never)),
        "default" => Ok(None),
        // Any time that has passed is as good.
        "now" => Ok(Some(HardDelete::At(Timestamp(0)))),
        _ => string_to_timestamp_nanos(text)
            .map(|nanos| Some(HardDelete::At(Timestamp(nanos))))
            .map_err(|error| {
                HttpError::invalid(format!(
                    "invalid hard_delete_at {text:?}, expected never, now, default or an RFC 3339 \
                     time: {error}"
                ))
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_hard_deletion_are_understood() {
        let parse = |text| parse_hard_delete_at(Some(text));
        assert_eq!(parse("never").unwrap(), Some(HardDelete::Never));
        assert_eq!(parse("default").unwrap(), None);
        let time = HardDelete::At(Timestamp(1_893_456_000_000_000_000));
        for text in ["2030-01-01T00:00:00Z", "2030-01-01T02:00:00+02:00"] {
            assert_eq!(parse(text).unwrap(), Some(time), "{text}");
        }
        for bad in ["", "soon", "tomorrow"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn retention_periods_are_understood() {
        let week = Some(Duration::from_hours(7 * 24));
        assert_eq!(parse_retention(Some("7d")).unwrap(), week);
        assert_eq!(parse_retention(None).unwrap(), None);
        for bad in ["", "0s", "soon", "-1d", "10000y"] {
            assert!(parse_retention(Some(bad)).is_err(), "{bad}");
        }
    }
}
