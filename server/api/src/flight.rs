//! Flight SQL: which calls there are, and what each answers.

mod metadata;
mod tables;
mod ticket;

use std::pin::Pin;

use arrow::datatypes::SchemaRef;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult, Result as ActionResult,
    SchemaAsIpc, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_descriptor::DescriptorType,
    flight_service_server::{FlightService, FlightServiceServer},
    sql::{
        ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command,
        ProstMessageExt, TicketStatementQuery,
    },
};
use axum::Router;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, service::Routes};

use crate::{Deps, error::grpc_status};

use self::ticket::Question;
