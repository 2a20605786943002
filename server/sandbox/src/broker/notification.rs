//! What does a program that is held at a system call ask, and how is it answered? In the
//! terms of `man seccomp_unotify`.

use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        stat::{SFlag, fstat},
        uio::{RemoteIoVec, process_vm_readv},
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The longest address that is read; the kernel's own limit (`sockaddr_storage`).
const ADDRESS_MAX: usize = 128;

/// What a listener has for its reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pending {
    /// Somebody waits for an answer.
    Call,
    /// Nobody does.
    Nothing,
    /// Nobody can any more: all processes with the filter have ended.
    Over,
}

/// A `connect` that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    id: u64,
    /// The calling thread.
    thread: u32,
    /// The caller's number for its socket.
    socket: u64,
    address: u64,
    length: u64,
}

/// Whether somebody waits. Reading the listener without asking could block for ever.
pub(super) fn pending(listener: BorrowedFd<'_>) -> io::Result<Pending> {
    let mut asked = [PollFd::new(listener, PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO)?;
    let found = asked[0].revents().unwrap_or(PollFlags::empty());
    Ok(if found.contains(PollFlags::POLLIN) {
        Pending::Call
    } else if found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
        Pending::Over
    } else {
        Pending::Nothing
    })
}

/// Takes the next call; `None` if its caller has been interrupted meanwhile.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
pub(super) fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Call>> {
    // SAFETY: all zero is a value of this struct of integers, and the one the kernel demands.
    let mut taken: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number says the size of the struct that the kernel fills.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut taken,
        )
    };
    match Errno::result(done) {
        Ok(_) => {}
        Err(Errno::ENOENT | Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if i64::from(taken.data.nr) != libc::SYS_connect {
        refuse(listener, taken.id, Errno::ENOSYS)?;
        return Ok(None);
    }
    let [socket, address, length, ..] = taken.data.args;
    Ok(Some(Call {
        id: taken.id,
        thread: taken.pid,
        socket,
        address,
        length,
    }))
}

/// What a caller has said, and how it is.
#[derive(Debug)]
pub(super) struct Asked {
    /// A copy of the address that it gave.
    pub(super) address: Vec<u8>,
    /// Which process it is, if that can be known.
    pub(super) process: Option<u32>,
    /// Whether its socket does not wait.
    pub(super) is_nonblocking: bool,
}

impl Call {
    /// Looks at the caller. Its memory may be busy, and it decides for how long.
    pub(super) fn look(&self, listener: BorrowedFd<'_>) -> Result<Asked, Errno> {
        Ok(Asked {
            address: self.address(listener)?,
            process: self.process().ok(),
            is_nonblocking: self.is_nonblocking(),
        })
    }

    /// The process that calls: a thread's number is not what others know it by.
    fn process(&self) -> io::Result<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.thread))?;
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        group
            .and_then(|group| group.trim().parse().ok())
            .ok_or_else(|| io::Error::other("the status of the calling thread has no Tgid"))
    }

    /// A copy of the address that it gave. Whatever it changes afterwards changes nothing.
    fn address(&self, listener: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
        let length = usize::try_from(self.length).or(Err(Errno::EINVAL))?;
        if length > ADDRESS_MAX {
            return Err(Errno::EINVAL);
        }
        let mut copy = vec![0; length];
        self.read_memory(&mut copy)?;
        // The thread may have ended, and its number may be another's whose memory this was.
        if self.is_waiting(listener) {
            Ok(copy)
        } else {
            Err(Errno::ESRCH)
        }
    }

    fn read_memory(&self, copy: &mut [u8]) -> Result<(), Errno> {
        let length = copy.len();
        if length == 0 {
            return Ok(());
        }
        let base = usize::try_from(self.address).or(Err(Errno::EFAULT))?;
        let thread = Pid::from_raw(self.thread.cast_signed());
        let there = [RemoteIoVec { base, len: length }];
        let read = process_vm_readv(thread, &mut [IoSliceMut::new(copy)], &there);
        if read == Ok(length) {
            return Ok(());
        }
        // Docker's older profiles refuse that call; this needs the same right, but no call
        // of its own.
        File::open(format!("/proc/{}/mem", self.thread))
            .and_then(|memory| memory.read_exact_at(copy, self.address))
            .or(Err(Errno::EFAULT))
    }

    #[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
    fn is_waiting(&self, listener: BorrowedFd<'_>) -> bool {
        // SAFETY: the kernel reads eight bytes at a place that lives until it returns.
        let answer = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const self.id,
            )
        };
        answer == 0
    }

    /// Whether its socket does not wait. Where that cannot be found out it does: a caller
    /// that gets a socket which surprisingly waits could hang.
    fn is_nonblocking(&self) -> bool {
        let flags = self.borrowed_flags();
        let flags = flags.unwrap_or_else(|_refused| self.shown_flags());
        flags.is_none_or(|flags| flags.contains(OFlag::O_NONBLOCK))
    }

    /// Those of the file itself, which no other thread can exchange meanwhile; `None` if it is no
    /// socket. Fails where the kernel does not lend it.
    fn borrowed_flags(&self) -> io::Result<Option<OFlag>> {
        let unknown = || io::Error::from(Errno::ESRCH);
        let process = self.process()?.cast_signed();
        let process = rustix::process::Pid::from_raw(process).ok_or_else(unknown)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let number = i32::try_from(self.socket).map_err(io::Error::other)?;
        let file = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode & SFlag::S_IFMT.bits());
        let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        Ok((kind == SFlag::S_IFSOCK).then_some(flags))
    }

    /// Docker's profile refuses what borrows a file. Of others than sockets, the kernel may tell
    /// megabytes here, while the server waits.
    fn shown_flags(&self) -> Option<OFlag> {
        let (thread, socket) = (self.thread, self.socket);
        let file = fs::read_link(format!("/proc/{thread}/fd/{socket}")).ok()?;
        if !file.to_string_lossy().starts_with("socket:") {
            return None;
        }
        let told = fs::read_to_string(format!("/proc/{thread}/fdinfo/{socket}")).ok()?;
        let flags = told.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
        Some(OFlag::from_bits_truncate(flags))
    }

    /// Puts a socket of ours at the number of the caller's own, which closes that. The caller does
    /// it itself, when it gets a processor: this waits for that.
    #[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
    pub(super) fn put(&self, listener: BorrowedFd<'_>, socket: &OwnedFd) -> io::Result<()> {
        let number = |number| u32::try_from(number).map_err(io::Error::other);
        let put = libc::seccomp_notif_addfd {
            id: self.id,
            flags: number(libc::SECCOMP_ADDFD_FLAG_SETFD)?,
            srcfd: socket.as_raw_fd().cast_unsigned(),
            newfd: u32::try_from(self.socket).map_err(io::Error::other)?,
            // As Python has all its sockets.
            newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
        };
        // SAFETY: the request's number says the size of the struct that the kernel reads.
        let done = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw const put,
            )
        };
        Errno::result(done)?;
        Ok(())
    }

    /// Lets the call return: 0, or an error.
    pub(super) fn answer(
        &self,
        listener: BorrowedFd<'_>,
        answer: Result<(), Errno>,
    ) -> io::Result<()> {
        respond(listener, self.id, answer)
    }
}

fn refuse(listener: BorrowedFd<'_>, id: u64, error: Errno) -> io::Result<()> {
    respond(listener, id, Err(error))
}

#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
fn respond(listener: BorrowedFd<'_>, id: u64, answer: Result<(), Errno>) -> io::Result<()> {
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: answer.err().map_or(0, |error| -(error as i32)),
        flags: 0,
    };
    // SAFETY: the request's number says the size of the struct that the kernel reads.
    let done = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    };
    match Errno::result(done) {
        // The caller has been interrupted; it calls again or has ended.
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
