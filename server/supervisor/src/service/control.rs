//! The gRPC service that workers attach to.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrigger_model::shutdown::Gate;
use outrigger_proto::v1::{
    CacheDeleteReply, CacheDeleteRequest, CacheGetReply, CacheGetRequest, CachePutReply,
    CachePutRequest, FromWorker, ToWorker, WriteReply, WriteRequest, from_worker,
    supervisor_server::Supervisor as SupervisorService,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::{cache, peer, quiet::Quiet, socket::UNPROVEN_MAX};
use crate::{
    peer::Peer,
    registry::{Link, Registry},
    worker::count_lines,
};

/// A stream that does not say hello in this time is closed.
const HELLO_MAX: Duration = UNPROVEN_MAX;
/// Messages to a worker that may wait: it gets one at a time, and a cancel.
const TO_WORKER_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Control {
    registry: Arc<Registry>,
    gate: Gate,
    /// For what a refused peer could repeat at will.
    quiet: Arc<Quiet>,
}

impl Control {
    pub(super) fn new(registry: Arc<Registry>, gate: Gate) -> Self {
        let quiet = Arc::default();
        Self {
            registry,
            gate,
            quiet,
        }
    }
}

#[tonic::async_trait]
impl SupervisorService for Control {
    type AttachWorkerStream = ReceiverStream<Result<ToWorker, Status>>;

    async fn attach_worker(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::AttachWorkerStream>, Status> {
        let peer = peer(request.extensions())
            .ok_or_else(|| Status::unauthenticated("the peer's process is unknown"))?;
        let from_worker = request.into_inner();
        let (to_worker, messages) = mpsc::channel(TO_WORKER_MAX);
        let (registry, quiet) = (self.registry.clone(), self.quiet.clone());
        let shutdown = self.gate.token().clone();
        // The answer's headers must go out before the worker's hello is awaited:
        // clients may wait for them before they send anything.
        self.gate.tasks().spawn(async move {
            let peer_pid = peer.pid;
            let attached = attach(&registry, peer, from_worker, to_worker.clone()).await;
            match attached {
                Ok(()) => {}
                Err(NotAttached::Gone(status)) => {
                    // Whoever waits for it is told by its host that it ended.
                    debug!(peer_pid, reason = status.message(), "a worker left at once");
                }
                Err(NotAttached::Refused(_)) if shutdown.is_cancelled() => {
                    debug!(peer_pid, "a worker came too late, the server is ending");
                }
                Err(NotAttached::Refused(status)) => {
                    let reason = status.message();
                    quiet.say(|| warn!(peer_pid, reason, "refused a worker"));
                    drop(to_worker.send(Err(status)).await);
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn write(&self, request: Request<WriteRequest>) -> Result<Response<WriteReply>, Status> {
        let peer = peer(request.extensions());
        let request = request.into_inner();
        let active = self
            .registry
            .authorize(&request.invocation, &request.key, peer.as_deref())?;
        let lines = String::from_utf8(request.text)
            .map_err(|_invalid| Status::invalid_argument("the lines are not UTF-8"))?;
        let target = (!request.target.is_empty()).then_some(request.target);
        let (count, bytes) = (count_lines(&lines), lines.len() as u64);
        let (mut span, scope) = active.begin_call("write_sync");
        let write = self
            .registry
            .backend
            .write(&scope, target, lines, request.no_sync);
        let error = active
            .call(async { Ok(write.await.err().map(|error| error.message)) })
            .await?;
        if let Some(span) = &mut span {
            span.set("lines", count);
            error.as_ref().inspect(|error| span.fail(error));
        }
        if error.is_none() {
            let moved = &active.moved;
            moved.lines_out.fetch_add(count, Ordering::Relaxed);
            moved.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(Response::new(WriteReply {
            error: error.unwrap_or_default(),
        }))
    }

    async fn cache_get(
        &self,
        request: Request<CacheGetRequest>,
    ) -> Result<Response<CacheGetReply>, Status> {
        let peer = peer(request.extensions());
        let reply = cache::get(&self.registry, peer.as_deref(), request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn cache_put(
        &self,
        request: Request<CachePutRequest>,
    ) -> Result<Response<CachePutReply>, Status> {
        let peer = peer(request.extensions());
        let reply = cache::put(&self.registry, peer.as_deref(), request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn cache_delete(
        &self,
        request: Request<CacheDeleteRequest>,
    ) -> Result<Response<CacheDeleteReply>, Status> {
        let peer = peer(request.extensions());
        let reply = cache::delete(&self.registry, peer.as_deref(), request.into_inner()).await?;
        Ok(Response::new(reply))
    }
}

/// Why a stream has no worker.
enum NotAttached {
    /// The peer ended before it said anything.
    Gone(Status),
    Refused(Status),
}

/// Takes a hello and passes the stream on to the one who waits for this worker.
async fn attach(
    registry: &Registry,
    peer: Arc<Peer>,
    mut from_worker: Streaming<FromWorker>,
    to_worker: mpsc::Sender<Result<ToWorker, Status>>,
) -> Result<(), NotAttached> {
    let first = match timeout(HELLO_MAX, from_worker.message()).await {
        Ok(first) => first.map_err(NotAttached::Gone)?,
        Err(_elapsed) => {
            let status = Status::deadline_exceeded("no hello came");
            return Err(NotAttached::Refused(status));
        }
    };
    let first = first.and_then(|message| message.message);
    let Some(from_worker::Message::Hello(hello)) = first else {
        let status = Status::invalid_argument("the first message must be hello");
        return Err(NotAttached::Refused(status));
    };
    let waiting = registry.claim(&hello.token).ok_or_else(|| {
        NotAttached::Refused(Status::unauthenticated(
            "the token is not, or no longer, good",
        ))
    })?;
    peer.prove();
    // If nobody waits any more, the stream is dropped and so closed.
    drop(waiting.send(Link {
        hello,
        peer,
        to_worker,
        from_worker,
    }));
    Ok(())
}
