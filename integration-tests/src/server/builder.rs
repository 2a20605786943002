//! What a server is to be like.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    client::Client,
    environments::prepare,
    leftovers::{GONE_WITHIN, Tag},
    log::Allowed,
    process::command,
    server::{
        Files, Server, StartFailure,
        start::{self, Started},
        target_directory,
    },
};

/// Warnings that every server of a story gives.
const ALWAYS_ALLOWED: [(&str, &str); 0] = [];

/// Describes a server. What is not said, is as most stories want it.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    plugins: Vec<(String, String)>,
    allowed: Vec<Allowed>,
    files: Files,
}

/// How the process is started.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) binary: PathBuf,
    /// Flags with their values; a flag comes once.
    flags: Vec<(String, Option<String>)>,
    /// Variables to be set, or not to be inherited.
    pub(crate) variables: Vec<(String, Option<String>)>,
    /// Whose process it is, if not ours.
    pub(super) user: Option<u32>,
    /// Whether what it mounts is seen by nobody else.
    pub(super) private_mounts: bool,
    /// How many descriptors each of its processes may have.
    pub(super) descriptors_max: Option<u32>,
}

impl Settings {
    fn set(&mut self, flag: &str, value: Option<String>) {
        self.remove(flag);
        self.flags.push((flag.to_owned(), value));
    }

    fn remove(&mut self, flag: &str) {
        self.flags.retain(|(name, _)| name != flag);
    }

    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        let found = self.flags.iter().find(|(name, _)| name == flag);
        found?.1.as_deref()
    }

    /// The arguments behind `serve`.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.flags
            .iter()
            .flat_map(|(flag, value)| [Some(flag.as_str()), value.as_deref()])
            .flatten()
    }
}

impl Builder {
    pub(super) fn new(binary: PathBuf) -> Self {
        let files = Files::new();
        let path = |path: PathBuf| Some(path.display().to_string());
        let mut settings = Settings {
            flags: Vec::new(),
            variables: Vec::new(),
            user: None,
            private_mounts: false,
            descriptors_max: None,
            binary,
        };
        let shared = target_directory(&settings.binary).join("integration-venv");
        for (flag, value) in [
            ("--node-id", Some("node".to_owned())),
            ("--object-store", Some("file".to_owned())),
            ("--data-dir", path(files.data())),
            ("--http-bind", Some("127.0.0.1:0".to_owned())),
            ("--plugin-dir", path(files.plugins())),
            ("--virtual-env-location", path(shared)),
            ("--wal-flush-interval", Some("10ms".to_owned())),
            ("--without-auth", None),
            ("--tcp-listener-file-path", path(files.address())),
            ("--log-format", Some("json".to_owned())),
        ] {
            settings.set(flag, value);
        }
        let builder = Self {
            settings,
            plugins: Vec::new(),
            allowed: Vec::new(),
            files,
        };
        let allowed = ALWAYS_ALLOWED.iter();
        allowed.fold(builder, |builder, (text, reason)| {
            builder.allow_log(text, reason)
        })
    }

    /// Puts a plugin into the plugin directory.
    pub fn plugin(mut self, name: &str, source: &str) -> Self {
        self.plugins.push((name.to_owned(), source.to_owned()));
        self
    }

    /// How often what was written is made durable.
    pub fn flush_interval(self, interval: Duration) -> Self {
        self.flag(
            "--wal-flush-interval",
            &format!("{}ms", interval.as_millis()),
        )
    }

    /// A virtual environment that is not shared with other stories.
    pub fn virtual_environment(self, location: &Path) -> Self {
        self.flag("--virtual-env-location", &location.display().to_string())
    }

    /// The virtual environment that has the packages of `examples-requirements.txt` too.
    pub fn with_packages(self) -> Self {
        self.with_requirements("integration-examples-venv", "examples-requirements.txt")
    }

    /// The virtual environment of this name, which has the packages of a file in this package
    /// too.
    pub fn with_requirements(self, environment: &str, file: &str) -> Self {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let target = target_directory(&self.settings.binary);
        let location = prepare(&target, environment, &requirements);
        self.virtual_environment(&location)
    }

