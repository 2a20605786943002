//! The workers' private Unix socket, and the two services on it.

mod cache;
mod control;
mod flight;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use arrow_flight::flight_service_server::FlightServiceServer;
use outrigger_model::{error::Report, shutdown::Gate};
use outrigger_proto::{
    FROM_WORKER_BYTES_MAX, TICKET_BYTES_MAX, v1::supervisor_server::SupervisorServer,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Extensions,
    transport::{Server, server::UdsConnectInfo},
};
use tracing::error;

use self::{control::Control, flight::Data};
use crate::{error::SupervisorError, registry::Registry};

/// The most bytes of one message to a worker: a plugin's source is the largest.
const TO_WORKER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How many calls one connection may have open, its control stream among them.
const CALLS_MAX: usize = 32;
/// How many bytes of one stream may wait to be read: then the worker waits.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// How many bytes of one connection may. h2 ends a connection on which small frames wait that
/// cost it more than half of this, at 256 bytes each; a stream full of short log lines must
/// make its worker wait before that, so this is 64 times as much.
const CONNECTION_WINDOW_BYTES: u32 = 64 * STREAM_WINDOW_BYTES;

/// Makes the socket, for this user only.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, SupervisorError> {
    let failed = |source: io::Error| SupervisorError::Socket {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves workers until the gate closes and the last worker has gone.
pub(crate) async fn serve(listener: UnixListener, registry: Arc<Registry>, gate: Gate) {
    let control = SupervisorServer::new(Control::new(registry.clone(), gate.clone()))
        .max_decoding_message_size(FROM_WORKER_BYTES_MAX)
        .max_encoding_message_size(TO_WORKER_BYTES_MAX);
    let data = FlightServiceServer::new(Data::new(registry))
        .max_decoding_message_size(TICKET_BYTES_MAX)
        .max_encoding_message_size(TO_WORKER_BYTES_MAX);
    // No keepalive: the kernel closes the socket of a process that ends, and one that is
    // only slow or stopped is ended by its deadline and nothing else.
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(control)
        .add_service(data)
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            gate.token().clone().cancelled_owned(),
        );
    if let Err(error) = served.await {
        error!(error = %Report(&error), "the workers' socket has failed");
    }
}

/// The process at the other end of a connection, as the kernel knows it.
fn peer_pid(extensions: &Extensions) -> Option<u32> {
    let info = extensions.get::<UdsConnectInfo>()?;
    u32::try_from(info.peer_cred?.pid()?).ok()
}
