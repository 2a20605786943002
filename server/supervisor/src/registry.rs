//! Who may speak: tokens of workers that are expected, and keys of invocations that run.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use outrigger_model::trace::{Span, Trace};
use outrigger_proto::v1::{FromWorker, Hello, ToWorker};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    backend::{Backend, Scope},
    cache::{self, GlobalCache},
    invocation::{Event, EventFile, EventTable, InvocationId},
    offers::Offers,
    peer::Peer,
};

/// A worker's secret for its Hello.
pub(crate) type Token = [u8; 32];
/// An invocation's secret for tickets and writes.
pub(crate) type InvocationKey = [u8; 16];

/// How many calls an invocation may make at the same time; more wait.
const CALLS_MAX: usize = 8;
/// How many calls of an invocation are in its trace: a plugin that makes more would crowd
/// out everybody else's.
const CALL_SPANS_MAX: u32 = 1000;

/// A worker's control stream, after its token was found good.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) hello: Hello,
    pub(crate) peer: Arc<Peer>,
    pub(crate) to_worker: mpsc::Sender<Result<ToWorker, Status>>,
    pub(crate) from_worker: Streaming<FromWorker>,
}

/// What of its event an invocation may fetch, by index.
#[derive(Debug, Default)]
pub(crate) struct Fetchable {
    pub(crate) tables: Vec<EventTable>,
    pub(crate) files: Vec<EventFile>,
}

impl From<Event> for Fetchable {
    fn from(event: Event) -> Self {
        let (tables, files) = match event {
            Event::Writes(tables) => (tables, Vec::new()),
            Event::Files(files) => (Vec::new(), files),
            Event::Schedule { .. } | Event::Request(_) => Default::default(),
        };
        Self { tables, files }
    }
}

/// An invocation that runs.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) key: InvocationKey,
    pub(crate) pid: u32,
    pub(crate) scope: Scope,
    pub(crate) fetchable: Fetchable,
    /// Room for calls at the same time.
    pub(crate) calls: Arc<Semaphore>,
    /// Cancelled when the invocation is over, and with it every call.
    pub(crate) over: CancellationToken,
    pub(crate) moved: Moved,
    /// Rows that wait for it.
    pub(crate) offers: Arc<Offers>,
    /// The plugin's run, below which its calls stand.
    trace: Trace,
    call_spans: AtomicU32,
}

/// What an invocation has moved through its calls.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Bytes of rows that it fetched.
    pub(crate) bytes_in: AtomicU64,
    /// Lines that it has stored, and their bytes.
    pub(crate) lines_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Active {
    pub(crate) fn new(
        key: InvocationKey,
        pid: u32,
        (scope, trace): (Scope, Trace),
        fetchable: Fetchable,
    ) -> Self {
        let (calls, over) = (
            Arc::new(Semaphore::new(CALLS_MAX)),
            CancellationToken::new(),
        );
        Self {
            key,
            pid,
            scope,
            fetchable,
            calls,
            over,
            moved: Moved::default(),
            offers: Arc::default(),
            trace,
            call_spans: AtomicU32::new(0),
        }
    }

    /// Begins a call that stands in the trace, and says on whose behalf it is made. Of too
    /// many calls, the rest has no spans.
    pub(crate) fn begin_call(&self, name: &'static str) -> (Option<Span>, Scope) {
        let number = self.call_spans.fetch_add(1, Ordering::Relaxed);
        if number >= CALL_SPANS_MAX {
            self.call_spans.fetch_sub(1, Ordering::Relaxed);
        }
        let span = (number < CALL_SPANS_MAX).then(|| self.trace.child(name));
        let trace = span.as_ref().map_or(self.trace.clone(), Span::trace);
        let scope = Scope {
            trace,
            ..self.scope.clone()
        };
        (span, scope)
    }

    /// What its calls have moved; `None` while one waits for the server.
    pub(crate) fn moved_so_far(&self) -> Option<u64> {
        let is_idle = self.calls.available_permits() == CALLS_MAX;
        let moved = &self.moved;
        is_idle.then(|| {
            moved.bytes_in.load(Ordering::Relaxed) + moved.lines_out.load(Ordering::Relaxed)
        })
    }

    /// Makes a call on behalf of the invocation: waits for its turn, and ends with
    /// the invocation.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let over = || Status::cancelled("the invocation is over");
        let turn = async {
            let _turn = self.calls.acquire().await.map_err(|_closed| over())?;
            call.await
        };
        self.over
            .run_until_cancelled(turn)
            .await
            .unwrap_or_else(|| Err(over()))
    }
}

/// Shared by the services and the bindings. Its locks are held for moments only.
pub(crate) struct Registry {
    pub(crate) backend: Arc<dyn Backend>,
    /// What all invocations share.
    pub(crate) cache: Mutex<GlobalCache>,
    /// Lines of plugins that were too many to be logged.
    pub(crate) log_lines_dropped: AtomicU64,
    expected: Mutex<HashMap<Token, oneshot::Sender<Link>>>,
    active: Mutex<HashMap<InvocationId, Arc<Active>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("active", &self.active.lock().len())
            .finish_non_exhaustive()
    }
}

/// Ends the right to speak when dropped.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    registry: &'a Registry,
    who: Who,
}

#[derive(Debug)]
enum Who {
    Worker(Token),
    Invocation(InvocationId),
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        match &self.who {
            Who::Worker(token) => drop(self.registry.expected.lock().remove(token)),
            Who::Invocation(id) => {
                let active = self.registry.active.lock().remove(id);
                active.inspect(|active| active.over.cancel());
            }
        }
    }
}

impl Registry {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            cache: Mutex::new(GlobalCache::new(cache::LIMITS)),
            log_lines_dropped: AtomicU64::new(0),
            expected: Mutex::default(),
            active: Mutex::default(),
        }
    }

    /// Lets one worker attach with `token`, once.
    pub(crate) fn expect(&self, token: Token) -> (Admission<'_>, oneshot::Receiver<Link>) {
        let (sender, link) = oneshot::channel();
        self.expected.lock().insert(token, sender);
        (
            Admission {
                registry: self,
                who: Who::Worker(token),
            },
            link,
        )
    }

    /// The one who waits for the worker with this token.
    pub(crate) fn claim(&self, token: &[u8]) -> Option<oneshot::Sender<Link>> {
        let token: Token = token.try_into().ok()?;
        self.expected.lock().remove(&token)
    }

    /// Lets an invocation fetch and write.
    pub(crate) fn admit(&self, active: Arc<Active>) -> Admission<'_> {
        let id = active.scope.invocation.clone();
        self.active.lock().insert(id.clone(), active);
        Admission {
            registry: self,
            who: Who::Invocation(id),
        }
    }

    /// The running invocation that the caller proves to be.
    pub(crate) fn authorize(
        &self,
        invocation: &str,
        key: &[u8],
        peer: Option<&Peer>,
    ) -> Result<Arc<Active>, Status> {
        let id = InvocationId(invocation.into());
        let active = self.active.lock().get(&id).cloned();
        let active = active
            .filter(|active| active.key == key && peer.is_some_and(|peer| peer.pid == active.pid));
        peer.filter(|_| active.is_some())
            .inspect(|peer| peer.prove());
        active.ok_or_else(|| Status::permission_denied("this invocation is not running here"))
    }
}
