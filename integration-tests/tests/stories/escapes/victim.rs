//! A process that must not notice anything: it counts signals and has a secret in its environment.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use outrigger_integration_tests::eventually;

/// Writes how many signals it has got, after each one.
const PROGRAM: &str = "
import os, signal, sys
path, count = sys.argv[1], 0
every = {s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)}
signal.pthread_sigmask(signal.SIG_BLOCK, every)
while True:
    with open(path + '.new', 'w') as f:
        f.write(str(count))
    os.replace(path + '.new', path)
    signal.sigwait(every)
    count += 1
";

#[derive(Debug)]
pub(super) struct Victim {
    child: Child,
    counted: PathBuf,
    state: Vec<String>,
}

impl Victim {
    /// Starts it as the server's user, so that no permission protects it.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is no child of the server's, and is not to be confined"
    )]
    pub(super) async fn start(directory: &Path, secret: &str, user: Option<u32>) -> Self {
        let counted = directory.join("victim");
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-I", "-S", "-c", PROGRAM])
            .arg(&counted)
            .env_clear()
            .env("VICTIMS_SECRET", secret)
            .stdin(Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let child = command.spawn().expect("Python can be started");
        eventually("the victim counts", async || {
            let there = counted.exists();
            there.then_some(()).ok_or_else(String::new)
        })
        .await;
        let mut victim = Self {
            child,
            counted,
            state: Vec::new(),
        };
        victim.state = victim.look();
        victim
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What others can do to it: signals, limits, priority, processors, tracing.
    fn look(&self) -> Vec<String> {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap_or_default()
        };
        let status = read("status");
        let told = ["State:\tT", "TracerPid:", "Cpus_allowed:"];
        let status = status
            .lines()
            .filter(|line| told.iter().any(|t| line.starts_with(t)));
        let mut state: Vec<_> = status.map(str::to_owned).collect();
        // Priority and niceness.
        let stat = read("stat");
        state.extend(stat.split(' ').skip(17).take(2).map(str::to_owned));
        state.extend(read("limits").lines().map(str::to_owned));
        state.push(fs::read_to_string(&self.counted).unwrap_or_default());
        state
    }

    /// Says what has been done to it since the last time.
    pub(super) fn suffered(&mut self) -> Option<String> {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return Some("the victim has ended".to_owned());
        }
        let now = self.look();
        if now == self.state {
            return None;
        }
        let different = now.iter().zip(&self.state).find(|(now, then)| now != then);
        let what = format!("the victim has noticed: {different:?}");
        self.state = now;
        Some(what)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
