//! A server of the S3 API for stores elsewhere: moto's, which keeps everything in memory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{client::plain_http, environments, eventually::eventually, process::command};

/// Listens until it is dropped.
#[derive(Debug)]
pub struct S3 {
    process: Child,
    endpoint: String,
    _directory: TempDir,
}

impl S3 {
    /// Listens on a port of its own, and has this bucket. `target` is where the environment
    /// that it runs in is made.
    pub async fn start(target: &Path, bucket: &str) -> Self {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let requirements = manifest.join("s3-requirements.txt");
        let venv = environments::prepare(target, "integration-s3-venv", &requirements);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let out = File::create(&log).expect("make its log");
        let process = command(venv.join("bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stderr(out.try_clone().expect("a descriptor more"))
            .stdout(out)
            .spawn()
            .expect("start moto");
        let endpoint = eventually("moto says where it listens", async || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let found = said.split("Running on ").nth(1);
            let found = found.and_then(|text| text.lines().next().map(str::trim));
            found.map(str::to_owned).ok_or(said)
        })
        .await;
        let made = plain_http()
            .put(format!("{endpoint}/{bucket}"))
            .send()
            .await
            .expect("moto answers");
        assert_eq!(made.status(), 200, "make the bucket");
        Self {
            process,
            endpoint,
            _directory: directory,
        }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// It answers nothing any more, though its port is there.
    pub fn hang(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// It answers again.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("pids fit");
        kill(Pid::from_raw(pid), signal).expect("it is still there");
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.process.kill().expect("it is still there");
        self.process.wait().expect("it is ours");
    }
}
