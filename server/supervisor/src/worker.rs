//! A worker that has said hello: what may be said to it, and what it may say.
//!
//! ```text
//! Spare ──assign, hello──► Idle ──bind──► Binding ──ready──► Idle
//!                           │ ▲                └─load failed─► Idle (unbound)
//!                      invoke │ completed
//!                           ▼ │
//!                          Busy ── death, violation, deadline ──► Exited
//! ```
//!
//! Every path out of an exchange other than its proper end leaves the worker
//! unusable: whoever holds it drops it, and dropping kills it.

mod allowance;
mod attendance;
mod binding;
mod call;
mod collect;
mod ending;
mod exchange;
pub(crate) mod intervals;
mod liveness;
mod messages;
mod meter;
mod output;
mod reading;
mod silence;
mod spare;
mod stacks;

use std::{collections::BTreeMap, error::Error as _, sync::Arc, time::Duration};

use outrigger_model::{clock::SystemClock, error::Report, trace::Span};
use outrigger_proto::{
    PROTOCOL_VERSION,
    v1::{FromWorker, ToWorker, from_worker, to_worker},
};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use self::{allowance::Allowance, messages::name};
pub(crate) use self::{
    collect::count_lines,
    spare::{Spare, Surroundings},
};
use crate::{
    error::{ExitReason, HostError, InvocationError},
    host::{OutputLine, WorkerProcess, exited},
    private::{Over, Watchee},
    registry::Link,
    usage::{ProcessUsage, Watched},
};

/// How long a worker's stream may stay open after its process has ended, or the other way round.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);
/// How many messages may come between invocations: as many as wait in a worker at most. Our
/// own runtime sends none.
const STRAYS_MAX: u32 = 32;
/// tonic's words for a stream that ends before its last message does.
const HALF_A_MESSAGE: &str = "Unexpected EOF decoding stream.";
/// How much of what the decoder says is told.
const DECODER_CHARS_MAX: usize = 200;

/// A connected worker. Dropping it kills its process.
#[derive(Debug)]
pub(crate) struct Worker {
    process: WorkerProcess,
    watched: Watched,
    link: Link,
    /// The revision that it has loaded.
    bound: Option<String>,
    /// How many objects its plugin keeps in it, as it says.
    cached_objects: u64,
    /// Messages since the last invocation that belong to none.
    strays: u32,
    /// What it passes on as `args`.
    arguments: Option<BTreeMap<String, String>>,
    confined: Confined,
    /// What its plugin may still log.
    allowance: Allowance,
    /// When a line is logged that the last invocation may have begun and not finished.
    unfinished: Option<Instant>,
    /// What its process had used when that was last looked at.
    seen: ProcessUsage,
    clock: SystemClock,
}

/// How a worker is confined.
#[derive(Debug)]
pub(crate) struct Confined {
    /// What became of each layer.
    pub(crate) enforcement: Arc<str>,
    pub(crate) directories: Arc<Watchee>,
    /// Why it must end, once it has too much.
    pub(crate) over: Over,
}

/// What ended an exchange.
#[derive(Debug)]
enum Break {
    /// The stream ended.
    Ended,
    /// The worker said something it may not say.
    Violation(String),
}

impl Worker {
    /// A worker that has said hello.
    fn new(process: WorkerProcess, link: Link, confined: Confined) -> Self {
        Self {
            watched: Watched::new(process.pid),
            process,
            link,
            confined,
            bound: None,
            cached_objects: 0,
            strays: 0,
            arguments: None,
            allowance: Allowance::new(),
            unfinished: None,
            seen: ProcessUsage::default(),
            clock: SystemClock::default(),
        }
    }

    /// How many objects its plugin keeps in it: more than none forbid to end it for
    /// being idle. Nothing else may rely on what it says.
    pub(crate) fn cached_objects(&self) -> u64 {
        self.cached_objects
    }

    /// What became of each layer of its confinement.
    pub(crate) fn enforcement(&self) -> &Arc<str> {
        &self.confined.enforcement
    }

