//! Speaks HTTP with a server: one request, and an answer or a typed error.
//!
//! Deliberately absent: the endpoints. Each command names its own, next to what it prints.

mod error;
#[cfg(test)]
mod tests;
mod transport;

use reqwest::{Method, RequestBuilder, Response, Url, header};
use serde::Serialize;
use serde_json::Value;

use crate::{connection::ServerArgs, format::Format};

pub(crate) use self::error::ClientError;

/// More of a failed request's answer is not read.
const ERROR_BYTES_MAX: usize = 4 << 20;

/// Parameters of a URL's query string.
pub(crate) type Parameters<'a> = [(&'a str, &'a str)];

/// A server, as one command sees it.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    host: Url,
    server: ServerArgs,
}

impl Client {
    /// Prepares requests to the server that the arguments name.
    pub(crate) fn new(server: &ServerArgs) -> Result<Self, ClientError> {
        Ok(Self {
            http: transport::http_client(server)?,
            host: server.host.clone(),
            server: server.clone(),
        })
    }

    /// Sends a request whose parameters are all in the URL.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Answer, ClientError> {
        self.send(self.request(method, path).query(parameters))
            .await
    }

    /// Posts a JSON document.
    pub(crate) async fn post(
        &self,
        path: &str,
        document: &(impl Serialize + Sync),
    ) -> Result<Answer, ClientError> {
        self.send(self.request(Method::POST, path).json(document))
            .await
    }

    /// Sends a JSON document, with parameters in the URL.
    pub(crate) async fn send_json(
        &self,
        method: Method,
        path: &str,
        parameters: &Parameters<'_>,
        document: &(impl Serialize + Sync),
    ) -> Result<Answer, ClientError> {
        let request = self.request(method, path).query(parameters);
        self.send(request.json(document)).await
    }

    /// Posts line protocol, compressed already if `gzip` is set.
    pub(crate) async fn post_lines(
        &self,
        path: &str,
        parameters: &Parameters<'_>,
        lines: Vec<u8>,
        gzip: bool,
    ) -> Result<Answer, ClientError> {
        let mut request = self
            .request(Method::POST, path)
            .query(parameters)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(lines);
        if gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        self.send(request).await
    }

    /// Runs a SQL query, wherever a command needs one.
    pub(crate) async fn query_sql(
        &self,
        database: &str,
        sql: &str,
        format: Format,
    ) -> Result<Answer, ClientError> {
        let query = serde_json::json!({ "db": database, "q": sql, "format": format.name() });
        self.post("/api/v3/query_sql", &query).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.host.clone();
        // The server may be behind a proxy that gives it a path of its own.
        url.set_path(&format!("{}{path}", self.host.path().trim_end_matches('/')));
        let request = self.http.request(method, url);
        match self.server.token.as_ref().and_then(|token| token.secret()) {
            Some(secret) => request.bearer_auth(secret),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|error| ClientError::from_transport(&self.host, error))?;
        let status = response.status();
        let mut answer = Answer {
            response,
            host: self.host.clone(),
        };
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.read_at_most(ERROR_BYTES_MAX).await?;
        Err(ClientError::from_answer(status, &body))
    }
}

/// A successful answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    host: Url,
}

impl Answer {
    /// The next piece of the body; `None` once it is complete.
    pub(crate) async fn next_chunk(
        &mut self,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, ClientError> {
        self.response
            .chunk()
            .await
            .map_err(|error| ClientError::from_transport(&self.host, error))
    }

    /// The whole body as JSON.
    pub(crate) async fn json(mut self) -> Result<Value, ClientError> {
        let body = self.read_at_most(usize::MAX).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::NotJson {
            host: self.host,
            source,
        })
    }

    async fn read_at_most(&mut self, limit: usize) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.next_chunk().await? {
            let room = limit - body.len();
            let chunk = chunk.as_ref();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == limit {
                break;
            }
        }
        Ok(body)
    }
}
