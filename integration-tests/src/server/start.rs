//! From a description to a server that listens, or to the reason why there is none.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    eventually::{PATIENCE, PAUSE},
    leftovers::{self, Tag},
    process::{ServerProcess, command},
    server::{Files, builder::Settings},
};

/// How long the first start of a virtual environment may take: it downloads packages.
const INSTALL_MAX: Duration = Duration::from_mins(10);

/// A server that listens.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: ServerProcess,
    pub(super) address: SocketAddr,
}

/// A server that did not start.
#[derive(Clone, Debug)]
pub struct StartFailure {
    /// Its exit code; -1 if a signal ended it, `None` if it had to be killed.
    pub code: Option<i32>,
    /// What it printed on both streams.
    pub output: String,
}

impl StartFailure {
    /// Fails unless it ended by itself, with this code and a text that contains `part`.
    #[track_caller]
    pub fn check(&self, code: i32, part: &str) {
        assert!(!self.output.contains("panicked"), "{}", self.output);
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.output.contains(part), "expected {part:?} in {self:#?}");
    }
}

/// Starts a server. One at a time per virtual environment, since the first one makes it.
pub(super) async fn start(
    settings: &Settings,
    files: &Files,
    tag: &Tag,
) -> Result<Started, StartFailure> {
    let environment = settings.value("--virtual-env-location").map(Path::new);
    // Released when it is dropped.
    let _lock = environment.map(lock);
    let is_made = environment.is_none_or(|location| location.join("bin/python").exists());
    let patience = if is_made { PATIENCE } else { INSTALL_MAX };
    // The old one would be believed.
    remove(&files.address());
    // An earlier run's output is not this run's.
    let printed = [files.stdout(), files.stderr()].map(|path| (size(&path), path));
    let mut process = ServerProcess::start(
        program(settings, files, tag),
        &files.stdout(),
        &files.stderr(),
    )
    .expect("the binary can be started");
    tag.add_server(process.pid());
    let deadline = Instant::now() + patience;
    loop {
        let address = fs::read_to_string(files.address()).unwrap_or_default();
        if let Ok(address) = address.trim().parse() {
            return Ok(Started { process, address });
        }
        let ended = process.ended();
        if ended.is_some() || Instant::now() > deadline {
            let output = printed.iter().map(|(from, path)| read_from(path, *from));
            return Err(StartFailure {
                code: ended.map(|status| status.code().unwrap_or(-1)),
                output: output.collect(),
            });
        }
        sleep(PAUSE).await;
    }
}

/// Waits until nobody else makes or copies a virtual environment; released when dropped.
pub(super) fn lock(location: &Path) -> File {
    let lock = File::create(location.with_extension("lock")).expect("make the lock");
    lock.lock().expect("take the lock");
    lock
}

fn program(settings: &Settings, files: &Files, tag: &Tag) -> Command {
    let mut command = if let Some(count) = settings.descriptors_max {
        let mut limited = command("sh");
        limited.args(["-c", r#"ulimit -n "$1" && shift && exec "$@""#, "sh"]);
        limited.arg(count.to_string()).arg(&settings.binary);
        limited
    } else if settings.private_mounts {
        let mut unshare = command("unshare");
        unshare.args(["--mount", "--propagation", "private", "--"]);
        unshare.arg(&settings.binary);
        unshare
    } else {
        command(&settings.binary)
    };
    if let Some(user) = settings.user {
        command.uid(user).gid(user);
    }
    command
        .arg("serve")
        .args(settings.arguments())
        .current_dir(files.directory())
        .env(leftovers::VARIABLE, tag.value())
        // A server that is killed cannot clean up after itself.
        .env("TMPDIR", files.directory());
    for (name, value) in &settings.variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            panic!("remove {}: {error}", path.display())
        }
        _ => {}
    }
}

fn size(path: &Path) -> usize {
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    usize::try_from(size).expect("a log fits into memory")
}

fn read_from(path: &Path, from: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}
