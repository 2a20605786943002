//! How often is a worker asked how it gets on, and when does silence mean something?
//!
//! None of these signs ends a worker: only deadlines do, one of which is here.

use tokio::time::Duration;

/// HTTP/2 pings to a connection from which nothing came meanwhile. They are answered by a
/// thread of the gRPC library, without Python. A worker that is idle has nothing else to do
/// every few seconds, so not too often.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(5);

/// Two pings without an answer, and time for a busy machine: the process is frozen.
pub(super) const FROZEN_AFTER: Duration = Duration::from_secs(12);

/// When a running invocation is first asked, and how long after each answer again. Most are
/// over before that.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(2);

/// A question without an answer: Python switches threads every 5 ms, so this is C code that
/// keeps the interpreter's lock. Less is common: a large sort, a large regular expression.
pub(super) const HELD_AFTER: Duration = Duration::from_secs(10);

/// How long after a question the process must have been heard to be known to be alive: the
/// question itself may have been acknowledged before it froze.
pub(super) const ALIVE_AFTER: Duration = Duration::from_secs(1);

/// How long rows may wait that an invocation has asked for. It is counted in looks at the worker,
/// so that a machine that slept ends nobody.
pub(super) const READ_MAX: Duration = Duration::from_secs(30);

/// No step forward for so long. Plugins may well compute or wait for this long, so it is
/// worth a line, and no more.
pub(super) const FLAT_AFTER: Duration = Duration::from_secs(30);

/// A plugin that stands still and used this share of a processor loops; with less it waits.
/// What waits uses next to nothing; what loops shares the processors with others.
pub(super) const BUSY_SHARE: f64 = 0.1;
