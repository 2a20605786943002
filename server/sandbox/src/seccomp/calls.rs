//! Which system calls may a worker make, and why each? What is not here does not exist for it.
//!
//! Measured with `CPython`, gRPC, pyarrow, numpy, pandas, scipy, scikit-learn, requests,
//! sqlite3 and their tests (the prototype's list), then read call by call against the threats in
//! docs/security.md.

use super::bpf::OWN_PID;

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// The kernel does it.
    Allow,
    /// Nothing happens, and the caller hears that it worked: for changes that Landlock does
    /// not see and that programs make in passing.
    Pretend,
    /// It fails with this error, which tells more than "no such call".
    Refuse(i32),
    /// The kernel does it if one of these lists holds as a whole; else it fails with this.
    If(&'static [&'static [Arg]], i32),
}

/// What must hold for the low 32 bits of an argument, which are all that the kernel looks at
/// in those that are named here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arg {
    pub(super) index: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
    /// Whether it is to be this or to be anything else.
    pub(super) is: bool,
}

const fn is(index: u8, value: u32) -> Arg {
    masked(index, u32::MAX, value)
}

const fn masked(index: u8, mask: u32, value: u32) -> Arg {
    Arg {
        index,
        mask,
        value,
        is: true,
    }
}

const fn not(index: u8, value: u32) -> Arg {
    Arg {
        index,
        mask: u32::MAX,
        value,
        is: false,
    }
}

/// A system call, what happens to it, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) number: i64,
    pub(super) rule: Rule,
    pub(super) why: &'static str,
}

macro_rules! calls {
    ($($name:ident $rule:expr, $why:literal;)*) => {
        &[$(Call {
            name: stringify!($name),
            // The numbers are `c_long`, whose size is the machine's.
            number: libc::$name,
            rule: $rule,
            why: $why,
        }),*]
    };
}

use Rule::{Allow, If, Pretend, Refuse};

const EPERM: i32 = libc::EPERM;

/// All namespaces that clone can make, and `CLONE_PARENT`: a child that is somebody else's.
const CLONE_FORBIDDEN: u32 = 0x7E02_0000 | 0x8000;
const CLONE_THREAD: u32 = 0x1_0000;
/// Sends data before the connection stands, and makes it without `connect`.
/// All but how programs send: fast open connects without `connect`, the out-of-band byte has a
/// queue of its own in the kernel, which has been its weak spot.
const SENT_OTHERWISE: u32 =
    !(int(libc::MSG_NOSIGNAL) | int(libc::MSG_DONTWAIT) | int(libc::MSG_MORE) | int(libc::MSG_EOR));
/// The same for receiving. Some pass there what means something for sending only.
const RECEIVED_OTHERWISE: u32 = !(int(libc::MSG_NOSIGNAL)
    | int(libc::MSG_DONTWAIT)
    | int(libc::MSG_PEEK)
    | int(libc::MSG_WAITALL)
    | int(libc::MSG_TRUNC)
    | int(libc::MSG_ERRQUEUE)
    | int(libc::MSG_WAITFORONE)
    | int(libc::MSG_CMSG_CLOEXEC));
/// The kind of a socket without its flags.
const KIND: u32 = 0xF;
const STREAM: u32 = libc::SOCK_STREAM.cast_unsigned();
const DATAGRAM: u32 = libc::SOCK_DGRAM.cast_unsigned();
const UNIX: u32 = libc::AF_UNIX.cast_unsigned();
const INET: u32 = libc::AF_INET.cast_unsigned();
const INET6: u32 = libc::AF_INET6.cast_unsigned();
const TCP: u32 = libc::IPPROTO_TCP.cast_unsigned();
const SOL_SOCKET: u32 = libc::SOL_SOCKET.cast_unsigned();
/// The limit whose number tells the host whose process it is (decision 0012).
const RLIMIT_LOCKS: u32 = 10;

const fn int(value: i32) -> u32 {
    value.cast_unsigned()
}

