//! Flight SQL: which calls there are, and what each answers.

mod session;
mod tables;
mod ticket;

use std::{collections::BTreeMap, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::writer::IpcWriteOptions};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult, Result as ActionResult,
    SchemaAsIpc, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_descriptor::DescriptorType,
    flight_service_server::{FlightService, FlightServiceServer},
    sql::{
        ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
        ProstMessageExt,
    },
};
use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use outrigger_query::{BatchStream, Param, Plan, QueryEngine};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, service::Routes};

use self::ticket::Question;
use crate::{Deps, error::grpc_status};

/// How long a query may be quiet before an empty batch tells the client that it runs.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The routes of the Flight service.
pub(crate) fn routes(deps: &Deps) -> Router {
    let queries = deps.queries.clone();
    let service = FlightServiceServer::new(Flight { queries })
        .max_decoding_message_size(deps.config.max_request_bytes.0)
        // The encoder cuts large batches, but one row is never cut.
        .max_encoding_message_size(usize::MAX);
    Routes::new(service).into_axum_router()
}

#[derive(Debug)]
struct Flight {
    queries: QueryEngine,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[async_trait]
impl FlightService for Flight {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<ActionResult>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    /// Gives back what the client sent. There is nothing to negotiate: a token, once
    /// there is authentication, comes with every call.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let authorization = session::bearer(request.metadata());
        let asked = request.into_inner().message().await?.unwrap_or_default();
        let answer = HandshakeResponse {
            protocol_version: asked.protocol_version,
            payload: asked.payload,
        };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        if let Some(bearer) = authorization {
            response.metadata_mut().insert("authorization", bearer);
        }
        Ok(response)
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let (metadata, _, descriptor) = request.into_parts();
        if descriptor.r#type() == DescriptorType::Path {
            return Err(Status::unimplemented("descriptors must hold a command"));
        }
        let question = Question::from_command(&descriptor.cmd)?;
        let ticket = question.ticket(&descriptor.cmd);
        let schema = hydrated(self.answer(question, &metadata).await?.schema());
        let info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(internal)?
            .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket)))
            .with_descriptor(descriptor)
            .with_total_records(-1)
            .with_total_bytes(-1);
        Ok(Response::new(info))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let (metadata, _, ticket) = request.into_parts();
        let question = Question::from_ticket(&ticket.ticket)?;
        let answer = self.answer(question, &metadata).await?;
        let schema = answer.schema();
        let batches = keep_alive(schema.clone(), answer.batches().await?);
        let data = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .build(batches)
            .map_err(Status::from);
        Ok(Response::new(data.boxed()))
    }

    /// Prepared statements live in their handles: preparing only plans the query, to
    /// tell the client its columns, and closing does nothing.
    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let (metadata, _, action) = request.into_parts();
        let results = match action.r#type.as_str() {
            "CreatePreparedStatement" => vec![self.prepare(&action.body, &metadata).await?],
            "ClosePreparedStatement" => Vec::new(),
            other => return Err(Status::unimplemented(format!("no such action: {other}"))),
        };
        let results = stream::iter(results.into_iter().map(Ok));
        Ok(Response::new(results.boxed()))
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        Err(unimplemented("GetSchema"))
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(unimplemented("ListFlights"))
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(unimplemented("PollFlightInfo"))
    }

    async fn do_put(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        Err(unimplemented("DoPut"))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(unimplemented("DoExchange"))
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(unimplemented("ListActions"))
    }
}

impl Flight {
    async fn answer(&self, question: Question, metadata: &MetadataMap) -> Result<Answer, Status> {
        match question {
            Question::Sql(sql) => {
                session::refuse_influxql(metadata)?;
                let database = session::database(metadata)?;
                self.plan(&database, &sql, Params::new()).await
            }
            Question::Native(native) => {
                self.plan(&native.database, &native.sql, native.params)
                    .await
            }
            Question::About(command) => {
                let batch = tables::describe(&self.queries, *command, metadata).await?;
                Ok(Answer::Batch(batch))
            }
        }
    }

    async fn plan(&self, database: &str, sql: &str, params: Params) -> Result<Answer, Status> {
        let plan = self.queries.plan(database, sql, params).await;
        let plan = plan.map_err(|error| grpc_status(&error))?;
        Ok(Answer::Plan(Box::new(plan)))
    }

    async fn prepare(&self, body: &[u8], metadata: &MetadataMap) -> Result<ActionResult, Status> {
        let request: ActionCreatePreparedStatementRequest = Any::decode(body)
            .map_err(|error| Status::invalid_argument(error.to_string()))?
            .unpack()
            .map_err(|error| Status::invalid_argument(error.to_string()))?
            .ok_or_else(|| Status::invalid_argument("the action's body is of another type"))?;
        let question = Question::Sql(request.query.clone());
        let schema = hydrated(self.answer(question, metadata).await?.schema());
        let options = IpcWriteOptions::default();
        let IpcMessage(dataset_schema) = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(internal)?;
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: request.query.into(),
            dataset_schema,
            parameter_schema: Bytes::new(),
        };
        Ok(ActionResult::new(result.as_any().encode_to_vec()))
    }
}

type Params = BTreeMap<String, Param>;

/// What a question leads to.
#[derive(Debug)]
enum Answer {
    Plan(Box<Plan>),
    Batch(RecordBatch),
}

impl Answer {
    fn schema(&self) -> SchemaRef {
        match self {
            Self::Plan(plan) => plan.schema().clone(),
            Self::Batch(batch) => batch.schema(),
        }
    }

    async fn batches(self) -> Result<BatchStream, Status> {
        match self {
            Self::Plan(plan) => {
                let batches = plan.execute().await;
                batches.map_err(|error| grpc_status(&error))
            }
            Self::Batch(batch) => Ok(stream::iter([Ok(batch)]).boxed()),
        }
    }
}

/// The batches, and empty ones while there are none.
fn keep_alive(
    schema: SchemaRef,
    batches: BatchStream,
) -> BoxStream<'static, Result<RecordBatch, FlightError>> {
    let ticks = tokio::time::interval_at(
        tokio::time::Instant::now() + KEEP_ALIVE_INTERVAL,
        KEEP_ALIVE_INTERVAL,
    );
    let batches =
        tokio_stream::StreamExt::timeout_repeating(batches, ticks).map(move |next| match next {
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(error)) => Err(FlightError::Tonic(Box::new(grpc_status(&error)))),
            Err(_elapsed) => Ok(RecordBatch::new_empty(schema.clone())),
        });
    batches.boxed()
}

/// The schema as it is on the wire, where dictionaries are plain columns. Asks the
/// encoder, so that what is announced is what is sent.
fn hydrated(schema: SchemaRef) -> SchemaRef {
    FlightDataEncoderBuilder::new()
        .with_schema(schema.clone())
        .build(stream::empty())
        .known_schema()
        .unwrap_or(schema)
}

fn internal(error: arrow::error::ArrowError) -> Status {
    Status::internal(error.to_string())
}

fn unimplemented(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not supported"))
}
