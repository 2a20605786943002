//! Servers of object stores elsewhere, which keep everything in memory: moto for S3, Azurite for
//! Azure, and for Google what `google_by_moto.py` makes of moto. Each is installed below the target
//! directory when it is first needed: with pip, and Azurite with npm.

mod azure;
mod google;
mod s3;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use object_store::ObjectStore;
use tempfile::TempDir;

use crate::{eventually::eventually, server::Builder};

/// Whose language a store speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cloud {
    /// Amazon.
    S3,
    /// Microsoft.
    Azure,
    /// Google.
    Google,
}

/// A store with one bucket. Listens on a port of its own until it is dropped.
#[derive(Debug)]
pub struct CloudStore {
    process: Process,
    access: Access,
    bucket: String,
    directory: TempDir,
}

/// How one gets at a store.
#[derive(Debug)]
struct Access {
    /// Flags of a server under test, with their values if they have some.
    flags: Vec<(&'static str, Option<String>)>,
    /// What is secret, and what leads to it, is given in its environment.
    variables: Vec<(&'static str, String)>,
    client: Arc<dyn ObjectStore>,
}

impl CloudStore {
    /// Starts one that has this bucket. `target` is where the environment that it runs in is made.
    pub async fn start(cloud: Cloud, target: &Path, bucket: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let out = File::create(&log).expect("make its log");
        let mut command = match cloud {
            Cloud::S3 => s3::command(target),
            Cloud::Azure => azure::command(target),
            Cloud::Google => google::command(target, bucket, directory.path()),
        };
        let process = Process::start(&mut command, out);
        let endpoint = eventually("the store says where it listens", async || {
            listens_at(&log).ok_or_else(|| fs::read_to_string(&log).unwrap_or_default())
        })
        .await;
        let access = match cloud {
            Cloud::S3 => s3::access(&endpoint, bucket).await,
            Cloud::Azure => azure::access(target, &endpoint, bucket),
            Cloud::Google => google::access(directory.path(), bucket),
        };
        Self {
            process,
            access,
            bucket: bucket.to_owned(),
            directory,
        }
    }

    /// The server with all that it needs to keep its data here.
    pub fn used_by(&self, server: Builder) -> Builder {
        let server = server.flag("--bucket", &self.bucket);
        let flags = self.access.flags.iter();
        let server = flags.fold(server, |server, (flag, value)| match value {
            Some(value) => server.flag(flag, value),
            None => server.switch(flag),
        });
        let variables = self.access.variables.iter();
        variables.fold(server, |server, (name, value)| server.variable(name, value))
    }

    /// What nobody but the server may see.
    pub fn secrets(&self) -> Vec<&str> {
        let variables = self.access.variables.iter();
        variables.map(|(_, value)| value.as_str()).collect()
    }

    /// What lies in the bucket, for a story that looks or does harm.
    pub fn client(&self) -> &dyn ObjectStore {
        self.access.client.as_ref()
    }

    /// A directory for what has to do with this store.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// It answers nothing any more, though its port is there.
    pub fn hang(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// It answers again.
    pub fn go_on(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// From now on it believes nobody. Only that of S3 has to be told.
    pub async fn refuse_everybody(&self) {
        s3::refuse_everybody(&self.endpoint()).await;
    }

    /// Where that of S3 listens.
    pub fn endpoint(&self) -> String {
        let flags = self.access.flags.iter();
        let mut endpoints = flags.filter(|(flag, _)| *flag == "--aws-endpoint");
        let endpoint = endpoints.next().and_then(|(_, value)| value.clone());
        endpoint.expect("it is that of S3")
    }
}

/// Killed when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(command: &mut Command, out: File) -> Self {
        let error = out.try_clone().expect("a descriptor more");
        let started = command.stderr(error).stdout(out).spawn();
        Self(started.unwrap_or_else(|error| panic!("start {command:?}: {error}")))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("pids fit");
        kill(Pid::from_raw(pid), signal).expect("it is still there");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().expect("it is still there");
        self.0.wait().expect("it is ours");
    }
}

/// The address that it has printed.
fn listens_at(log: &Path) -> Option<String> {
    let said = fs::read_to_string(log).ok()?;
    let marks = ["Running on ", "successfully listens on "];
    let found = marks.iter().find_map(|mark| said.split(mark).nth(1))?;
    // With its end: it may be still printing.
    let (address, _) = found.split_once('\n')?;
    Some(address.trim().to_owned())
}

/// A file of this package.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}