const fn low(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

/// For every worker.
pub(super) const COMMON: &[Call] = calls! {
    // Memory.
    SYS_brk Allow, "malloc";
    SYS_mmap Allow, "malloc, libraries, files as memory";
    SYS_munmap Allow, "as above";
    SYS_mremap Allow, "realloc, sqlite";
    SYS_mprotect Allow, "libraries, just-in-time compilers";
    SYS_madvise Allow, "allocators give memory back";
    SYS_mincore Allow, "libunwind asks whether an address is there";
    SYS_msync Allow, "sqlite, numpy.memmap";
    SYS_mlock Allow, "bounded by its limit; libsodium, gcrypt";
    SYS_mlock2 Allow, "as above";
    SYS_munlock Allow, "as above";
    SYS_mbind Allow, "OpenBLAS places its buffers; own memory only";
    SYS_get_mempolicy Allow, "OpenBLAS";
    SYS_set_mempolicy Allow, "OpenBLAS; own threads only";
    SYS_membarrier Allow, "lock-free lists (jemalloc, absl)";
    SYS_pkey_alloc Allow, "just-in-time compilers";
    SYS_pkey_free Allow, "as above";
    SYS_pkey_mprotect Allow, "as above";
    // Threads.
    SYS_clone3 Refuse(libc::ENOSYS), "its flags are in memory, which a filter cannot see; the C library then uses clone";
    SYS_set_robust_list Allow, "locks of threads";
    SYS_set_tid_address Allow, "the C library starts";
    SYS_rseq Allow, "the C library starts a thread";
    SYS_futex Allow, "locks";
    SYS_futex_waitv Allow, "locks";
    SYS_exit Allow, "a thread ends";
    SYS_exit_group Allow, "the process ends";
    SYS_gettid Allow, "logging";
    SYS_getcpu Allow, "allocators";
    SYS_sched_yield Allow, "spinning locks";
    SYS_sched_getaffinity Allow, "how many threads to start";
    SYS_sched_setaffinity If(&[&[is(0, 0)]], EPERM), "of itself; Landlock has no say about other processes";
    SYS_sched_getparam Allow, "the C library's thread attributes";
    SYS_sched_getscheduler Allow, "as above";
    SYS_sched_get_priority_max Allow, "as above";
    SYS_sched_get_priority_min Allow, "as above";
    SYS_sched_rr_get_interval Allow, "os.sched_rr_get_interval";
    // Signals.
    SYS_rt_sigaction Allow, "signal handlers";
    SYS_rt_sigprocmask Allow, "signal masks";
    SYS_rt_sigreturn Allow, "the end of every handler";
    SYS_rt_sigpending Allow, "signal.sigpending";
    SYS_rt_sigsuspend Allow, "signal.pause and others";
    SYS_rt_sigtimedwait Allow, "signal.sigtimedwait";
    SYS_sigaltstack Allow, "faulthandler";
    SYS_signalfd4 Allow, "event loops";
    SYS_restart_syscall Allow, "the kernel goes on after SIGCONT";
    // Time.
    SYS_clock_gettime Allow, "time, where the machine has no faster way";
    SYS_clock_getres Allow, "time.get_clock_info";
    SYS_clock_nanosleep Allow, "time.sleep";
    SYS_nanosleep Allow, "sleep";
    SYS_gettimeofday Allow, "time";
    SYS_times Allow, "os.times";
    SYS_getitimer Allow, "signal.getitimer";
    SYS_setitimer Allow, "signal.setitimer";
    SYS_timer_create Allow, "timers; they signal the process itself";
    SYS_timer_delete Allow, "as above";
    SYS_timer_getoverrun Allow, "as above";
    SYS_timer_gettime Allow, "as above";
    SYS_timer_settime Allow, "as above";
    SYS_timerfd_create Allow, "event loops";
    SYS_timerfd_gettime Allow, "as above";
    SYS_timerfd_settime Allow, "as above";
    // Descriptors.
    SYS_read Allow, "files, sockets, pipes";
    SYS_readv Allow, "as above";
    SYS_pread64 Allow, "sqlite, pyarrow";
    SYS_preadv Allow, "os.preadv";
    SYS_preadv2 Allow, "os.preadv";
    SYS_write Allow, "files, sockets, pipes";
    SYS_writev Allow, "as above";
    SYS_pwrite64 Allow, "sqlite";
    SYS_pwritev Allow, "os.pwritev";
    SYS_pwritev2 Allow, "os.pwritev";
    SYS_lseek Allow, "files";
    SYS_close Allow, "everything";
    SYS_close_range Allow, "os.closerange";
    SYS_dup Allow, "os.dup";
    SYS_dup3 Allow, "os.dup2";
    SYS_pipe2 Allow, "wake-ups between threads";
    SYS_eventfd2 Allow, "gRPC's wake-ups";
    SYS_epoll_create1 Allow, "gRPC, asyncio";
    SYS_epoll_ctl Allow, "as above";
    SYS_epoll_pwait Allow, "as above";
    SYS_epoll_pwait2 Allow, "as above";
    SYS_ppoll Allow, "select.poll, time outs of sockets";
    SYS_pselect6 Allow, "select.select";
    SYS_sendfile Allow, "shutil.copyfile";
    SYS_splice Allow, "os.splice";
    SYS_tee Allow, "splice's sibling";
    SYS_copy_file_range Allow, "shutil.copyfile";
    SYS_fcntl If(FCNTL, EPERM), "locks, flags and copies; not owners of signals, leases, or larger pipes";
    SYS_ioctl If(IOCTL, libc::ENOTTY), "whether it is a terminal, how much can be read; nothing that a driver offers, nor typing into a terminal";
    // Files: which ones is Landlock's business.
    SYS_openat Allow, "open";
    SYS_openat2 Allow, "open beneath a directory";
    SYS_newfstatat Allow, "os.stat";
    SYS_fstat Allow, "open files";
    SYS_statx Allow, "os.stat";
    SYS_statfs Allow, "shutil.disk_usage";
    SYS_fstatfs Allow, "as above";
    SYS_faccessat Allow, "os.access";
    SYS_faccessat2 Allow, "as above";
    SYS_readlinkat Allow, "os.readlink, os.path.realpath";
    SYS_getdents64 Allow, "os.listdir";
    SYS_getcwd Allow, "os.getcwd";
    SYS_chdir Allow, "os.chdir";
    SYS_fchdir Allow, "as above";
    SYS_mkdirat Allow, "os.mkdir";
    SYS_unlinkat Allow, "os.remove";
    SYS_renameat2 Allow, "os.rename";
    SYS_linkat Allow, "os.link; Landlock compares both directories";
    SYS_symlinkat Allow, "os.symlink";
    SYS_ftruncate Allow, "file.truncate: the descriptor was opened for writing";
    SYS_fallocate Allow, "sqlite";
    SYS_flock Allow, "file locks";
    SYS_fsync Allow, "sqlite";
    SYS_fdatasync Allow, "sqlite";
    SYS_sync_file_range Allow, "databases";
    SYS_fadvise64 Allow, "pyarrow";
    SYS_readahead Allow, "pyarrow";
    SYS_umask Allow, "tempfile";
    SYS_fchmod Pretend, "tarfile and shutil change modes in passing; Landlock has no say about modes";
    SYS_fchmodat Pretend, "as above, by any path: the server's files have the same owner";
    SYS_utimensat Pretend, "as above, times";
    SYS_fchown Refuse(EPERM), "as for every user but root";
    SYS_fchownat Refuse(EPERM), "as above";
    SYS_setxattr Refuse(libc::ENOTSUP), "Landlock has no say about attributes; shutil.copystat expects this answer";
    SYS_lsetxattr Refuse(libc::ENOTSUP), "as above";
    SYS_fsetxattr Refuse(libc::ENOTSUP), "as above";
    SYS_getxattr Refuse(libc::ENOTSUP), "as above";
    SYS_lgetxattr Refuse(libc::ENOTSUP), "as above";
    SYS_fgetxattr Refuse(libc::ENOTSUP), "as above";
    SYS_listxattr Refuse(libc::ENOTSUP), "as above";
    SYS_llistxattr Refuse(libc::ENOTSUP), "as above";
    SYS_flistxattr Refuse(libc::ENOTSUP), "as above";
    SYS_removexattr Refuse(libc::ENOTSUP), "as above";
    SYS_lremovexattr Refuse(libc::ENOTSUP), "as above";
    SYS_fremovexattr Refuse(libc::ENOTSUP), "as above";
    SYS_mknodat Refuse(EPERM), "devices, named pipes and sockets";
    // What it is and where.
    SYS_getpid Allow, "logging";
    SYS_getppid Allow, "os.getppid";
    SYS_getpgid Allow, "os.getpgid";
    SYS_getsid Allow, "os.getsid";
    SYS_getuid Allow, "os.getuid";
    SYS_geteuid Allow, "os.geteuid";
    SYS_getgid Allow, "os.getgid";
    SYS_getegid Allow, "os.getegid";
    SYS_getresuid Allow, "os.getresuid";
    SYS_getresgid Allow, "os.getresgid";
    SYS_getgroups Allow, "os.getgroups";
    SYS_capget Allow, "libraries ask what they may";
    SYS_getrandom Allow, "random numbers";
    SYS_uname Allow, "platform";
    SYS_sysinfo Allow, "how much memory there is";
    SYS_getrusage Allow, "resource.getrusage";
    SYS_getpriority Allow, "os.getpriority";
    SYS_setpriority If(&[&[is(0, 0), is(1, 0)]], EPERM), "os.nice on itself; Landlock has no say about other processes";
    SYS_ioprio_set If(&[&[is(0, 1), is(1, 0)]], EPERM), "of itself";
    SYS_prlimit64 If(&[&[is(0, 0), not(1, RLIMIT_LOCKS)]], EPERM), "limits of itself, but for the mark by which the host knows its workers' processes";
    SYS_prctl If(PRCTL, EPERM), "names of threads and questions; not the parent-death signal, nor who may trace";
    // Sockets.
    SYS_socket If(SOCKET, libc::EACCES), "TCP, and Unix sockets; no datagrams (they need no connect), raw, packet, netlink, multipath or others";
    SYS_socketpair If(&[&[is(0, UNIX), masked(1, KIND, STREAM), is(2, 0)]], libc::EACCES), "event loops, multiprocessing.Pipe; a datagram socket could send to any path";
    SYS_connect Allow, "TCP and the server; the broker looks at the address where there is one";
    SYS_sendto If(&[&[masked(3, SENT_OTHERWISE, 0)]], EPERM), "TCP; not fast open, which connects without connect";
    SYS_sendmsg If(&[&[masked(2, SENT_OTHERWISE, 0)]], EPERM), "as above";
    SYS_sendmmsg If(&[&[masked(3, SENT_OTHERWISE, 0)]], EPERM), "as above";
    SYS_recvfrom If(&[&[masked(3, RECEIVED_OTHERWISE, 0)]], EPERM), "TCP, ssl; nothing out of band";
    SYS_recvmsg If(&[&[masked(2, RECEIVED_OTHERWISE, 0)]], EPERM), "gRPC";
    SYS_recvmmsg If(&[&[masked(3, RECEIVED_OTHERWISE, 0)]], EPERM), "as above";
    SYS_shutdown Allow, "TCP, the end of sending";
    SYS_getsockname Allow, "gRPC";
    SYS_getpeername Allow, "gRPC";
    SYS_getsockopt Allow, "whether connecting has worked";
    SYS_setsockopt If(SETSOCKOPT, EPERM), "time-outs, no delay; no programs for the kernel, no other protocols";
    SYS_bind Pretend, "clients name no address of their own and say so (paho); listening is refused";
    SYS_listen Refuse(EPERM), "nobody connects to a worker";
    SYS_accept Refuse(EPERM), "as above";
    SYS_accept4 Refuse(EPERM), "as above";
};

/// Old names of the calls above, which only this architecture has.
#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY: &[Call] = calls! {
    SYS_arch_prctl Allow, "the C library starts";
    SYS_open Allow, "as openat";
    SYS_creat Allow, "as openat";
    SYS_stat Allow, "as newfstatat";
    SYS_lstat Allow, "as newfstatat";
    SYS_access Allow, "as faccessat";
    SYS_readlink Allow, "as readlinkat";
    SYS_getdents Allow, "as getdents64";
    SYS_mkdir Allow, "as mkdirat";
    SYS_rmdir Allow, "as unlinkat";
    SYS_unlink Allow, "as unlinkat";
    SYS_rename Allow, "as renameat2";
    SYS_renameat Allow, "as renameat2";
    SYS_link Allow, "as linkat";
    SYS_symlink Allow, "as symlinkat";
    SYS_chmod Pretend, "as fchmodat";
    SYS_utime Pretend, "as utimensat";
    SYS_utimes Pretend, "as utimensat";
    SYS_futimesat Pretend, "as utimensat";
    SYS_chown Refuse(EPERM), "as fchownat";
    SYS_lchown Refuse(EPERM), "as fchownat";
    SYS_mknod Refuse(EPERM), "as mknodat";
    SYS_dup2 Allow, "as dup3";
    SYS_pipe Allow, "as pipe2";
    SYS_eventfd Allow, "as eventfd2";
    SYS_epoll_create Allow, "as epoll_create1";
    SYS_epoll_wait Allow, "as epoll_pwait";
    SYS_poll Allow, "as ppoll";
    SYS_select Allow, "as pselect6";
    SYS_time Allow, "as clock_gettime";
    SYS_alarm Allow, "as setitimer";
    SYS_pause Allow, "as rt_sigsuspend";
    SYS_getpgrp Allow, "as getpgid";
    SYS_getrlimit Allow, "as prlimit64";
    SYS_setrlimit If(&[&[not(0, RLIMIT_LOCKS)]], EPERM), "as prlimit64";
};

