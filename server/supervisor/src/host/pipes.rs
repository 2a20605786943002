//! How does what a worker prints come to the server?
//!
//! Through two pipes that the server makes and reads itself. The host only hands their other ends
//! to the worker: what passed through it would be found again in the memory of workers that it
//! forks later, and those are other triggers'.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use parking_lot::Mutex;
use rustix::fs::{Gid, Uid, fchown};
use tokio::{
    net::unix::pipe::Receiver,
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use super::{OutputLine, printed::Printed};

/// What is read at once: as much as a pipe holds.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Of a worker that has ended or begins another run, at most 1 MiB per pipe is read: what goes on
/// printing must not hold up the server.
const DRAIN_READS_MAX: usize = 16;
/// Lines wait for each other so long: whoever prints much waits, too.
const PAUSE: Duration = Duration::from_millis(1);
/// Reading takes at most one part in so many of the time.
const SHARE: u32 = 4;

/// What a worker prints, and where it comes from.
#[derive(Debug)]
pub(super) struct Output {
    printed: Mutex<Printed>,
    /// Standard output and standard error.
    pipes: [Receiver; 2],
}

impl Output {
    /// What comes of it, and the ends that the worker gets: its standard output and standard
    /// error, which are then `owner`'s, if it is not the server's user.
    pub(super) fn new(
        owner: Option<u32>,
    ) -> io::Result<(Self, mpsc::Receiver<OutputLine>, [OwnedFd; 2])> {
        let (stdout, their_stdout) = pipe(owner)?;
        let (stderr, their_stderr) = pipe(owner)?;
        let (printed, lines) = Printed::new();
        let output = Self {
            printed: Mutex::new(printed),
            pipes: [stdout, stderr],
        };
        Ok((output, lines, [their_stdout, their_stderr]))
    }

    /// For what the server says in its place.
    pub(super) fn says(&self) -> mpsc::WeakSender<OutputLine> {
        self.printed.lock().says()
    }

    /// Takes in what comes until nobody can print any more.
    pub(super) async fn follow(&self) {
        let [stdout, stderr] = &self.pipes;
        let mut is_open = [true; 2];
        while is_open != [false; 2] {
            let (at, ready) = tokio::select! {
                ready = stdout.readable(), if is_open[0] => (0, ready),
                ready = stderr.readable(), if is_open[1] => (1, ready),
            };
            let begun = Instant::now();
            is_open[at] = ready.is_ok() && self.take(at);
            // What prints without end takes its part of the server's time, and no more.
            sleep(PAUSE.max(begun.elapsed() * (SHARE - 1))).await;
        }
    }

    /// Takes in what a pipe holds now; returns whether anybody may still print into it.
    fn take(&self, at: usize) -> bool {
        // Whoever else reads waits, so that the bytes stay in their order.
        let mut printed = self.printed.lock();
        let mut buffer = vec![0; READ_BYTES_MAX];
        match self.pipes[at].try_read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                printed.on_output(at == 1, &buffer[..count]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Takes in what was printed up to now, and ends the lines that were begun: what comes then
    /// belongs to others.
    pub(super) fn end_lines(&self) {
        let mut printed = self.printed.lock();
        self.drain(&mut printed);
        printed.end_lines();
    }

    /// The worker has ended; returns its last lines of standard error.
    pub(super) fn end(&self) -> Vec<String> {
        let mut printed = self.printed.lock();
        self.drain(&mut printed);
        printed.end()
    }

    fn drain(&self, printed: &mut Printed) {
        let mut buffer = vec![0; READ_BYTES_MAX];
        for (pipe, stderr) in self.pipes.iter().zip([false, true]) {
            for _ in 0..DRAIN_READS_MAX {
                // Not the runtime's way, which reads nothing that it was not told of.
                match rustix::io::read(pipe.as_fd(), &mut buffer) {
                    Ok(count @ 1..) => printed.on_output(stderr, &buffer[..count]),
                    Ok(0) | Err(_) => break,
                }
            }
        }
    }
}

/// Our end, which does not wait, and theirs, which does.
fn pipe(owner: Option<u32>) -> io::Result<(Receiver, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    let theirs = OwnedFd::from(theirs);
    if let Some(owner) = owner {
        let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
        // Programs open what they have by its name in /dev; most get along without.
        let _open: rustix::io::Result<()> = fchown(&theirs, Some(user), Some(group));
    }
    Ok((Receiver::from_owned_fd(ours.into())?, theirs))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    #[tokio::test]
    async fn what_is_printed_before_the_end_is_taken_in_whoever_keeps_the_pipe_open() {
        let (output, mut lines, [stdout, stderr]) = Output::new(None).unwrap();
        let (mut stdout, mut stderr) = (File::from(stdout), File::from(stderr));
        stdout.write_all(&vec![b'x'; READ_BYTES_MAX - 1]).unwrap();
        stderr.write_all(b"one\ntwo").unwrap();
        assert_eq!(output.end(), ["one", "two"]);
        // Both write ends are still open.
        stdout.write_all(b"late\n").unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.recv().await {
            all.push((line.stderr, line.text));
        }
        let (is_stderr, long) = all.remove(1);
        assert!(!is_stderr && long.ends_with("(cut)"), "{long}");
        assert_eq!(all, [(true, "one".to_owned()), (true, "two".to_owned())]);
    }

    #[tokio::test]
    async fn lines_come_while_it_lives_and_the_end_is_noticed() {
        let (output, mut lines, [stdout, stderr]) = Output::new(None).unwrap();
        let output = std::sync::Arc::new(output);
        let mut follows = JoinSet::new();
        let followed = output.clone();
        follows.spawn(async move { followed.follow().await });
        let mut stderr = File::from(stderr);
        for (text, is_stderr) in [("one\n", true), ("two\n", true)] {
            stderr.write_all(text.as_bytes()).unwrap();
            let line = lines.recv().await.expect("it was printed");
            assert_eq!((line.text.as_str(), line.stderr), (text.trim(), is_stderr));
        }
        drop(stdout);
        stderr.write_all(b"begun").unwrap();
        output.end_lines();
        assert_eq!(lines.recv().await.expect("it was begun").text, "begun");
        drop(stderr);
        let ended = timeout(Duration::from_secs(30), follows.join_next()).await;
        assert!(ended.is_ok(), "it waits for what nobody can print");
    }

    /// The clock goes on only while nobody has anything to do: all that passes is pauses.
    #[tokio::test(start_paused = true)]
    async fn whoever_prints_without_end_waits_after_each_reading() {
        const READS: u32 = 64;
        let (output, _lines, [stdout, stderr]) = Output::new(None).unwrap();
        drop(stderr);
        let prints = std::thread::spawn(move || {
            let mut stdout = File::from(stdout);
            let much = vec![b'\n'; READ_BYTES_MAX];
            (0..READS).for_each(|_| stdout.write_all(&much).unwrap());
        });
        let begun = Instant::now();
        output.follow().await;
        prints.join().unwrap();
        let paused = begun.elapsed();
        assert!(paused >= PAUSE * READS, "{paused:?}");
    }

    #[tokio::test]
    async fn what_never_stops_printing_does_not_hold_up_the_end() {
        let (output, _lines, [stdout, _stderr]) = Output::new(None).unwrap();
        let prints = std::thread::spawn(move || {
            let mut stdout = File::from(stdout);
            while stdout.write_all(&[b'\n'; 4096]).is_ok() {}
        });
        output.end_lines();
        assert!(output.end().is_empty());
        drop(output);
        prints.join().unwrap();
    }
}
