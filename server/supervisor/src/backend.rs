//! What the supervisor asks of the server it runs in.

use std::{collections::BTreeMap, fmt, ops::Range};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use outrigger_model::{clock::Timestamp, error::ErrorKind, trace::Trace};

use crate::invocation::{BindingKey, EventFile, InvocationId};

/// On whose behalf something is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// The plugin.
    pub binding: BindingKey,
    /// What it is running.
    pub invocation: InvocationId,
    /// To which trace it belongs: of a log line the invocation's attempt, of a call the call.
    pub trace: Trace,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// As expected.
    Info,
    /// Unexpected, coped with.
    Warn,
    /// Something failed.
    Error,
}

/// Something a plugin said, or printed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// How important it is.
    pub level: LogLevel,
    /// What was said.
    pub text: String,
    /// When it was said.
    pub time: Timestamp,
}

/// A parameter of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Several; as deep as the protocol's decoder lets it be, which is 100 messages.
    List(Vec<Value>),
    /// Several, each with a name; as deep as a list.
    Map(BTreeMap<String, Value>),
}

/// A question of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryRequest {
    /// In the server's language.
    pub text: String,
    /// What to ask; `None` for the plugin's own.
    pub target: Option<String>,
    /// Values for the names in the text.
    pub parameters: BTreeMap<String, Value>,
}

/// An answer, as it comes.
pub struct QueryStream {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: BoxStream<'static, Result<RecordBatch, BackendError>>,
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStream")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Why the backend refused. The message is shown to the plugin's author.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// The whole story.
    pub message: String,
}

/// The server, as its plugins see it. Every call is made on behalf of a running invocation.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Answers a question.
    async fn query(
        &self,
        scope: &Scope,
        request: QueryRequest,
    ) -> Result<QueryStream, BackendError>;

    /// Reads some rows of a file of the invocation's event, in their order there; none where the
    /// file has no such rows.
    async fn read(
        &self,
        scope: &Scope,
        file: &EventFile,
        rows: Range<u64>,
    ) -> Result<QueryStream, BackendError>;

    /// Stores lines at once; returns when they are durable and readable, or once
    /// buffered with `no_sync`.
    async fn write(
        &self,
        scope: &Scope,
        target: Option<String>,
        lines: String,
        no_sync: bool,
    ) -> Result<(), BackendError>;

    /// Takes a log line. May wait: a plugin that logs faster than the server can
    /// store is slowed down.
    async fn log(&self, scope: &Scope, line: LogLine);
}
