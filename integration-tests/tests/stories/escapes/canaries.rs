//! What an attempt must not touch, read, reach or leave: each tells by itself whether it did.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use outrigger_integration_tests::Server;

use super::{
    snapshot::{Snapshot, names},
    victim::Victim,
};

/// Of the interpreters that attempts could poison: their directories, and what was in them.
type Listed = Vec<(PathBuf, Vec<PathBuf>)>;

/// Directories that are closed to all but their owners: the server's user, and somebody else.
const CLOSED: [(&str, Option<u32>); 2] = [("closed", None), ("others", Some(SOMEBODY))];
const SOMEBODY: u32 = 12_345;

#[derive(Debug)]
pub(super) struct Canaries {
    directory: PathBuf,
    plugins: PathBuf,
    data: PathBuf,
    secrets: Vec<(&'static str, String)>,
    tcp: TcpListener,
    udp: UdpSocket,
    abstracted: (String, UnixListener),
    open: (PathBuf, UnixListener),
    other: (PathBuf, UnixListener),
    /// In the machine's shared memory.
    shared: PathBuf,
    victim: Victim,
    before: Option<Snapshot>,
    listed: Listed,
}

/// A secret that its owner alone knows; see `_secrets` in the attempts.
pub(super) fn secret(of: &str) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write(of.as_bytes());
    format!("CANARY{:016x}", hasher.finish())
}

impl Canaries {
    pub(super) async fn place(
        server: &Server,
        user: Option<u32>,
        environment: &Path,
        known: Vec<(&'static str, String)>,
    ) -> Self {
        let directory = server.directory().join("canaries");
        let data = server.data_directory().join("canary");
        for made in [&directory, &data, &directory.join("w2")] {
            fs::create_dir_all(made).expect("make a directory");
        }
        let mut secrets = known;
        secrets.push(("the data", secret("data")));
        secrets.push(("the token file", secret("token")));
        secrets.push(("the victim", secret("victim")));
        secrets.push(("the shared memory", secret("memory")));
        let of = |owner| Self::secret_of(&secrets, owner);
        let write = |path: PathBuf, owner| {
            fs::write(&path, of(owner)).expect("write a canary");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&path, mode).expect("set its mode");
        };
        write(data.join("000001.wal"), "the data");
        write(directory.join("admin.token"), "the token file");
        let shared = PathBuf::from(format!("/dev/shm/outrigger-canary-{}", server.pid()));
        write(shared.clone(), "the shared memory");
        let unix = |path: PathBuf| {
            let listener = UnixListener::bind(&path).expect("listen");
            listener.set_nonblocking(true).expect("a socket");
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(&path, mode).expect("set its mode");
            (path, listener)
        };
        let open = unix(directory.join("open.sock"));
        let other = unix(directory.join("w2/other.sock"));
        let name = format!("outrigger-canary-{}", server.pid());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let abstracted = UnixListener::bind_addr(&address).expect("listen");
        abstracted.set_nonblocking(true).expect("a socket");
        let tcp = TcpListener::bind("[::]:0").expect("listen");
        tcp.set_nonblocking(true).expect("a socket");
        let udp = UdpSocket::bind("[::]:0").expect("listen");
        udp.set_nonblocking(true).expect("a socket");
        give(&[&directory, &data, &shared], user);
        for (name, owner) in CLOSED {
            close(&directory.join(name), owner.or(user));
        }
        let victim = Victim::start(&directory, &of("the victim"), user).await;
        Self {
            plugins: server.plugin_directory(),
            tcp,
            udp,
            abstracted: (name, abstracted),
            open,
            other,
            shared,
            victim,
            before: None,
            listed: interpreters(environment),
            directory,
            data,
            secrets,
        }
    }

