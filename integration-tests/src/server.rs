//! A running server, from its first start to the proof that it has left nothing behind.

mod builder;
mod start;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub use self::{builder::Builder, start::StartFailure};
use self::{builder::Settings, start::Started};
use crate::{
    client::Client,
    command_line::CommandLine,
    database::Database,
    eventually::eventually,
    leftovers::{GONE_WITHIN, Tag},
    log::{self, Allowed},
    process::ServerProcess,
};

/// How many lines of the log a failed story shows.
const SHOWN_LINES: usize = 60;

/// What the server logs when a worker has ended by itself.
const WORKER_ENDED: &str = "worker ended";

/// A server that listens. Dropping it stops it and checks what it leaves.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    files: Files,
    tag: Tag,
    allowed: Vec<Allowed>,
    /// None only while it is down.
    process: Option<ServerProcess>,
    client: Client,
}

/// Where a server keeps what; the directory goes when this does.
#[derive(Debug)]
pub(crate) struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("make a temporary directory"))
    }

    fn directory(&self) -> &Path {
        self.0.path()
    }

    fn plugins(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn address(&self) -> PathBuf {
        self.0.path().join("address")
    }

    fn stdout(&self) -> PathBuf {
        self.0.path().join("stdout.log")
    }

    fn stderr(&self) -> PathBuf {
        self.0.path().join("stderr.log")
    }

    fn log(&self) -> Vec<log::Line> {
        let mut lines = log::read(&self.stdout());
        lines.extend(log::read(&self.stderr()));
        lines
    }
}

