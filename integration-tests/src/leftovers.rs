//! Which processes a server has left behind. Every server gets a tag in its environment, which
//! its children inherit, so that they are found whoever their parent is by then.

use std::{
    fmt, fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::process::pause;

/// The variable that holds the tag.
pub(crate) const VARIABLE: &str = "OUTRIGGER_TEST_ID";

/// How long processes may take to be gone after their server is.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(10);

/// What the command of the spawner and of keepers shows, before the server's pid. Their
/// environment is empty.
const SPAWNER: &str = "__outrigger-spawn";

/// What the command of a host shows, and that of the workers it forks.
const HOST_MODULE: &str = "outrigger_plugin_host";

/// Marks the processes of one server.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    value: String,
    /// The pids of its servers, one after the other.
    servers: Arc<Mutex<Vec<u32>>>,
}

impl Tag {
    /// A tag that no other server on this machine has at this time.
    pub(crate) fn unique() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            value: format!("{}-{count}", std::process::id()),
            servers: Arc::default(),
        }
    }

    /// The value of [`VARIABLE`].
    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    /// A server that was started with the tag.
    pub(crate) fn add_server(&self, pid: u32) {
        self.servers.lock().expect("no test panics here").push(pid);
    }

    /// The processes that have the tag.
    pub(crate) fn processes(&self) -> Vec<Leftover> {
        let entry = format!("{VARIABLE}={}", self.value);
        let servers = self.servers.lock().expect("no test panics here").clone();
        let Ok(directory) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        directory
            .filter_map(|process| {
                let process = process.ok()?;
                let pid = process.file_name().to_str()?.parse().ok()?;
                // A process that ends meanwhile cannot be read, and is none.
                let found = Leftover::new(pid);
                let environment = fs::read(process.path().join("environ")).unwrap_or_default();
                let mut variables = environment.split(|byte| *byte == 0);
                let tagged = variables.any(|variable| variable == entry.as_bytes());
                (tagged || found.is_spawner_of(&servers)).then_some(found)
            })
            .collect()
    }

    /// Kills the processes that run plugins, and returns how many there were.
    pub(crate) fn kill_workers(&self) -> usize {
        let workers = self.processes().into_iter().filter(Leftover::is_worker);
        workers
            .filter(|worker| kill(Pid::from_raw(worker.pid), Signal::SIGKILL).is_ok())
            .count()
    }

    /// Waits until no process has the tag; those that stay are killed and returned.
    pub(crate) fn wait_until_gone(&self, within: Duration) -> Vec<Leftover> {
        let deadline = Instant::now() + within;
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                for leftover in &left {
                    // It may have ended by now.
                    let _: nix::Result<()> = kill(Pid::from_raw(leftover.pid), Signal::SIGKILL);
                }
                return left;
            }
            pause();
        }
    }
}

/// A process that should not be there any more.
#[derive(Clone, Debug)]
pub(crate) struct Leftover {
    pid: i32,
    command: String,
}

impl Leftover {
    fn new(pid: i32) -> Self {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Self { pid, command }
    }

    /// Whether it runs plugins: it was forked by the host, and looks like it.
    fn is_worker(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let mut lines = status.lines();
        let parent = lines.find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
        parent
            .is_some_and(|parent| self.command.contains(HOST_MODULE) && Self::new(parent).is_host())
    }

    /// Whether it starts what one of these servers asks for, or keeps it.
    fn is_spawner_of(&self, servers: &[u32]) -> bool {
        let mut words = self.command.split(' ').skip_while(|word| *word != SPAWNER);
        let server = words.nth(1).and_then(|pid| pid.parse().ok());
        server.is_some_and(|server| servers.contains(&server))
    }

    /// Whether it forks workers, or is itself such a fork.
    fn is_host(&self) -> bool {
        self.command.contains(HOST_MODULE)
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.command.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;

    #[test]
    fn a_process_is_found_by_its_tag_and_ended() {
        let (tag, other) = (Tag::unique(), Tag::unique());
        let mut sleep = command("sleep");
        sleep.arg("1000").env(VARIABLE, tag.value());
        let mut child = sleep.spawn().unwrap();
        // Until it has become `sleep`, it is a copy of this process.
        while tag.processes().is_empty() {
            pause();
        }
        assert!(other.processes().is_empty());
        let left = tag.wait_until_gone(Duration::ZERO);
        assert_eq!(left.len(), 1);
        assert!(left[0].to_string().contains("sleep 1000"), "{left:?}");
        assert!(!child.wait().unwrap().success());
        assert!(tag.wait_until_gone(Duration::ZERO).is_empty());
    }
}
