//! A request trigger: answers HTTP requests by running its plugin.

use std::{collections::HashMap, sync::Arc};

use outrigger_model::error::ErrorKind;
use outrigger_supervisor::{Event, InvocationId, Request, Response};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::{
    backend::binding_key,
    runner::{Occasion, Runner},
};

/// How many requests may wait for one trigger; further clients wait to get in.
const WAITING_MAX: usize = 60;

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
    #[error("the plugin cannot run now; try again")]
    Unavailable,
}

impl AnswerError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Plugin(_) => ErrorKind::Internal,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }
}

#[derive(Debug)]
struct Job {
    request: Request,
    reply: oneshot::Sender<Result<Response, AnswerError>>,
}

/// Which trigger answers which path.
#[derive(Clone, Debug, Default)]
pub struct Routes(Arc<RwLock<HashMap<String, mpsc::Sender<Job>>>>);

impl Routes {
    /// Has the path's trigger answer; waits behind earlier requests.
    pub async fn answer(&self, path: &str, request: Request) -> Result<Response, AnswerError> {
        let trigger = self
            .0
            .read()
            .get(path)
            .cloned()
            .ok_or(AnswerError::NotFound)?;
        let (reply, answer) = oneshot::channel();
        trigger
            .send(Job { request, reply })
            .await
            .or(Err(AnswerError::NotFound))?;
        answer.await.unwrap_or(Err(AnswerError::Unavailable))
    }

    fn add(&self, path: &str) -> mpsc::Receiver<Job> {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        self.0.write().insert(path.to_owned(), sender);
        inbox
    }

    fn remove(&self, path: &str) {
        self.0.write().remove(path);
    }
}

/// Answers one path's requests, one after the other.
#[derive(Debug)]
pub(crate) struct RequestTask {
    runner: Runner,
    path: String,
    inbox: mpsc::Receiver<Job>,
}

impl RequestTask {
    pub(crate) fn new(runner: Runner, path: String) -> Self {
        let inbox = runner.engine.routes.add(&path);
        Self {
            runner,
            path,
            inbox,
        }
    }

    /// Runs until it is stopped; requests that wait by then get no answer.
    pub(crate) async fn run(mut self) {
        let stop = self.runner.stop.clone();
        while let Some(Some(job)) = stop.run_until_cancelled(self.inbox.recv()).await {
            // Nobody needs the answer for whom nobody waits any more.
            if !job.reply.is_closed() {
                let answer = self.answer(job.request).await;
                drop(job.reply.send(answer));
            }
        }
        self.runner.engine.routes.remove(&self.path);
        let key = binding_key(self.runner.trigger.id);
        self.runner.engine.supervisor.release(&key);
    }

    async fn answer(&mut self, request: Request) -> Result<Response, AnswerError> {
        let now = self.runner.engine.storage.clock().now();
        let occasion = Occasion {
            id: InvocationId(format!("{}-request-{}", self.runner.trigger.id, now.0).into()),
            event: Event::Request(request),
            cursor: None,
        };
        self.runner.answer(&occasion).await
    }
}
