//! What lies out for the trying process, and what has become of it?

use std::{
    fs,
    io::{self, ErrorKind},
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{PermissionsExt, lchown},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process,
};

use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::{
    confinement::{HostConfinement, Role},
    machine::Machine,
    policy::{Mode, Policy},
    view::View,
};

const CANARY: &str = "a trial of the sandbox\n";
const MODE: u32 = 0o640;

/// Where it lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Places {
    pub(super) granted: PathBuf,
    pub(super) forbidden: PathBuf,
    pub(super) canary: PathBuf,
    /// In a directory that only the server's user may enter.
    pub(super) hidden: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) abstract_name: String,
    pub(super) port: u16,
    pub(super) server: i32,
    /// What is not even to be seen where there is a mount namespace.
    pub(super) covered: PathBuf,
    /// A file in shared memory.
    pub(super) shared: PathBuf,
    /// The server's own, as `/proc/self/ns` has them.
    pub(super) namespaces: Vec<(String, PathBuf)>,
}

/// Files and sockets that a plugin must not reach. Removed when dropped.
#[derive(Debug)]
pub(super) struct Bait {
    directory: PathBuf,
    abstract_socket: UnixListener,
    tcp: TcpListener,
    // Somebody has to listen, or nothing could be told from the refusal.
    _socket: UnixListener,
}

impl Bait {
    pub(super) fn lay() -> io::Result<Self> {
        let directory = make_directory()?;
        let abstract_address = SocketAddr::from_abstract_name(name(&directory))?;
        let tcp = TcpListener::bind(("127.0.0.1", 0))?;
        tcp.set_nonblocking(true)?;
        let abstract_socket = UnixListener::bind_addr(&abstract_address)?;
        abstract_socket.set_nonblocking(true)?;
        fs::create_dir(directory.join("granted"))?;
        fs::create_dir(directory.join("forbidden"))?;
        fs::create_dir(directory.join("covered"))?;
        fs::create_dir(directory.join("closed"))?;
        let bait = Self {
            _socket: UnixListener::bind(directory.join("forbidden/socket"))?,
            abstract_socket,
            tcp,
            directory,
        };
        fs::write(bait.canary(), CANARY)?;
        fs::set_permissions(bait.canary(), fs::Permissions::from_mode(MODE))?;
        fs::write(bait.hidden(), CANARY)?;
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(bait.directory.join("closed"), closed)?;
        Ok(bait)
    }

    /// Whom programs can become here, if those come to what lies out for them.
    pub(super) fn own_user(&self, machine: &Machine) -> Result<u32, String> {
        const ENTER: u32 = 0o1;
        let user = machine.own_user()?;
        let closed = |path: &&Path| {
            fs::metadata(path).is_ok_and(|found| found.permissions().mode() & ENTER == 0)
        };
        match self.directory.ancestors().skip(1).find(closed) {
            Some(closed) => Err(format!("{} is closed to other users", closed.display())),
            None => Ok(user),
        }
    }

    /// Makes all that lies out this user's, so that no permission hides what layers do not keep.
    pub(super) fn give(&self, user: u32) -> io::Result<()> {
        // Others must come to what is theirs.
        let passable = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&self.directory, passable)?;
        for name in [
            "granted",
            "forbidden",
            "forbidden/socket",
            "forbidden/canary",
        ] {
            lchown(self.directory.join(name), Some(user), Some(user))?;
        }
        Ok(())
    }

    fn hidden(&self) -> PathBuf {
        self.directory.join("closed/hidden")
    }

    fn canary(&self) -> PathBuf {
        self.directory.join("forbidden/canary")
    }

    pub(super) fn places(&self) -> io::Result<Places> {
        Ok(Places {
            granted: self.directory.join("granted"),
            forbidden: self.directory.join("forbidden"),
            canary: self.canary(),
            hidden: self.hidden(),
            socket: self.directory.join("forbidden/socket"),
            abstract_name: name(&self.directory),
            port: self.tcp.local_addr()?.port(),
            server: process::id().cast_signed(),
            covered: self.directory.join("covered"),
            shared: shared(),
            namespaces: ["ipc", "uts", "net"]
                .map(|name| {
                    let found = fs::read_link(format!("/proc/self/ns/{name}"))?;
                    Ok((name.to_owned(), found))
                })
                .into_iter()
                .collect::<io::Result<_>>()?,
        })
    }

    /// What hosts see.
    pub(super) fn view(&self) -> View {
        View {
            covered: vec![self.directory.join("covered")],
            // What files are guarded by is to be seen also where they are not covered.
            shown: ["forbidden", "closed"]
                .map(|name| self.directory.join(name))
                .to_vec(),
        }
    }

    /// A host whose worker may have this policy.
    pub(super) fn host(
        &self,
        policy: &Policy,
        machine: &Machine,
        user: Result<u32, String>,
    ) -> HostConfinement {
        HostConfinement {
            role: Role::Host,
            policy: Policy {
                read: vec!["/proc".into()],
                ..policy.clone()
            },
            machine: machine.clone(),
            mode: Mode::Auto,
            view: self.view(),
            user,
        }
    }

    /// Corrects what the trying process believes by what has really happened.
    pub(super) fn judge(&self, attempts: &mut [Attempt]) {
        let mode = fs::metadata(self.canary()).map(|found| found.permissions().mode() & 0o777);
        let intact = fs::read(self.canary()).is_ok_and(|text| text == CANARY.as_bytes());
        let reached = |accepted: io::Result<()>| match accepted {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(()) | Err(_) => true,
        };
        let by_name = reached(self.abstract_socket.accept().map(drop));
        let by_fast_open = reached(self.tcp.accept().map(drop));
        for attempt in attempts {
            let done = match attempt.what.as_str() {
                super::attempts::MODE => Some(!matches!(mode, Ok(MODE))),
                super::attempts::CHANGE => Some(!intact),
                super::attempts::SHARED => Some(shared().exists()),
                super::attempts::ABSTRACT => Some(by_name),
                super::attempts::FAST_OPEN => Some(by_fast_open),
                _ => None,
            };
            match (done, &attempt.refusal) {
                (Some(true), _) => attempt.refusal = None,
                (Some(false), None) => attempt.refusal = Some("without effect".to_owned()),
                (Some(false), Some(_)) | (None, _) => {}
            }
        }
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary directory, and holds nothing.
        drop(fs::remove_dir_all(&self.directory));
        drop(fs::remove_file(shared()));
    }
}

fn make_directory() -> io::Result<PathBuf> {
    let pid = process::id();
    for number in 0..100 {
        let directory = std::env::temp_dir().join(format!("outrigger-trial-{pid}-{number}"));
        match fs::create_dir(&directory) {
            Ok(()) => {
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
                return Ok(directory);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name for a directory"))
}

fn shared() -> PathBuf {
    PathBuf::from(format!("/dev/shm/outrigger-trial-{}", process::id()))
}

fn name(directory: &Path) -> String {
    directory.display().to_string()
}
