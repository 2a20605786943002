//! The workers' private Unix socket, and the two services on it.

mod cache;
mod control;
mod flight;
mod quiet;
mod socket;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use outrigger_model::{error::Report, shutdown::Gate};
use outrigger_proto::{
    FROM_WORKER_BYTES_MAX, TICKET_BYTES_MAX, v1::supervisor_server::SupervisorServer,
};
use tokio::net::UnixListener;
use tonic::{Extensions, transport::Server};
use tracing::error;

pub(crate) use self::socket::{Arrivals, Entrance};
use self::{control::Control, flight::Data};
use crate::{
    error::SupervisorError, peer::Peer, registry::Registry, worker::intervals::PING_EVERY,
};

/// The most bytes of one message to a worker: a plugin's source is the largest.
const TO_WORKER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How many calls one connection may have open, its control stream among them: an invocation
/// makes 8 at a time. Each may hold a message of the largest size, so this bounds memory.
const CALLS_MAX: u32 = 12;
/// How many bytes of one stream may wait to be read: then the worker waits.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// How many bytes of one connection may. h2 ends a connection on which small frames wait that
/// cost it more than half of this, at 256 bytes each; a stream full of short log lines must
/// make its worker wait before that, so this is 64 times as much.
const CONNECTION_WINDOW_BYTES: u32 = 64 * STREAM_WINDOW_BYTES;
/// The headers of one call: what gRPC libraries send has a few hundred bytes.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// When a connection is given up whose peer does not answer pings: never in practice. A
/// stopped worker is reported, and only its deadline ends it.
const PING_ANSWER_MAX: Duration = Duration::from_hours(24 * 365);

/// Makes the socket, for this user only, and the entrance beside it.
pub(crate) fn listen(path: &Path) -> Result<(Arrivals, Entrance), SupervisorError> {
    let failed = |source: io::Error| SupervisorError::Socket {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Arrivals::new(listener))
}

/// Serves workers until the gate closes and the last worker has gone.
pub(crate) async fn serve(
    arrivals: Arrivals,
    registry: Arc<Registry>,
    workers_max: usize,
    gate: Gate,
) {
    let control = SupervisorServer::new(Control::new(registry.clone(), gate.clone()))
        .max_decoding_message_size(FROM_WORKER_BYTES_MAX)
        .max_encoding_message_size(TO_WORKER_BYTES_MAX);
    let data = FlightServiceServer::new(Data::new(registry))
        .max_decoding_message_size(TICKET_BYTES_MAX)
        .max_encoding_message_size(TO_WORKER_BYTES_MAX);
    // Pings tell a frozen process from a busy one: their answers are noted by the socket,
    // see `worker/liveness.rs`.
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX as usize)
        .max_concurrent_streams(CALLS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_ANSWER_MAX))
        .add_service(control)
        .add_service(data)
        .serve_with_incoming_shutdown(
            socket::incoming(arrivals, workers_max),
            gate.token().clone().cancelled_owned(),
        );
    if let Err(error) = served.await {
        error!(error = %Report(&error), "the workers' socket has failed");
    }
}

/// The process at the other end of a connection.
fn peer(extensions: &Extensions) -> Option<Arc<Peer>> {
    extensions.get::<Arc<Peer>>().cloned()
}