    pub(super) fn secret_of(secrets: &[(&'static str, String)], owner: &str) -> String {
        let found = secrets.iter().find(|(name, _)| *name == owner);
        found.expect("it has a secret").1.clone()
    }

    /// A file that an attempt makes when it runs what it must not.
    pub(super) fn marker(&self, attempt: &str) -> PathBuf {
        self.directory.join(format!("marker-{attempt}"))
    }

    /// What an attempt is told about them.
    pub(super) fn arguments(&self, attempt: &str) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let port = |address: std::io::Result<std::net::SocketAddr>| {
            address.expect("it listens").port().to_string()
        };
        vec![
            ("db_file", text(&self.data.join("000001.wal"))),
            ("server_pid", self.victim.pid().to_string()),
            ("other_plugin", text(&self.plugins.join("neighbour.py"))),
            (
                "own_plugin",
                text(&self.plugins.join(format!("{attempt}.py"))),
            ),
            ("token_file", text(&self.directory.join("admin.token"))),
            ("tcp_port", port(self.tcp.local_addr())),
            ("udp_port", port(self.udp.local_addr())),
            ("abstract", self.abstracted.0.clone()),
            ("open_sock", text(&self.open.0)),
            ("other_sock", text(&self.other.0)),
            ("marker", text(&self.marker(attempt))),
            ("shared", text(&self.shared)),
            ("closed_dir", text(&self.directory.join(CLOSED[0].0))),
            ("others_dir", text(&self.directory.join(CLOSED[1].0))),
        ]
    }

    /// Remembers how everything is.
    pub(super) fn arm(&mut self) {
        self.before = Some(self.look());
    }

    fn look(&self) -> Snapshot {
        let mut all = Snapshot::take(&self.data);
        all.merge(Snapshot::take(&self.directory.join("admin.token")));
        all.merge(Snapshot::take(&self.plugins));
        all
    }

    /// Says what was done to them, and puts things right.
    pub(super) fn harmed(&mut self, attempt: &str) -> Vec<String> {
        let mut harmed = Vec::new();
        let now = self.look();
        if let Some(before) = self.before.take() {
            harmed.extend(before.differences(&now));
            if !harmed.is_empty() {
                before.restore(&now);
            }
        }
        harmed.extend(self.reached());
        harmed.extend(self.victim.suffered());
        harmed.extend(self.ran(attempt));
        let stored = self.shared.with_extension("made");
        if stored.exists() {
            harmed.push("the machine's shared memory was used".to_owned());
            remove(&stored);
        }
        for (directory, before) in &self.listed {
            for name in names(directory) {
                if !before.contains(&name) {
                    harmed.push(format!("{} is new", name.display()));
                    remove(&name);
                }
            }
        }
        harmed
    }

    /// Whether the attempt's marker is there.
    pub(super) fn ran(&self, attempt: &str) -> Option<String> {
        let marker = self.marker(attempt);
        let ran = marker.exists();
        if ran {
            remove(&marker);
        }
        ran.then(|| "something ran that made the marker".to_owned())
    }

    fn reached(&self) -> Vec<String> {
        let mut reached = Vec::new();
        let mut count = |what: &str, accept: &mut dyn FnMut() -> bool| {
            let mut times = 0;
            while accept() {
                times += 1;
            }
            if times > 0 {
                reached.push(format!("{what} was reached {times} times"));
            }
        };
        count("the TCP listener", &mut || self.tcp.accept().is_ok());
        count("the UDP socket", &mut || {
            self.udp.recv(&mut [0; 64]).is_ok()
        });
        count("the abstract socket", &mut || {
            self.abstracted.1.accept().is_ok()
        });
        count("the open socket", &mut || self.open.1.accept().is_ok());
        count("another worker's socket", &mut || {
            self.other.1.accept().is_ok()
        });
        reached
    }

    /// Which secrets a text gives away.
    pub(super) fn told(&self, text: &str) -> Vec<String> {
        let told = self
            .secrets
            .iter()
            .filter(|(_, secret)| text.contains(secret));
        told.map(|(owner, _)| format!("the secret of {owner} came out"))
            .collect()
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        // The others lie in the server's directory.
        remove(&self.shared);
    }
}

/// Makes a directory with a file that only its owner may look at, where this can be done.
fn close(directory: &Path, owner: Option<u32>) {
    fs::create_dir_all(directory).expect("make a directory");
    fs::write(directory.join("hidden"), "hidden").expect("write a file");
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(directory, mode).expect("set its mode");
    if nix::unistd::geteuid().is_root() {
        give(&[directory], owner);
    }
}

/// Gives files to the server's user.
pub(super) fn give(paths: &[&Path], user: Option<u32>) {
    let Some(user) = user else { return };
    for path in paths {
        let inner: Vec<_> = walk(path);
        for one in inner {
            std::os::unix::fs::lchown(&one, Some(user), Some(user)).expect("root may");
        }
    }
}

fn walk(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if all[next].is_dir() && !all[next].is_symlink() {
            all.extend(names(&all[next].clone()));
        }
        next += 1;
    }
    all
}

/// Where modules come from, in an environment and in what it was made from.
fn interpreters(environment: &Path) -> Listed {
    let home = fs::read_to_string(environment.join("pyvenv.cfg")).unwrap_or_default();
    let home = home.lines().find_map(|line| line.strip_prefix("home = "));
    let bases = [
        Some(environment.to_owned()),
        home.and_then(|home| Some(Path::new(home).parent()?.to_owned())),
    ];
    let mut listed = Vec::new();
    for base in bases.into_iter().flatten() {
        listed.push(base.join("bin"));
        for library in names(&base.join("lib")) {
            let is_python = library
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("python3."));
            if is_python {
                listed.push(library.join("site-packages/outrigger_plugin_host"));
                listed.push(library.join("site-packages"));
                listed.push(library);
            }
        }
    }
    listed.push(environment.to_owned());
    listed
        .into_iter()
        .map(|directory| (directory.clone(), names(&directory)))
        .collect()
}

/// Removes what an attempt has left, however deep.
pub(super) fn remove(path: &Path) {
    #[expect(
        clippy::disallowed_methods,
        reason = "trees that are deeper than the standard library goes"
    )]
    let removed = std::process::Command::new("rm")
        .arg("-rf")
        .arg("--")
        .arg(path)
        .status();
    assert!(
        removed.is_ok_and(|status| status.success()),
        "remove {}",
        path.display()
    );
}