#[cfg(not(target_arch = "x86_64"))]
pub(super) const LEGACY: &[Call] = calls! {
    SYS_renameat Allow, "as renameat2";
};

/// Truncating by path, where Landlock sees it (from version 3 on).
pub(super) const TRUNCATE: &[Call] = calls! {
    SYS_truncate Allow, "os.truncate";
};

/// Signals, where Landlock keeps them in the domain (from version 6 on).
pub(super) const SIGNALS_SCOPED: &[Call] = calls! {
    SYS_kill Allow, "os.kill; Landlock lets none out";
    SYS_tgkill Allow, "threads, abort, faulthandler; Landlock lets none out";
};

/// Signals elsewhere.
pub(super) const SIGNALS_OWN: &[Call] = calls! {
    SYS_kill If(&[&[is(0, OWN_PID)]], EPERM), "os.kill on itself; the server has the same user";
    SYS_tgkill If(&[&[is(0, OWN_PID)]], EPERM), "threads, abort, faulthandler";
};

/// Threads and nothing else.
pub(super) const THREADS: &[Call] = calls! {
    SYS_clone If(&[&[masked(0, CLONE_THREAD | CLONE_FORBIDDEN, CLONE_THREAD)]], EPERM), "threads; no processes";
    SYS_execve Refuse(EPERM), "no programs";
    SYS_execveat Refuse(EPERM), "no programs";
};

