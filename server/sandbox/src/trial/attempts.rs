//! What is tried, under a worker's layers? Each attempt is harmless where it succeeds.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::TcpListener,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixStream},
        },
    },
    path::Path,
    ptr,
    sync::{Arc, Barrier},
    thread,
};

use nix::unistd::{Uid, setresuid};

use super::{Attempt, Subject, bait::Places};
use crate::report::Layer;

/// Those that are judged by their effect.
pub(super) const MODE: &str = "change the mode of a file of the server";
pub(super) const SHARED: &str = "use shared memory of this machine";
pub(super) const CHANGE: &str = "change a file of the server";
pub(super) const ABSTRACT: &str = "connect to an abstract Unix socket";
pub(super) const FAST_OPEN: &str = "send with TCP fast open";

/// How many processes and threads the trying process may have, where it has a group.
pub(super) const GROUP_PROCESSES: usize = 32;

type Try = fn(&Places) -> io::Result<()>;

const FORBIDDEN: &[(Layer, &str, Try)] = &[
    (Layer::Landlock, "read a file of the server", |at| {
        fs::read(&at.canary).map(drop)
    }),
    (Layer::Landlock, CHANGE, |at| {
        OpenOptions::new().append(true).open(&at.canary).map(drop)?;
        fs::write(&at.canary, "changed")
    }),
    (Layer::Landlock, "list a directory of the server", |at| {
        fs::read_dir(&at.forbidden).map(drop)
    }),
    (Layer::Landlock, "make a file among the server's", |at| {
        File::create(at.forbidden.join("new")).map(drop)
    }),
    (Layer::Landlock, "move a file of the server", |at| {
        rename(&at.canary, &at.forbidden.join("moved"))
    }),
    (
        Layer::Landlock,
        "read the environment of the server",
        |at| fs::read(format!("/proc/{}/environ", at.server)).map(drop),
    ),
    (Layer::Landlock, "list processes", |_| {
        fs::read_dir("/proc").map(drop)
    }),
    (Layer::Landlock, SHARED, |at| {
        File::create(&at.shared).map(drop)
    }),
    (
        Layer::MountNamespace,
        "know that a directory of the server is there",
        |at| fs::metadata(&at.covered).map(drop),
    ),
    (
        Layer::IpcNamespace,
        "be among the queues of this machine",
        |at| shares(at, "ipc"),
    ),
    (
        Layer::UtsNamespace,
        "share the name of this machine",
        |at| shares(at, "uts"),
    ),
    (
        Layer::NetworkNamespace,
        "be in the network of this machine",
        |at| shares(at, "net"),
    ),
    (Layer::Landlock, "signal the server", |at| {
        call(libc::SYS_kill, [at.server.into(), 0, 0, 0, 0, 0])
    }),
    (Layer::Landlock, ABSTRACT, |at| {
        let address = SocketAddr::from_abstract_name(&at.abstract_name)?;
        UnixStream::connect_addr(&address).map(drop)
    }),
    (
        Layer::Broker,
        "connect to a Unix socket of somebody else",
        |at| UnixStream::connect(&at.socket).map(drop),
    ),
    (Layer::Seccomp, MODE, |at| {
        fs::set_permissions(&at.canary, fs::Permissions::from_mode(0o0))
    }),
    (Layer::Seccomp, "send datagrams", |_| {
        socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
    }),
    (Layer::Seccomp, "send raw packets", |_| {
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }),
    (Layer::Seccomp, "talk to the kernel by netlink", |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)
    }),
    (Layer::Seccomp, "use multipath TCP", |_| {
        socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
    }),
    (Layer::Seccomp, FAST_OPEN, fast_open),
    (Layer::Seccomp, "listen on a port", |_| {
        TcpListener::bind(("127.0.0.1", 0)).map(drop)
    }),
    (Layer::Seccomp, "start a process", |_| fork()),
    (Layer::Seccomp, "execute a program", |_| {
        // Of nothing: where it is not refused, it says that there is no such file.
        reaches(libc::SYS_execve, [c"".as_ptr() as i64, 0, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "become root in a user namespace", |_| {
        let flags = i64::from(libc::CLONE_NEWUSER);
        reaches(libc::SYS_unshare, [flags, 0, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "read the memory of the server", |at| {
        let server = at.server.into();
        reaches(libc::SYS_process_vm_readv, [server, 0, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "trace the server", |at| {
        let request = i64::from(libc::PTRACE_PEEKDATA);
        reaches(libc::SYS_ptrace, [request, at.server.into(), 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "see or set limits of the server", |at| {
        let cores = i64::from(libc::RLIMIT_CORE);
        reaches(libc::SYS_prlimit64, [at.server.into(), cores, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "use io_uring", |_| {
        reaches(libc::SYS_io_uring_setup, [0; 6])
    }),
    (Layer::Seccomp, "load programs into the kernel", |_| {
        reaches(libc::SYS_bpf, [-1, 0, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "handle page faults", |_| {
        reaches(libc::SYS_userfaultfd, [-1, 0, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "use the kernel's key rings", |_| {
        reaches(libc::SYS_keyctl, [-1, 0, 0, 0, 0, 0])
    }),
    (
        Layer::Seccomp,
        "make a file in memory, to execute it",
        |_| reaches(libc::SYS_memfd_create, [0, 0, 0, 0, 0, 0]),
    ),
    (Layer::Seccomp, "watch files", |_| {
        reaches(libc::SYS_inotify_init1, [0, 0, 0, 0, 0, 0])
    }),
    (
        Layer::Seccomp,
        "make a call that is newer than this server",
        |_| {
            // Calls are numbered on; a kernel that does not know one yet says the same.
            reaches(600, [0; 6])
        },
    ),
];

const WANTED: &[(Layer, &str, Try)] = &[
    (Layer::Landlock, "write into its directory", |at| {
        let path = at.granted.join("own");
        fs::write(&path, "own")?;
        fs::read(&path)?;
        fs::remove_file(path)
    }),
    (Layer::Landlock, "read the system's libraries", |_| {
        fs::read_dir("/usr").map(drop)
    }),
    (Layer::Landlock, "read about itself", |_| {
        fs::read("/proc/self/stat").map(drop)
    }),
    (Layer::Landlock, "read figures of the machine", |_| {
        fs::read("/proc/meminfo").map(drop)
    }),
    (Layer::Landlock, "throw output away", |_| {
        OpenOptions::new().write(true).open("/dev/null").map(drop)
    }),
    (
        Layer::MountNamespace,
        "use shared memory of its own",
        |at| {
            let own = at.shared.with_extension("own");
            File::create(&own)?;
            fs::remove_file(own)
        },
    ),
    (Layer::Seccomp, "start a thread", |_| {
        let thread = thread::Builder::new().spawn(|| ())?;
        let ended = thread.join();
        ended.or(Err(io::Error::other("it has panicked")))
    }),
    (Layer::Seccomp, "wait for events", |_| {
        call(libc::SYS_epoll_create1, [0; 6])?;
        call(libc::SYS_eventfd2, [0; 6])
    }),
    (Layer::Seccomp, "signal itself", |_| {
        let own = std::process::id().into();
        call(libc::SYS_tgkill, [own, own, 0, 0, 0, 0])
    }),
    (Layer::Seccomp, "make a pair of sockets", |_| {
        UnixStream::pair().map(drop)
    }),
    (Layer::Seccomp, "make a socket for TCP", |_| {
        socket(libc::AF_INET, libc::SOCK_STREAM, 0)
    }),
];

/// Where there is a user of its own.
const FORBIDDEN_OTHERS: &[(Layer, &str, Try)] = &[
    (
        Layer::User,
        "look into a directory that the server's user has closed",
        |at| fs::metadata(&at.hidden).map(drop),
    ),
    (Layer::User, "become the server's user", |_| {
        let server = Uid::from_raw(0);
        setresuid(server, server, server).map_err(io::Error::from)
    }),
];

/// Where there is a control group of its own.
const FORBIDDEN_GROUPS: &[(Layer, &str, Try)] = &[(
    Layer::Cgroup,
    "start more threads than its control group may have",
    |_| {
        let end = Arc::new(Barrier::new(GROUP_PROCESSES + 1));
        let mut threads = (0..GROUP_PROCESSES).map(|_| {
            let end = end.clone();
            thread::Builder::new().spawn(move || end.wait())
        });
        // Those that were started wait for the rest until this process ends: it is tried last.
        threads.try_for_each(|thread| thread.map(drop))
    },
)];

/// What a host must not, below which workers are. Some of it it may in their place.
const FORBIDDEN_HOSTS: &[(Layer, &str, Try)] = &[
    (Layer::Seccomp, "send datagrams", |_| {
        socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
    }),
    (Layer::Seccomp, "listen on a port", |_| {
        TcpListener::bind(("127.0.0.1", 0)).map(drop)
    }),
];

/// What an installer must not, which may reach the network and change modes of its own files.
const FORBIDDEN_INSTALLERS: &[(Layer, &str, Try)] = &[
    (Layer::Seccomp, MODE, |at| {
        fs::set_permissions(&at.canary, fs::Permissions::from_mode(0o0))
    }),
    (Layer::Seccomp, "use named Unix sockets", |at| {
        UnixStream::connect(&at.socket).map(drop)
    }),
];

/// What no program must that packages can put code into.
const FORBIDDEN_PROGRAMS: [&str; 13] = [
    "read a file of the server",
    CHANGE,
    "list a directory of the server",
    "make a file among the server's",
    "move a file of the server",
    "read the environment of the server",
    "signal the server",
    ABSTRACT,
    "send raw packets",
    "use io_uring",
    "load programs into the kernel",
    "trace the server",
    "read the memory of the server",
];

const WANTED_PROGRAMS: &[(Layer, &str, Try)] = &[
    (Layer::Seccomp, "start a process", |_| fork()),
    (Layer::Landlock, "write into its directory", |at| {
        let path = at.granted.join("own");
        fs::write(&path, "own")?;
        fs::remove_file(path)
    }),
];

/// Tries everything.
pub(super) fn all(subject: Subject, places: &Places) -> Vec<Attempt> {
    let everybodys = |what: &str| subject.is_worker() || FORBIDDEN_PROGRAMS.contains(&what);
    let forbidden = FORBIDDEN.iter().filter(|(_, what, _)| everybodys(what));
    let others: &[_] = if subject.is_somebody_else() {
        FORBIDDEN_OTHERS
    } else {
        &[]
    };
    let (own, wanted, last): (&[_], &[_], &[_]) = match subject {
        Subject::Worker { group: true, .. } => (&[], WANTED, FORBIDDEN_GROUPS),
        Subject::Worker { group: false, .. } => (&[], WANTED, &[]),
        Subject::Host { .. } => (FORBIDDEN_HOSTS, WANTED_PROGRAMS, &[]),
        Subject::Installer => (FORBIDDEN_INSTALLERS, WANTED_PROGRAMS, &[]),
    };
    let forbidden = forbidden.chain(others).chain(own);
    let forbidden = forbidden.map(|attempt| (false, attempt));
    let wanted = wanted.iter().map(|attempt| (true, attempt));
    let last = last.iter().map(|attempt| (false, attempt));
    forbidden
        .chain(wanted)
        .chain(last)
        .map(|(wanted, (layer, what, attempt))| Attempt {
            who: subject.name().to_owned(),
            what: (*what).to_owned(),
            layer: *layer,
            wanted,
            refusal: attempt(places).err().map(|error| error.to_string()),
        })
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "it is to be refused")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Whether it is in the same namespace as the server.
fn shares(at: &Places, name: &str) -> io::Result<()> {
    let own = fs::read_link(format!("/proc/self/ns/{name}")).ok();
    let other = at.namespaces.iter().find(|(known, _)| known == name);
    match (own, other) {
        (Some(own), Some((_, other))) if own != *other => Err(io::Error::other("another one")),
        // Where that cannot be seen, nothing is claimed.
        _ => Ok(()),
    }
}

/// A call through the x32 interface.
pub(super) fn other_interface() {
    const X32: i64 = 0x4000_0000;
    // Whatever comes of it: being killed is what is looked for.
    drop(call(X32 | libc::SYS_getpid, [0; 6]));
}

#[expect(unsafe_code, reason = "the calls are tried as they are")]
fn raw(number: i64, args: [i64; 6]) -> io::Result<i64> {
    // SAFETY: the callers pass numbers, null, or memory that lives until this returns and
    // that the kernel only reads.
    let answer =
        unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

fn call(number: i64, args: [i64; 6]) -> io::Result<()> {
    raw(number, args).map(drop)
}

/// Whether the kernel looks at the call at all; its arguments are wrong, so that nothing
/// comes of it.
fn reaches(number: i64, args: [i64; 6]) -> io::Result<()> {
    match call(number, args) {
        Err(error)
            if ![libc::ENOSYS, libc::EPERM, libc::EACCES]
                .contains(&error.raw_os_error().unwrap_or(0)) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    make_socket(family, kind, protocol).map(drop)
}

#[expect(unsafe_code, reason = "the kernel made the descriptor for us just now")]
fn make_socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let args = [family.into(), kind.into(), protocol.into(), 0, 0, 0];
    let descriptor = raw(libc::SYS_socket, args)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: it is the answer of the call that has made it, so that nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn fast_open(at: &Places) -> io::Result<()> {
    let socket = make_socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = libc::sockaddr_in {
        sin_family: 2,
        sin_port: at.port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    let text = b"x";
    call(
        libc::SYS_sendto,
        [
            socket.as_raw_fd().into(),
            text.as_ptr() as i64,
            1,
            libc::MSG_FASTOPEN.into(),
            ptr::from_ref(&address) as i64,
            16,
        ],
    )
}

/// Without the C library, whose fork does more than this.
#[expect(unsafe_code, reason = "the child must end before it does anything")]
fn fork() -> io::Result<()> {
    let flags = i64::from(libc::SIGCHLD);
    if raw(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])? == 0 {
        // SAFETY: it ends this process, which is the child, and touches nothing.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}