    /// A virtual environment of the story's own, to install into and to break: a copy of the
    /// shared one, which must have been made.
    pub fn own_virtual_environment(self) -> Self {
        let shared = target_directory(&self.settings.binary).join("integration-venv");
        self.copied_environment(&shared)
    }

    /// The same, of another one.
    pub fn copied_environment(self, shared: &Path) -> Self {
        let location = self.files.directory().join("venv");
        let _lock = start::lock(shared);
        let copied = command("cp").arg("-a").arg(shared).arg(&location).status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "copy {}",
            shared.display()
        );
        self.virtual_environment(&location)
    }

    /// The data directory of another server.
    pub fn data_directory(self, path: &Path) -> Self {
        self.flag("--data-dir", &path.display().to_string())
    }

    /// Sets a flag to a value.
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.settings.set(flag, Some(value.to_owned()));
        if (flag, value) == ("--sandbox", "off") {
            return self.allow_log("plugins are not confined", "the story wants it so");
        }
        self
    }

    /// Adds a flag that has no value.
    pub fn switch(mut self, flag: &str) -> Self {
        self.settings.set(flag, None);
        self
    }

    /// Leaves a flag out.
    pub fn without(mut self, flag: &str) -> Self {
        self.settings.remove(flag);
        self
    }

    /// Sets a variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        let value = Some(value.to_owned());
        self.settings.variables.push((name.to_owned(), value));
        self
    }

    /// Takes a variable out of its environment.
    pub fn without_variable(mut self, name: &str) -> Self {
        self.settings.variables.push((name.to_owned(), None));
        self
    }

    /// Runs it as another user, which only root can. Its Python must be one that anybody may
    /// run, so neither the caller's search path nor the shared environment is used.
    pub fn as_user(mut self, user: u32) -> Self {
        self.settings.user = Some(user);
        let home = self.files.directory().display().to_string();
        self.variable("PATH", "/usr/local/bin:/usr/bin:/bin")
            .variable("HOME", &home)
    }

    /// Runs it where what it mounts is seen by nobody else: for plugins that try to mount.
    pub fn private_mounts(mut self) -> Self {
        self.settings.private_mounts = true;
        self
    }

    /// Lets each of its processes have so many descriptors at most.
    pub fn descriptors_max(mut self, count: u32) -> Self {
        self.settings.descriptors_max = Some(count);
        self
    }

    /// Allows warnings and errors that contain `text`, because of `reason`.
    pub fn allow_log(mut self, text: &str, reason: &'static str) -> Self {
        let text = text.to_owned();
        self.allowed.push(Allowed { text, reason });
        self
    }

    /// A directory for the story's own files.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Server {
        self.make_files();
        let tag = Tag::unique();
        let Started { process, address } = start::start(&self.settings, &self.files, &tag)
            .await
            .unwrap_or_else(|failure| panic!("the server does not start: {failure:#?}"));
        Server {
            settings: self.settings,
            files: self.files,
            tag,
            allowed: self.allowed,
            process: Some(process),
            client: Client::new(address),
        }
    }

    /// Starts it, which it must refuse.
    pub async fn start_refused(self) -> StartFailure {
        self.make_files();
        let tag = Tag::unique();
        match start::start(&self.settings, &self.files, &tag).await {
            Ok(_started) => panic!("the server starts, though it should refuse to"),
            Err(failure) => {
                let left = tag.wait_until_gone(GONE_WITHIN);
                assert!(left.is_empty(), "the server left processes: {left:?}");
                failure
            }
        }
    }

    fn make_files(&self) {
        fs::create_dir_all(self.files.plugins()).expect("make the plugin directory");
        for (name, source) in &self.plugins {
            let path = self.files.plugins().join(name);
            let directory = path.parent().expect("it is in the plugin directory");
            fs::create_dir_all(directory).expect("make a package");
            fs::write(path, source).expect("write a plugin");
        }
        if let Some(user) = self.settings.user {
            let owner = format!("{user}:{user}");
            let mut chown = command("chown");
            let status = chown.arg("-R").arg(owner).arg(self.files.directory());
            let given = status.status().expect("chown can be started");
            assert!(given.success(), "give the files to user {user}");
        }
    }
}