#[cfg(target_arch = "x86_64")]
pub(super) const THREADS_LEGACY: &[Call] = calls! {
    SYS_fork Refuse(EPERM), "no processes";
    SYS_vfork Refuse(EPERM), "no processes";
};

#[cfg(not(target_arch = "x86_64"))]
pub(super) const THREADS_LEGACY: &[Call] = &[];

/// Processes and programs, where they are granted.
pub(super) const SUBPROCESSES: &[Call] = calls! {
    SYS_clone If(&[&[masked(0, CLONE_FORBIDDEN, 0)]], EPERM), "threads and processes; no namespaces, and no child that is somebody else's";
    SYS_execve Allow, "subprocess";
    SYS_execveat Allow, "os.execve with a descriptor";
    SYS_wait4 Allow, "subprocess";
    SYS_waitid Allow, "subprocess, asyncio";
    SYS_pidfd_open Allow, "asyncio waits for children";
    SYS_setpgid Allow, "subprocess(process_group=…), shells";
    SYS_setsid Allow, "subprocess(start_new_session=True); the host finds it by its mark";
    SYS_get_robust_list Allow, "gdb and the C library after a fork";
};

#[cfg(target_arch = "x86_64")]
pub(super) const SUBPROCESSES_LEGACY: &[Call] = calls! {
    SYS_fork Allow, "os.fork";
    SYS_vfork Allow, "subprocess";
};

