//! Processes of a story: how they are described, started, watched and ended.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::eventually::PAUSE;

/// How long a server may take to shut down.
const SHUTDOWN_MAX: Duration = Duration::from_secs(45);

/// What passes from the environment of the tests: where programs are, and how pip and npm get at
/// packages. Everything else would make a story depend on who runs it.
const INHERITED: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
];

/// The same, of names that begin so.
const INHERITED_PREFIXES: [&str; 3] = ["PIP_", "NPM_CONFIG_", "npm_config_"];

/// A program to be started, with a clean environment and without standard input.
#[expect(
    clippy::disallowed_methods,
    reason = "stories start programs as a user does, not as the server does"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let inherited = std::env::vars_os().filter(|(name, _)| {
        let begins = |name: &str| {
            INHERITED_PREFIXES
                .iter()
                .any(|begin| name.starts_with(begin))
        };
        name.to_str()
            .is_some_and(|name| INHERITED.contains(&name) || begins(name))
    });
    command.env_clear().envs(inherited).stdin(Stdio::null());
    command
}

/// Waits a moment, for a look at something that tells nobody when it changes.
#[expect(
    clippy::disallowed_methods,
    reason = "used where a test is being dropped, outside of any runtime"
)]
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

/// A server's process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
}

impl ServerProcess {
    /// Starts it; what it prints is appended to the files.
    pub(crate) fn start(mut command: Command, stdout: &Path, stderr: &Path) -> io::Result<Self> {
        let append = |path| File::options().create(true).append(true).open(path);
        let child = command
            .stdout(append(stdout)?)
            .stderr(append(stderr)?)
            .spawn()?;
        Ok(Self { child })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Asks it to end and waits for that; `None` if it did not, and was killed.
    pub(crate) fn terminate(mut self) -> Option<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        if self.ended().is_none() {
            kill(pid, Signal::SIGTERM).expect("a running child can be signalled");
        }
        self.end_by_itself()
    }

    /// Waits for its end; `None` if it did not, and was killed.
    pub(crate) fn end_by_itself(mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + SHUTDOWN_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            pause();
        }
        None
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end();
    }
}
