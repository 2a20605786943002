//! How connections are accepted and served, and how that ends.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::rt::Executor;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use outrigger_model::{bytes::ByteSize, shutdown::Gate, trace::Tracer};
use outrigger_query::QueryEngine;
use outrigger_storage::Storage;
use outrigger_supervisor::environment::Packages;
use outrigger_triggers::{DryRuns, TriggerService};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{Metrics, flight, http};

/// How long the server waits after it could not accept a connection, which happens when
/// the process has no descriptors left, or its user none that epoll may watch.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it says that it still cannot.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// How often a quiet HTTP/2 connection is asked whether it is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Limits of the API.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The largest body of a request, as sent and when unpacked.
    pub max_request_bytes: ByteSize,
}

/// Who this server is.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The same for the whole life of the stored data; in every response.
    pub cluster_uuid: Uuid,
    /// New at every start.
    pub process_id: Uuid,
    /// The version that clients are told.
    pub version: String,
    /// The revision it was built from.
    pub revision: String,
}

/// What the API works with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Writes and the catalog.
    pub storage: Storage,
    /// Queries.
    pub queries: QueryEngine,
    /// Triggers.
    pub triggers: TriggerService,
    /// Dry runs of plugins.
    pub dry_runs: DryRuns,
    /// What plugins can import.
    pub packages: Packages,
    /// Where the traces of requests begin.
    pub tracer: Tracer,
    /// What can be read from `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Limits.
    pub config: Config,
    /// Who this server is.
    pub instance: Instance,
}

/// HTTP and Flight SQL.
#[derive(Debug)]
pub struct Api {
    router: Router,
}

impl Api {
    /// The API over `deps`.
    pub fn new(deps: Deps) -> Self {
        let flight = flight::routes(&deps);
        let router = http::router(deps, flight);
        Self { router }
    }

    /// Serves until the gate's phase begins, then finishes the requests that run. Every
    /// connection is a task of the gate, so returning does not mean that all have ended.
    pub async fn serve(self, listener: TcpListener, gate: Gate) {
        let mut failures = Failures::default();
        loop {
            let accepted = tokio::select! {
                () = gate.token().cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _peer)) => {
                    let connection = serve_connection(stream, self.router.clone(), gate.clone());
                    gate.tasks().spawn(connection);
                }
                Err(error) => {
                    failures.add(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        info!("api accepts no more connections");
    }
}

/// Connections that could not be accepted: they fail again and again until somebody closes one.
#[derive(Debug, Default)]
struct Failures {
    untold: u64,
    told: Option<Instant>,
}

impl Failures {
    /// Says it at once, and then once in a while.
    fn add(&mut self, error: &io::Error) {
        self.untold += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        let attempts = std::mem::take(&mut self.untold);
        self.told = Some(Instant::now());
        // No disk is meant.
        if error.kind() == io::ErrorKind::StorageFull {
            warn!(
                %error,
                attempts,
                "no connection can be accepted, because the kernel watches no more descriptors for \
                 this server's user (fs.epoll.max_user_watches): a program of this user, a plugin's \
                 too, uses them up"
            );
            return;
        }
        warn!(
            %error,
            attempts,
            "no connection can be accepted until one is closed; the limit of open files may be \
             too low (ulimit -n)"
        );
    }
}

async fn serve_connection(stream: TcpStream, router: Router, gate: Gate) {
    // Answers are small and written at once; waiting to fill packets only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "setting TCP_NODELAY failed");
    }
    let mut builder = auto::Builder::new(Tracked(gate.tasks().clone()));
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = gate.token().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}

/// Spawns a connection's streams where the connection itself is spawned.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests;