#[cfg(not(target_arch = "x86_64"))]
pub(super) const SUBPROCESSES_LEGACY: &[Call] = &[];

/// Modes and times, for programs that install files.
pub(super) const METADATA: &[Call] = calls! {
    SYS_fchmod Allow, "programs are made executable";
    SYS_fchmodat Allow, "as above";
    SYS_utimensat Allow, "archives are unpacked";
};

/// As above; the C library's constants lack it on some architectures. Its number is the same on
/// all of them, as of all calls since 2019.
pub(super) const METADATA_NEW: &[Call] = &[Call {
    name: "SYS_fchmodat2",
    number: 452,
    rule: Allow,
    why: "as fchmodat",
}];

#[cfg(target_arch = "x86_64")]
pub(super) const METADATA_LEGACY: &[Call] = calls! {
    SYS_chmod Allow, "as fchmodat";
    SYS_utime Allow, "as utimensat";
    SYS_utimes Allow, "as utimensat";
    SYS_futimesat Allow, "as utimensat";
};

#[cfg(not(target_arch = "x86_64"))]
pub(super) const METADATA_LEGACY: &[Call] = &[];

/// No network: not even sockets for it.
pub(super) const NO_NETWORK: &[Call] = calls! {
    SYS_socket If(&[&[is(0, UNIX), masked(1, KIND, STREAM), is(2, 0)]], libc::EACCES), "the server's socket; nothing else";
};

