//! A request trigger: answers HTTP requests by running its plugin.

use std::{collections::HashMap, sync::Arc, time::Duration};

use outrigger_model::{error::ErrorKind, trace::TraceContext};
use outrigger_supervisor::{Event, InvocationId, Request, Response};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    origin::Origin,
    runner::{Occasion, Runner},
};

/// How many requests may wait for one trigger; further clients wait to get in.
const WAITING_MAX: usize = 60;

/// How long a trigger may take to begin that was created or enabled.
const APPEARS_MAX: Duration = Duration::from_secs(5);

/// Why a request has no answer of a plugin.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No enabled trigger has the path.
    #[error("not found")]
    NotFound,
    /// The plugin failed.
    #[error("{0}")]
    Plugin(String),
    /// The plugin took too long.
    #[error("{0}")]
    Deadline(String),
    /// No worker could be had, or the server is ending.
    #[error("{text}")]
    Unavailable {
        /// Why.
        text: String,
        /// How long it stays so, if that is known.
        retry_after: Option<Duration>,
    },
}

impl AnswerError {
    /// Nothing more is known than that it may work later.
    pub(crate) fn unavailable() -> Self {
        Self::Unavailable {
            text: "the plugin cannot run now; try again".to_owned(),
            retry_after: None,
        }
    }

    /// The plugin ran, and was broken off for reasons that are not its own.
    pub(crate) fn broken_off(reason: &str) -> Self {
        Self::Unavailable {
            text: format!(
                "{reason}, while the plugin ran: it may have done some of its work; try again if \
                 that may be done twice"
            ),
            retry_after: None,
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Plugin(_) => ErrorKind::Internal,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }
}

#[derive(Debug)]
struct Job {
    request: Request,
    trace: TraceContext,
    /// When it came.
    asked: Instant,
    reply: oneshot::Sender<Result<Response, AnswerError>>,
}

/// Which trigger answers which path.
#[derive(Clone, Debug)]
pub(crate) struct Routes(Arc<watch::Sender<HashMap<String, mpsc::Sender<Job>>>>);

impl Default for Routes {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl Routes {
    /// Has the path's trigger answer; waits behind earlier requests. If there is to be one,
    /// which has just been created or enabled, waits until it takes requests.
    pub(crate) async fn answer(
        &self,
        path: &str,
        (request, trace): (Request, TraceContext),
        is_expected: bool,
    ) -> Result<Response, AnswerError> {
        let asked = Instant::now();
        let mut routes = self.0.subscribe();
        if is_expected && !routes.borrow().contains_key(path) {
            let appears = routes.wait_for(|routes| routes.contains_key(path));
            // Whether it does is asked below.
            drop(timeout(APPEARS_MAX, appears).await);
        }
        let trigger = self.0.borrow().get(path).cloned();
        let trigger = trigger.ok_or(AnswerError::NotFound)?;
        let (reply, answer) = oneshot::channel();
        trigger
            .send(Job {
                request,
                trace,
                asked,
                reply,
            })
            .await
            .or(Err(AnswerError::NotFound))?;
        answer
            .await
            .unwrap_or_else(|_closed| Err(AnswerError::unavailable()))
    }

    /// How many requests wait for the path's trigger to take them.
    pub(crate) fn waiting(&self, path: &str) -> usize {
        let routes = self.0.borrow();
        let sender = routes.get(path);
        sender.map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }

    fn add(&self, path: &str) -> mpsc::Receiver<Job> {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        self.0
            .send_modify(|routes| drop(routes.insert(path.to_owned(), sender)));
        inbox
    }

    fn remove(&self, path: &str) {
        self.0.send_modify(|routes| drop(routes.remove(path)));
    }
}

/// Answers one path's requests: one after the other, or, for an asynchronous trigger,
/// several at the same time.
#[derive(Debug)]
pub(crate) struct RequestTask {
    runner: Arc<Runner>,
    path: String,
    inbox: mpsc::Receiver<Job>,
    running: JoinSet<()>,
}

impl RequestTask {
    pub(crate) fn new(runner: Runner, path: String) -> Self {
        let inbox = runner.engine.board.routes.add(&path);
        Self {
            runner: Arc::new(runner),
            path,
            inbox,
            running: JoinSet::new(),
        }
    }

    /// Runs until it is stopped; requests that wait by then get no answer.
    pub(crate) async fn run(mut self) {
        let stop = self.runner.stop.clone();
        let concurrency = self.runner.concurrency().get();
        while let Some(Some(job)) = stop.run_until_cancelled(self.inbox.recv()).await {
            // Nobody needs the answer for whom nobody waits any more.
            if job.reply.is_closed() {
                continue;
            }
            let runner = self.runner.clone();
            self.running.spawn(async move {
                let Job {
                    request,
                    trace,
                    asked,
                    reply,
                } = job;
                let answered = answer(&runner, request, (trace, asked)).await;
                drop(reply.send(answered));
            });
            while self.running.try_join_next().is_some() {}
            if self.running.len() >= concurrency {
                self.running.join_next().await;
            }
        }
        while self.running.join_next().await.is_some() {}
        self.runner.engine.board.routes.remove(&self.path);
        self.runner.release();
    }
}

async fn answer(
    runner: &Runner,
    request: Request,
    (trace, asked): (TraceContext, Instant),
) -> Result<Response, AnswerError> {
    // The clock never says the same twice.
    let now = runner.engine.storage.clock().now();
    let occasion = Occasion {
        id: InvocationId(format!("{}-request-{}", runner.trigger.id, now.0).into()),
        event: Event::Request(request),
        done: None,
        origin: Origin::of(trace),
        waited: asked.elapsed(),
    };
    runner.answer(&occasion).await
}
