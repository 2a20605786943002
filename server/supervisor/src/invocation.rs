//! What is run: a plugin, an event, and what comes back.

use std::{any::Any, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use bytes::Bytes;
use outrigger_model::{clock::Timestamp, trace::Trace};
use tokio_util::sync::CancellationToken;

use crate::{confinement::Grants, error::InvocationError};

/// What a worker is bound to for life. The server chooses it; the same key means the same worker.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BindingKey(pub Arc<str>);

impl fmt::Display for BindingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One call of a plugin for one event; the same for every attempt at it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InvocationId(pub Arc<str>);

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A plugin's source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// One file: its text.
    SingleFile(Bytes),
    /// A directory.
    Package(Package),
}

/// A directory of source files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Package {
    /// The name it is imported by.
    pub name: String,
    /// Paths relative to the directory, and texts.
    pub files: Vec<(String, Bytes)>,
}

/// What a worker is bound to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plugin {
    /// The worker's identity.
    pub binding: BindingKey,
    /// The plugin's name as the user gave it.
    pub name: String,
    /// Changes whenever the source does.
    pub revision: String,
    /// What it consists of.
    pub source: Source,
    /// What it gets as `args`.
    pub arguments: Option<BTreeMap<String, String>>,
    /// How many workers may run it at the same time; at least 1.
    pub workers_max: usize,
    /// What it may touch beyond what all may.
    pub grants: Grants,
    /// Whether its private directory outlives its workers; otherwise it goes with each.
    pub keeps_files: bool,
}

/// The rows of one table in an event.
#[derive(Clone, Debug)]
pub struct EventTable {
    /// Its name.
    pub name: String,
    /// Its rows, all batches with the same schema; at least one batch.
    pub batches: Vec<RecordBatch>,
}

/// A file in an event, whose rows the backend reads when the plugin asks for them.
#[derive(Clone, Debug)]
pub struct EventFile {
    /// The table whose rows it has.
    pub table: String,
    /// Its name, for the plugin and for the backend.
    pub path: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The first time of a row.
    pub min_time: Timestamp,
    /// The last.
    pub max_time: Timestamp,
    /// Why there is one, in a word.
    pub reason: &'static str,
    /// The names of the files whose place it takes.
    pub replaces: Vec<String>,
    /// Whatever keeps the file where it is until the event is dealt with.
    pub keeps: Arc<dyn Any + Send + Sync>,
}

/// Why a plugin is called.
#[derive(Clone, Debug)]
pub enum Event {
    /// Rows were written.
    Writes(Vec<EventTable>),
    /// Files were committed.
    Files(Vec<EventFile>),
    /// It is time.
    Schedule {
        /// The time that was scheduled.
        call_time: Timestamp,
    },
    /// A request came.
    Request(Request),
}

/// An HTTP request, as plugins see it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Request {
    /// The query string's parameters.
    pub query: BTreeMap<String, String>,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, unpacked.
    pub body: Bytes,
}

/// An HTTP response, as a plugin wants it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// From 100 to 999.
    pub status: u16,
    /// In the order in which they are sent; not checked beyond being text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// An invocation to be made.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// 1 for the first attempt at the event.
    pub attempt: u32,
    /// How long it may take.
    pub timeout: Duration,
    /// Cancelled when nobody wants its result any more: it gets a little time to end by
    /// itself, then it is ended as at its deadline.
    pub unwanted: CancellationToken,
    /// The attempt, in its trace: what it consists of stands below.
    pub trace: Trace,
    /// Why.
    pub event: Event,
}

/// What a completed invocation leaves.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Lines by target; `None` is the plugin's own.
    pub lines: BTreeMap<Option<String>, String>,
    /// What to answer; present after a request.
    pub response: Option<Response>,
}

/// How an invocation ended, and what it cost.
#[derive(Clone, Debug)]
pub struct Concluded {
    /// What it leaves, or why it leaves nothing.
    pub result: Result<Finished, InvocationError>,
    /// What it cost; nothing if it did not run.
    pub usage: Usage,
}

/// What an invocation cost. CPU times and memory are the kernel's figures for the whole
/// worker process while the invocation ran.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// The process it ran in; 0 if it did not run.
    pub pid: u32,
    /// How long it waited for a worker: behind other invocations, or for a fork.
    pub queued: Duration,
    /// How long the worker took to be assigned to the plugin and to load it; nothing where it
    /// had.
    pub bound: Duration,
    /// From the call until the worker's answer.
    pub wall: Duration,
    /// CPU time in user mode.
    pub user_cpu: Duration,
    /// CPU time in the kernel.
    pub system_cpu: Duration,
    /// The largest resident memory in bytes.
    pub peak_memory_bytes: u64,
    /// Rows of the event.
    pub rows_in: u64,
    /// Bytes of rows and of query results that the worker fetched.
    pub bytes_in: u64,
    /// Lines that it wrote, also with `write_sync`.
    pub lines_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Lines that it logged or printed.
    pub log_lines: u64,
    /// What the worker says of its own time.
    pub phases: Phases,
}

/// How a worker says that it spent an invocation's time. Not to be trusted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Phases {
    /// Fetching rows.
    pub transfer: Duration,
    /// Making Python objects of them.
    pub conversion: Duration,
    /// Everything else: the plugin's own code.
    pub plugin: Duration,
}
