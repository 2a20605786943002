//! HTTP with a server, as raw as a story needs it.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::database::Database;

/// A request that takes longer is stuck.
const REQUEST_MAX: Duration = Duration::from_mins(1);

/// A connection that has been idle for longer is not used again: the server may have closed it
/// meanwhile, for example while a story waited for packages to be installed.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Talks to one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

/// An answer of whatever status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The content type; empty if there is none.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON: {error}: {self:?}"),
        }
    }

    /// Fails unless the server did what it was asked to.
    #[track_caller]
    pub fn check_success(&self, what: &str) {
        assert!((200..300).contains(&self.status), "{what}: {self:?}");
    }

    /// Fails unless the server refused with this status and a text that contains `part`.
    #[track_caller]
    pub fn check_refused(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.contains(part), "expected {part:?} in {self:?}");
    }
}

/// A client of anything that speaks HTTP on this machine.
pub(crate) fn plain_http() -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // Somebody else may have installed it, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    reqwest::Client::builder()
        .no_proxy()
        .timeout(REQUEST_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .build()
        .expect("plain HTTP needs no settings that could be wrong")
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let http = plain_http();
        Self { http, address }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A database, which need not exist.
    pub fn database(&self, name: &str) -> Database {
        Database::new(self.clone(), name)
    }

    /// Starts a request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url()))
    }

    /// Sends a request without a body.
    pub async fn call(&self, method: Method, path: &str) -> Reply {
        self.answer(self.request(method, path)).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.answer(self.request(Method::POST, path).json(body))
            .await
    }

    /// Sends a request that must get an answer.
    pub async fn answer(&self, request: RequestBuilder) -> Reply {
        match self.send(request).await {
            Ok(reply) => reply,
            Err(error) => panic!("no answer from {}: {error:?}", self.url()),
        }
    }

    /// Sends a request to a server that may be gone.
    pub async fn send(&self, request: RequestBuilder) -> reqwest::Result<Reply> {
        let response = request.send().await?;
        let content_type = response
            .headers()
            .get("content-type")
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default();
        Ok(Reply {
            status: response.status().as_u16(),
            content_type,
            body: response.text().await?,
        })
    }
}
