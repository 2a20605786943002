//! A web server for plugins to post to: it remembers what it got, and answers as it was told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    serve,
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use crate::eventually::eventually;

/// What was posted.
#[derive(Clone, Debug)]
pub struct Post {
    /// What it was answered with.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Value,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    memory: Memory,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    posts: Vec<Post>,
    answers: VecDeque<u16>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Webhook {
    /// Listens on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let memory = Memory::default();
        let router = Router::new().fallback(take).with_state(memory.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            serve(listener, router)
                .await
                .expect("it serves until it is dropped");
        });
        Self {
            address,
            memory,
            _server: server,
        }
    }

    /// Where to post to.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers the next posts with these, and those that follow with 204.
    pub fn answer_next(&self, answers: &[u16]) {
        self.memory.lock().answers.extend(answers);
    }

    /// What was posted so far.
    pub fn posts(&self) -> Vec<Post> {
        self.memory.lock().posts.clone()
    }

    /// Waits until there have been so many posts; returns them.
    pub async fn until(&self, count: usize) -> Vec<Post> {
        eventually(&format!("there are {count} posts"), async || {
            let posts = self.posts();
            if posts.len() == count {
                Ok(posts)
            } else {
                Err(format!("{posts:#?}"))
            }
        })
        .await
    }
}

async fn take(State(memory): State<Memory>, headers: HeaderMap, body: String) -> StatusCode {
    let mut memory = memory.lock();
    let status = memory.answers.pop_front().unwrap_or(204);
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    memory.posts.push(Post {
        status,
        headers,
        body,
    });
    StatusCode::from_u16(status).expect("a story answers with a status")
}