impl Server {
    /// Describes a server: `env!("CARGO_BIN_EXE_server-under-test")` is the binary.
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder::new(binary.into())
    }

    /// Talks to it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// One of its databases, which need not exist.
    pub fn database(&self, name: &str) -> Database {
        self.client.database(name)
    }

    /// Client commands that find it.
    pub fn command_line(&self) -> CommandLine {
        let directory = self.files.directory();
        CommandLine::new(self.binary(), directory, &self.client.url())
    }

    /// Its process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it is running").pid()
    }

    /// The most memory that it has ever had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a number of kB") / 1024
    }

    /// The directory that it keeps its data in.
    pub fn data_directory(&self) -> PathBuf {
        self.files.data()
    }

    /// What the file of this name holds that some trigger keeps.
    pub fn kept(&self, name: &str) -> Option<String> {
        let triggers = self.kept_directories();
        let kept = triggers.map(|trigger| fs::read_to_string(trigger.join(name)));
        kept.flatten().next()
    }

    /// The directories in which triggers keep files.
    pub fn kept_directories(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let nodes = fs::read_dir(self.files.data()).into_iter().flatten();
        let states = nodes.flatten().map(|node| node.path().join("plugin-state"));
        let triggers = states.flat_map(fs::read_dir).flatten().flatten();
        triggers.map(|trigger| trigger.path())
    }

    /// How many descriptors it has.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.map_or(0, Iterator::count)
    }

    /// A directory for the story's own files.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.settings.binary
    }

    /// The directory that it finds plugins in.
    pub fn plugin_directory(&self) -> PathBuf {
        self.files.plugins()
    }

    /// How many processes it has started that have not ended.
    pub fn children(&self) -> usize {
        // Itself is one of those that have its tag.
        self.tag.processes().len().saturating_sub(1)
    }

    /// The lines of its log.
    pub fn log_lines(&self) -> Vec<String> {
        self.files.log().iter().map(ToString::to_string).collect()
    }

    /// Writes a plugin into its plugin directory.
    pub fn write_plugin(&self, name: &str, source: &str) {
        fs::write(self.files.plugins().join(name), source).expect("write a plugin");
    }

    /// Allows warnings and errors that contain `text`, because of `reason`.
    pub fn allow_log(&mut self, text: &str, reason: &'static str) {
        let text = text.to_owned();
        self.allowed.push(Allowed { text, reason });
    }

    /// Whether a line of its log contains the text.
    pub fn has_logged(&self, text: &str) -> bool {
        self.files.log().iter().any(|line| line.contains(text))
    }

    /// How many lines of its log contain the text.
    pub fn count_logged(&self, text: &str) -> usize {
        let lines = self.files.log();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// What it has logged, byte for byte.
    pub fn log_bytes(&self) -> Vec<u8> {
        let mut bytes = fs::read(self.files.stdout()).unwrap_or_default();
        bytes.extend(fs::read(self.files.stderr()).unwrap_or_default());
        bytes
    }

    /// Whether its process has ended, and with which exit code; -1 stands for a signal.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.process.as_mut()?.ended()?;
        Some(status.code().unwrap_or(-1))
    }

    /// Kills its workers, which should be idle, and waits until it knows.
    pub async fn kill_workers(&self) {
        let known = self.lines_with(WORKER_ENDED);
        let killed = self.tag.kill_workers();
        assert!(killed > 0, "there is no worker to kill");
        eventually("the server has seen its workers end", async || {
            let seen = self.lines_with(WORKER_ENDED) - known;
            if seen < killed {
                Err(format!("{seen} of {killed}"))
            } else {
                Ok(())
            }
        })
        .await;
    }

    fn lines_with(&self, text: &str) -> usize {
        let lines = self.files.log();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Kills it without warning. No process may outlive it.
    pub fn kill_9(&mut self) {
        self.process.take().expect("it is running").kill();
        self.check_nothing_is_left();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).expect("a child can be signalled");
    }

    /// Waits until it ends with this exit code, with all the checks of a drop.
    pub fn ends_with(&mut self, code: i32) {
        let process = self.process.take().expect("it is running");
        let status = process.end_by_itself().expect("it ends");
        assert_eq!(status.code(), Some(code), "the server ended with {status}");
        self.check_nothing_is_left();
        self.check_log();
    }

    /// Stops it in order, with all the checks of a drop.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("it is running");
        let status = process.terminate().expect("it ends when it is asked to");
        assert!(status.success(), "the server ended with {status}");
        self.check_nothing_is_left();
        self.check_log();
    }

    /// Starts it again after it was stopped or killed. It gets a new address.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let Started { process, address } = start::start(&self.settings, &self.files, &self.tag)
            .await
            .unwrap_or_else(|failure| panic!("the server does not start again: {failure:#?}"));
        self.client = Client::new(address);
        self.process = Some(process);
    }

    /// Starts it again, which it must refuse.
    pub async fn restart_refused(&mut self) -> StartFailure {
        assert!(self.process.is_none(), "stop it first");
        match start::start(&self.settings, &self.files, &self.tag).await {
            Ok(_started) => panic!("the server starts, though it should refuse to"),
            Err(failure) => failure,
        }
    }

    #[track_caller]
    fn check_nothing_is_left(&self) {
        let left = self.tag.wait_until_gone(GONE_WITHIN);
        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "the server left processes: {left:#?}");
    }

    #[track_caller]
    fn check_log(&self) {
        let unexpected = log::unexpected(&self.files.log(), &self.allowed);
        let allowed: Vec<_> = self.allowed.iter().map(|allowed| allowed.reason).collect();
        assert!(
            unexpected.is_empty(),
            "unexpected lines in the log (allowed are: {allowed:?}):\n{}",
            unexpected.join("\n")
        );
    }

    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with the failure"
    )]
    fn show_log(&self) {
        let lines = self.files.log();
        let first = lines.len().saturating_sub(SHOWN_LINES);
        eprintln!("the end of the server's log:");
        for line in &lines[first..] {
            eprintln!("{line}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_log();
            // Kills it; what it leaves is killed too, but no second failure is reported.
            drop(self.process.take());
            self.tag.wait_until_gone(GONE_WITHIN);
        } else if self.process.is_some() {
            self.stop();
        }
    }
}

/// The directory that Cargo builds into: it is two above the binary.
pub(crate) fn target_directory(binary: &Path) -> PathBuf {
    let target = binary.ancestors().nth(2);
    target.expect("binaries lie in target/<profile>").to_owned()
}
