//! Does the plugin get on, and if not, what does that mean?
//!
//! | pings | answers to probes | progress | CPU | meaning |
//! |---|---|---|---|---|
//! | no | no | | | the process is frozen |
//! | yes | no | | | C code holds the interpreter's lock |
//! | yes | yes | flat | used | a loop in one place |
//! | yes | yes | flat | not used | blocked: a system call, a lock, a sleep |
//!
//! Each meaning is reported once per invocation, and its end too. Nothing is ended for it.

use std::time::UNIX_EPOCH;

use outrigger_model::clock::Timestamp;
use tokio::time::{Duration, Instant};

use super::intervals::{
    ALIVE_AFTER, BUSY_SHARE, FLAT_AFTER, FROZEN_AFTER, HELD_AFTER, PROBE_EVERY,
};
use crate::backend::LogLevel;

/// What a silence means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    Frozen,
    LockHeld,
    Loop,
    Blocked,
}

const KINDS: usize = 4;

/// What the server sees by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// The same on the wall.
    pub(super) time: Timestamp,
    /// When the process was last heard, be it only the answer to a ping.
    pub(super) heard: Instant,
    /// CPU time of the process.
    pub(super) cpu: Duration,
    /// What its calls have moved; while one waits for the server, that is `None`.
    pub(super) moved: Option<u64>,
    /// Whether a signal has stopped the process.
    pub(super) stopped: bool,
}

/// Something to be logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Notice {
    pub(super) level: LogLevel,
    pub(super) text: String,
}

/// Watches one invocation.
#[derive(Debug)]
pub(super) struct Liveness {
    /// The question that waits for an answer, and when it was asked.
    asked: Option<Instant>,
    next_look: Instant,
    /// The plugin's own count, as last told.
    progress: u64,
    /// Where the plugin last was when it got on.
    mark: Option<Mark>,
    current: Option<(Trouble, Instant)>,
    reported: [bool; KINDS],
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    cpu: Duration,
    progress: u64,
    moved: u64,
}

impl Liveness {
    pub(super) fn start(now: Instant) -> Self {
        Self {
            asked: None,
            next_look: now + PROBE_EVERY,
            progress: 0,
            mark: None,
            current: None,
            reported: [false; KINDS],
        }
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// The worker has answered; false if it was not asked.
    pub(super) fn on_heartbeat(&mut self, progress: u64) -> bool {
        self.progress = progress;
        self.asked.take().is_some()
    }

    /// Looks at the worker: what is to be said, and whether it is to be asked again.
    pub(super) fn look(&mut self, seen: Seen) -> (Option<Notice>, bool) {
        self.next_look = seen.now + PROBE_EVERY;
        let found = self.judge(seen);
        let notice = self.report(found, seen);
        let ask = self.asked.is_none();
        self.asked.get_or_insert(seen.now);
        (notice, ask)
    }

    /// What is the matter, and since when.
    fn judge(&mut self, seen: Seen) -> Option<(Trouble, Instant)> {
        if seen.now.duration_since(seen.heard) >= FROZEN_AFTER {
            return Some((Trouble::Frozen, seen.heard));
        }
        if matches!(self.current, Some((Trouble::Frozen, _))) {
            // It is back, and has had no time to answer.
            self.asked = self.asked.map(|_| seen.now);
        }
        if let Some(asked) = self.asked
            && seen.now.duration_since(asked) >= HELD_AFTER
            && seen.heard >= asked + ALIVE_AFTER
        {
            return Some((Trouble::LockHeld, asked));
        }
        let mark = self.mark(seen);
        let flat = seen.now.duration_since(mark.at);
        // Without answers nothing is known of its progress.
        if flat < FLAT_AFTER || self.asked.is_some() {
            return self.current.filter(|_| self.asked.is_some());
        }
        let used = seen.cpu.saturating_sub(mark.cpu);
        if used.as_secs_f64() >= flat.as_secs_f64() * BUSY_SHARE {
            return Some((Trouble::Loop, mark.at));
        }
        Some((Trouble::Blocked, mark.at))
    }

    /// Where the plugin last got on: here, if it has.
    fn mark(&mut self, seen: Seen) -> Mark {
        let here = Mark {
            at: seen.now,
            cpu: seen.cpu,
            progress: self.progress,
            moved: seen.moved.unwrap_or_default(),
        };
        let stays = |mark: &Mark| {
            mark.progress == here.progress && seen.moved.is_some_and(|moved| moved == mark.moved)
        };
        *self.mark.insert(self.mark.filter(stays).unwrap_or(here))
    }

    fn report(&mut self, found: Option<(Trouble, Instant)>, seen: Seen) -> Option<Notice> {
        let before = self.current;
        if before.map(|(trouble, _)| trouble) == found.map(|(trouble, _)| trouble) {
            return None;
        }
        self.current = found;
        if let Some((trouble, since)) = found {
            let reported = &mut self.reported[trouble as usize];
            if std::mem::replace(reported, true) {
                return None;
            }
            let text = trouble.text(seen, since);
            let level = LogLevel::Warn;
            return Some(Notice { level, text });
        }
        let (trouble, since) = before?;
        let lasted = seen.now.duration_since(since).as_secs();
        let text = format!("{} after {lasted} s", trouble.over());
        let level = LogLevel::Info;
        Some(Notice { level, text })
    }
}

impl Trouble {
    fn text(self, seen: Seen, since: Instant) -> String {
        let lasted = seen.now.duration_since(since);
        let seconds = lasted.as_secs();
        let at = wall(seen.time, lasted);
        match self {
            Self::Frozen => {
                let why = if seen.stopped {
                    "a signal has stopped it"
                } else {
                    "it is frozen, or the machine is overloaded"
                };
                format!("the worker's process has not reacted for {seconds} s, since {at}: {why}")
            }
            Self::LockHeld => format!(
                "no Python code has run for {seconds} s, since {at}: C code holds the \
                 interpreter's lock (GIL)"
            ),
            Self::Loop => format!(
                "the plugin has got no further for {seconds} s, since {at}, and uses the \
                 processor: a loop in one place"
            ),
            Self::Blocked => format!(
                "the plugin has got no further for {seconds} s, since {at}, and uses no \
                 processor: it is blocked in a system call, or waits for a lock"
            ),
        }
    }

    fn over(self) -> &'static str {
        match self {
            Self::Frozen => "the worker's process reacts again,",
            Self::LockHeld => "Python code runs again,",
            Self::Loop | Self::Blocked => "the plugin gets on again,",
        }
    }
}

/// When it was so long ago, in UTC.
fn wall(now: Timestamp, ago: Duration) -> String {
    let nanos = u64::try_from(now.0).unwrap_or_default();
    let time = UNIX_EPOCH + Duration::from_nanos(nanos).saturating_sub(ago);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests;
