//! What has a worker printed? Bytes come from its pipes, lines go to its log.

use outrigger_model::clock::{Clock, SystemClock, Timestamp};
use tokio::sync::mpsc;

use crate::output::{LineSplitter, Tail};

/// How many printed lines may wait to be logged; more are dropped and counted.
const OUTPUT_LINES_MAX: usize = 1024;

/// A line that a worker printed.
#[derive(Debug)]
pub(crate) struct OutputLine {
    pub(crate) stderr: bool,
    pub(crate) text: String,
    pub(crate) time: Timestamp,
    /// How many lines before this one were dropped.
    pub(crate) dropped: u64,
}

/// The lines of one worker.
#[derive(Debug)]
pub(super) struct Printed {
    stdout: LineSplitter,
    stderr: LineSplitter,
    tail: Tail,
    dropped: u64,
    /// Where they go while it lives.
    lines: Option<mpsc::Sender<OutputLine>>,
    clock: SystemClock,
}

impl Printed {
    /// Nothing yet, and where its lines will come.
    pub(super) fn new() -> (Self, mpsc::Receiver<OutputLine>) {
        let (sender, lines) = mpsc::channel(OUTPUT_LINES_MAX);
        let printed = Self {
            stdout: LineSplitter::default(),
            stderr: LineSplitter::default(),
            tail: Tail::default(),
            dropped: 0,
            lines: Some(sender),
            clock: SystemClock::default(),
        };
        (printed, lines)
    }

    /// For what the server says in its place.
    pub(super) fn says(&self) -> mpsc::WeakSender<OutputLine> {
        let gone = || mpsc::channel(1).0.downgrade();
        self.lines
            .as_ref()
            .map_or_else(gone, mpsc::Sender::downgrade)
    }

    pub(super) fn on_output(&mut self, stderr: bool, data: &[u8]) {
        for text in self.splitter(stderr).push(data) {
            self.on_line(stderr, text);
        }
    }

    /// Ends the lines that it has begun: what comes belongs to others.
    pub(super) fn end_lines(&mut self) {
        for stderr in [false, true] {
            if let Some(rest) = self.splitter(stderr).finish() {
                self.on_line(stderr, rest);
            }
        }
    }

    /// It has ended; returns its last lines of standard error.
    pub(super) fn end(&mut self) -> Vec<String> {
        self.end_lines();
        self.lines = None;
        self.tail.lines()
    }

    fn splitter(&mut self, stderr: bool) -> &mut LineSplitter {
        if stderr {
            &mut self.stderr
        } else {
            &mut self.stdout
        }
    }

    fn on_line(&mut self, stderr: bool, text: String) {
        if stderr {
            self.tail.push(text.clone());
        }
        let Some(lines) = &self.lines else { return };
        let line = OutputLine {
            stderr,
            text,
            time: self.clock.now(),
            dropped: self.dropped,
        };
        match lines.try_send(line) {
            Ok(()) => self.dropped = 0,
            Err(_full) => self.dropped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_is_ended_by_its_run() {
        let (mut printed, mut lines) = Printed::new();
        let mut next = || {
            let line = lines.try_recv().ok()?;
            Some((line.stderr, line.text))
        };
        printed.on_output(false, b"one\nno end");
        printed.on_output(true, &vec![b'x'; 1 << 20]);
        assert_eq!(next(), Some((false, "one".to_owned())));
        assert_eq!(next(), None);
        printed.end_lines();
        assert_eq!(next(), Some((false, "no end".to_owned())));
        let (stderr, text) = next().expect("it was begun");
        assert!(stderr && text.ends_with("(cut)") && text.len() < 9000);
        // The next run begins its own.
        printed.on_output(false, b"two\n");
        printed.end_lines();
        assert_eq!(next(), Some((false, "two".to_owned())));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_nobody_takes_is_counted_and_the_last_words_are_kept() {
        let (mut printed, mut lines) = Printed::new();
        printed.on_output(true, "x\n".repeat(OUTPUT_LINES_MAX + 3).as_bytes());
        printed.on_output(true, b"last words");
        while lines.try_recv().is_ok() {}
        printed.on_output(true, b"!\n");
        assert_eq!(lines.try_recv().unwrap().dropped, 3);
        let said = printed.end();
        assert_eq!(said.last().map(String::as_str), Some("last words!"));
        assert!(lines.try_recv().is_err() && printed.says().upgrade().is_none());
    }
}