/// What a program does beside what a worker with subprocesses does, where it has the network.
pub(super) const PROGRAM: &[Call] = calls! {
    SYS_socket If(PROGRAM_SOCKET, libc::EACCES), "TCP to where packages are, UDP to name servers; no Unix sockets, behind which others of this machine are";
};

/// The same without the network: not even sockets.
pub(super) const NO_SOCKETS: &[Call] = calls! {
    SYS_socket Refuse(libc::EACCES), "it talks to nobody";
};

/// What a host does beside what a worker with subprocesses does: it is trusted, and its
/// workers add their own layers below it.
pub(super) const HOST: &[Call] = calls! {
    SYS_kill Allow, "it ends its workers";
    SYS_tgkill Allow, "as above";
    SYS_prctl Allow, "workers ask for the parent-death signal, the host adopts orphans";
    SYS_prlimit64 If(&[&[is(0, 0)]], EPERM), "workers take their limits and their mark";
    SYS_seccomp Allow, "workers add their filters";
    SYS_landlock_create_ruleset Allow, "workers add their domain";
    SYS_landlock_add_rule Allow, "as above";
    SYS_landlock_restrict_self Allow, "as above";
    SYS_memfd_create Allow, "ctypes makes callbacks";
};

#[cfg(target_arch = "x86_64")]
pub(super) const HOST_LEGACY: &[Call] = calls! {
    SYS_setrlimit Allow, "as prlimit64";
};

#[cfg(not(target_arch = "x86_64"))]
pub(super) const HOST_LEGACY: &[Call] = &[];

/// What the server does instead, where it is the broker of connections.
pub(super) const BROKERED: &[Call] = calls! {
    SYS_connect Allow, "the server looks at the address and connects a socket of its own";
};

const FCNTL: &[&[Arg]] = &[
    &[is(1, int(libc::F_DUPFD))],
    &[is(1, int(libc::F_DUPFD_CLOEXEC))],
    &[is(1, int(libc::F_GETFD))],
    &[is(1, int(libc::F_SETFD))],
    &[is(1, int(libc::F_GETFL))],
    &[is(1, int(libc::F_SETFL))],
    &[is(1, int(libc::F_GETLK))],
    &[is(1, int(libc::F_SETLK))],
    &[is(1, int(libc::F_SETLKW))],
    &[is(1, int(libc::F_OFD_GETLK))],
    &[is(1, int(libc::F_OFD_SETLK))],
    &[is(1, int(libc::F_OFD_SETLKW))],
    &[is(1, int(libc::F_GETPIPE_SZ))],
    &[is(1, int(libc::F_GET_SEALS))],
];

