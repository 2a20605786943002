//! The Arrow Flight service that workers fetch rows from: `DoGet` only.

mod wire;

use std::sync::{Arc, atomic::Ordering};

use arrow::array::RecordBatch;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
    error::FlightError, flight_service_server::FlightService,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use outrigger_model::{error::ErrorKind, trace::Span};
use outrigger_proto::v1::{
    FileRows, FlightTicket, Query, Value as ProtoValue, flight_ticket, value,
};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use self::wire::encode;
use super::peer;
use crate::{
    backend::{BackendError, QueryRequest, QueryStream, Value},
    offers::Offered,
    registry::{Active, Registry},
};

#[derive(Debug)]
pub(super) struct Data {
    registry: Arc<Registry>,
}

impl Data {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    async fn query(&self, active: &Active, query: Query) -> Result<FlightStream, Status> {
        let parameters = query
            .parameters
            .into_iter()
            .map(|(name, value)| (name, parameter(value)))
            .collect();
        let target = (!query.target.is_empty()).then_some(query.target);
        let request = QueryRequest {
            text: query.sql,
            target,
            parameters,
        };
        let (mut span, scope) = active.begin_call("query");
        if let Some(span) = &mut span {
            span.set("query.text", request.text.as_str());
        }
        let query = self.registry.backend.query(&scope, request);
        answer(active, span, query).await
    }

    /// Rows of a file of the event.
    async fn read(&self, active: &Active, wanted: FileRows) -> Result<FlightStream, Status> {
        let file = active.fetchable.files.get(wanted.index as usize);
        let file = file.ok_or_else(|| Status::invalid_argument("the event has no such file"))?;
        let (mut span, scope) = active.begin_call("read file");
        if let Some(span) = &mut span {
            span.set("file.path", file.path.as_str());
        }
        let end = match wanted.rows_max {
            0 => u64::MAX,
            rows => wanted.first.saturating_add(rows),
        };
        let read = self.registry.backend.read(&scope, file, wanted.first..end);
        answer(active, span, read).await
    }
}

/// What the backend answers to a call, as a stream with which the call's span ends.
async fn answer(
    active: &Active,
    mut span: Option<Span>,
    call: impl Future<Output = Result<QueryStream, BackendError>>,
) -> Result<FlightStream, Status> {
    let begun = active
        .call(async { call.await.map_err(|error| status(&error)) })
        .await;
    let QueryStream { schema, batches } = begun.inspect_err(|error| {
        if let Some(span) = &mut span {
            span.fail(&error.message());
        }
    })?;
    let batches = batches.map_err(move |error| {
        if let Some(span) = &mut span {
            span.fail(&error);
        }
        FlightError::from(status(&error))
    });
    Ok(encode(schema, batches.boxed()))
}

type FlightStream = BoxStream<'static, Result<FlightData, Status>>;

#[tonic::async_trait]
impl FlightService for Data {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = FlightStream;

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let peer = peer(request.extensions());
        let ticket = FlightTicket::decode(request.into_inner().ticket)
            .map_err(|_invalid| Status::invalid_argument("the ticket cannot be read"))?;
        let active = self
            .registry
            .authorize(&ticket.invocation, &ticket.key, peer.as_deref())?;
        let stream = match ticket.what {
            Some(flight_ticket::What::Batch(index)) => {
                let (span, _) = active.begin_call("fetch rows");
                until_over(batch(&active, index)?, span)
            }
            Some(flight_ticket::What::Query(query)) => self.query(&active, query).await?,
            Some(flight_ticket::What::File(wanted)) => self.read(&active, wanted).await?,
            None => return Err(Status::invalid_argument("the ticket asks for nothing")),
        };
        // What is not fetched when the invocation ends is not fetched at all.
        let over = active.over.clone().cancelled_owned();
        let counting = active.clone();
        let counted = stream.inspect_ok(move |data| {
            let bytes = data.data_body.len() as u64;
            counting.moved.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        });
        let offered = Offered::new(counted.boxed(), active.offers.clone());
        Ok(Response::new(offered.take_until(over).boxed()))
    }

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(only_do_get())
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(only_do_get())
    }

    async fn get_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Err(only_do_get())
    }

    async fn poll_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(only_do_get())
    }

    async fn get_schema(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        Err(only_do_get())
    }

    async fn do_put(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        Err(only_do_get())
    }

    async fn do_action(
        &self,
        _request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        Err(only_do_get())
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(only_do_get())
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(only_do_get())
    }
}

/// The stream, and a span that ends with it.
fn until_over(stream: FlightStream, span: Option<Span>) -> FlightStream {
    let keep = move |item| {
        let _kept = &span;
        item
    };
    stream.map(keep).boxed()
}

fn only_do_get() -> Status {
    Status::unimplemented("workers have only DoGet")
}

fn batch(active: &Active, index: u32) -> Result<FlightStream, Status> {
    let table = active
        .fetchable
        .tables
        .get(index as usize)
        .ok_or_else(|| Status::invalid_argument("the event has no such table"))?;
    let schema = table.batches.first().map(RecordBatch::schema);
    let schema = schema.ok_or_else(|| Status::internal("the table has no batch"))?;
    let batches: Vec<Result<RecordBatch, FlightError>> =
        table.batches.iter().cloned().map(Ok).collect();
    Ok(encode(schema, stream::iter(batches).boxed()))
}

fn status(error: &BackendError) -> Status {
    let message = error.message.clone();
    match error.kind {
        ErrorKind::Invalid => Status::invalid_argument(message),
        ErrorKind::NotFound => Status::not_found(message),
        ErrorKind::Conflict => Status::failed_precondition(message),
        ErrorKind::Exhausted => Status::resource_exhausted(message),
        ErrorKind::Unavailable => Status::unavailable(message),
        ErrorKind::Deadline => Status::deadline_exceeded(message),
        ErrorKind::Internal => Status::internal(message),
    }
}

fn parameter(value: ProtoValue) -> Value {
    match value.kind {
        None | Some(value::Kind::Null(_)) => Value::Null,
        Some(value::Kind::Boolean(value)) => Value::Bool(value),
        Some(value::Kind::Int(value)) => Value::Int(value),
        Some(value::Kind::Uint(value)) => Value::Uint(value),
        Some(value::Kind::Float(value)) => Value::Float(value),
        Some(value::Kind::Text(value)) => Value::Text(value),
        Some(value::Kind::List(list)) => {
            Value::List(list.items.into_iter().map(parameter).collect())
        }
        Some(value::Kind::Map(map)) => {
            let members = map.members.into_iter();
            Value::Map(
                members
                    .map(|(name, value)| (name, parameter(value)))
                    .collect(),
            )
        }
    }
}