    /// Its private directories.
    pub(crate) fn directories(&self) -> &Arc<Watchee> {
        &self.confined.directories
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Waits for anything that ends an idle worker, and says what. What it still
    /// prints is returned for the log.
    ///
    /// # Cancel safety
    /// May be dropped at any time; nothing is lost.
    pub(crate) async fn idle(&mut self) -> Result<OutputLine, ExitReason> {
        loop {
            tokio::select! {
                message = next(&mut self.link) => {
                    let heard = match message {
                        Ok(from_worker::Message::Log(_) | from_worker::Message::Lines(_)) => {
                            self.on_stray()
                        }
                        Ok(other) => {
                            let what = format!("{} while idle", name(&other));
                            Err(Break::Violation(what))
                        }
                        Err(reason) => Err(reason),
                    };
                    match heard {
                        Ok(()) => {}
                        Err(Break::Violation(what)) => {
                            return Err(ExitReason::ProtocolViolation(what));
                        }
                        Err(Break::Ended) => return Err(self.last_words().await),
                    }
                }
                Some(line) = self.process.output.recv() => return Ok(line),
                exit = exited(&mut self.process.exit) => return Err(exit.reason),
                reason = too_much(&mut self.confined.over) => return Err(reason),
                () = passed(self.unfinished) => {
                    self.unfinished = None;
                    self.process.end_lines();
                }
            }
        }
    }

    /// A thread of the plugin spoke while its invocation completed: ignored, but not for ever.
    fn on_stray(&mut self) -> Result<(), Break> {
        self.strays += 1;
        if self.strays > STRAYS_MAX {
            let what = "it went on speaking between invocations".to_owned();
            return Err(Break::Violation(what));
        }
        Ok(())
    }

    /// Sends a message. If the stream is gone, the next read says so; so does the
    /// deadline if the worker has stopped reading: nobody waits for it here.
    fn send(&self, message: to_worker::Message) {
        drop(self.link.to_worker.try_send(Ok(ToWorker {
            message: Some(message),
        })));
    }
}

fn fail(span: &mut Span, error: Option<&InvocationError>) {
    if let Some(error) = error {
        span.fail(&Report(error));
    }
}

/// Waits until then, if there is such a time.
async fn passed(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until a worker has too much in its private directories, or too much open.
async fn too_much(over: &mut Over) -> ExitReason {
    let told = over.wait_for(Option::is_some).await;
    let reason = told.ok().and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        // Nobody looks any more.
        None => std::future::pending().await,
    }
}

fn check_hello(link: &Link, pid: u32) -> Result<(), HostError> {
    let hello = &link.hello;
    if hello.protocol != PROTOCOL_VERSION {
        return Err(HostError::Protocol(format!(
            "the worker speaks version {}, this server version {PROTOCOL_VERSION}",
            hello.protocol
        )));
    }
    if hello.pid != pid || link.peer.pid != pid {
        return Err(HostError::Protocol(format!(
            "worker {pid} was expected, but {} said hello from process {}",
            hello.pid, link.peer.pid
        )));
    }
    Ok(())
}

async fn next(link: &mut Link) -> Result<from_worker::Message, Break> {
    match link.from_worker.message().await {
        Ok(Some(FromWorker {
            message: Some(message),
        })) => Ok(message),
        Ok(Some(_)) => Err(Break::Violation("an empty message".to_owned())),
        Ok(None) => Err(Break::Ended),
        Err(status) => Err(unread(&status)),
    }
}

/// What a stream says that cannot be read any further: that it has ended, or that what came
/// cannot be a message.
fn unread(status: &Status) -> Break {
    // What ends a connection is the cause of its status; what the decoder says has none, but for
    // half a message, which is also what a process leaves that is killed while it sends.
    let of_decoder = status.source().is_none() && status.message() != HALF_A_MESSAGE;
    let text = || {
        let letters = status.message().chars().take(DECODER_CHARS_MAX);
        letters.flat_map(char::escape_debug).collect::<String>()
    };
    match status.code() {
        Code::OutOfRange => Break::Violation(text()),
        Code::Internal | Code::ResourceExhausted if of_decoder => {
            Break::Violation(format!("a message that cannot be read: {}", text()))
        }
        _ => Break::Ended,
    }
}

#[cfg(test)]
mod tests;