const IOCTL: &[&[Arg]] = &[
    &[is(1, low(libc::FIONREAD))],
    &[is(1, low(libc::FIONBIO))],
    &[is(1, low(libc::FIOCLEX))],
    &[is(1, low(libc::FIONCLEX))],
    &[is(1, low(libc::TCGETS))],
    &[is(1, low(libc::TIOCGWINSZ))],
];

const PRCTL: &[&[Arg]] = &[
    &[is(0, int(libc::PR_SET_NAME))],
    &[is(0, int(libc::PR_GET_NAME))],
    &[is(0, int(libc::PR_SET_VMA))],
    &[is(0, int(libc::PR_GET_PDEATHSIG))],
    &[is(0, int(libc::PR_GET_DUMPABLE))],
    &[is(0, int(libc::PR_GET_SECCOMP))],
    &[is(0, int(libc::PR_CAPBSET_READ))],
    &[is(0, int(libc::PR_GET_NO_NEW_PRIVS))],
    &[is(0, int(libc::PR_SET_NO_NEW_PRIVS))],
    &[is(0, int(libc::PR_GET_TIMERSLACK))],
    &[is(0, int(libc::PR_SET_TIMERSLACK))],
    &[is(0, int(libc::PR_GET_THP_DISABLE))],
    &[is(0, int(libc::PR_SET_THP_DISABLE))],
];

const SOCKET: &[&[Arg]] = &[
    &[is(0, UNIX), masked(1, KIND, STREAM), is(2, 0)],
    &[is(0, INET), masked(1, KIND, STREAM), is(2, 0)],
    &[is(0, INET), masked(1, KIND, STREAM), is(2, TCP)],
    &[is(0, INET6), masked(1, KIND, STREAM), is(2, 0)],
    &[is(0, INET6), masked(1, KIND, STREAM), is(2, TCP)],
];

const PROGRAM_SOCKET: &[&[Arg]] = &[
    &[is(0, INET), masked(1, KIND, STREAM), is(2, 0)],
    &[is(0, INET), masked(1, KIND, STREAM), is(2, TCP)],
    &[is(0, INET), masked(1, KIND, DATAGRAM), is(2, 0)],
    &[is(0, INET6), masked(1, KIND, STREAM), is(2, 0)],
    &[is(0, INET6), masked(1, KIND, STREAM), is(2, TCP)],
    &[is(0, INET6), masked(1, KIND, DATAGRAM), is(2, 0)],
];

const SETSOCKOPT: &[&[Arg]] = &[
    &[
        is(1, SOL_SOCKET),
        // Programs that the kernel runs on packets, and busy polling.
        not(2, int(libc::SO_ATTACH_FILTER)),
        not(2, int(libc::SO_ATTACH_BPF)),
        not(2, int(libc::SO_ATTACH_REUSEPORT_CBPF)),
        not(2, int(libc::SO_ATTACH_REUSEPORT_EBPF)),
        not(2, int(libc::SO_BUSY_POLL)),
    ],
    &[
        is(1, TCP),
        // Another protocol in the kernel on top (TLS, sockmaps), and fast open.
        not(2, int(libc::TCP_ULP)),
        not(2, int(libc::TCP_FASTOPEN)),
        not(2, int(libc::TCP_FASTOPEN_CONNECT)),
        not(2, int(libc::TCP_REPAIR)),
    ],
    &[is(1, int(libc::IPPROTO_IP)), is(2, int(libc::IP_TOS))],
    &[is(1, int(libc::IPPROTO_IP)), is(2, int(libc::IP_TTL))],
    &[is(1, int(libc::IPPROTO_IP)), is(2, int(libc::IP_RECVERR))],
    &[
        is(1, int(libc::IPPROTO_IPV6)),
        is(2, int(libc::IPV6_V6ONLY)),
    ],
    &[
        is(1, int(libc::IPPROTO_IPV6)),
        is(2, int(libc::IPV6_RECVERR)),
    ],
    &[
        is(1, int(libc::IPPROTO_IPV6)),
        is(2, int(libc::IPV6_TCLASS)),
    ],
];
