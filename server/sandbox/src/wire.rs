//! What do the server, the spawner, keepers and launchers say to each other?
//!
//! A request is one message with descriptors on the spawner's socket: the text is in the first
//! descriptor, a memory file, since an environment may be large. What became of it
//! comes back on a socket of that request's own.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    },
};
use serde::{Deserialize, Serialize};

use crate::{confinement::Confinement, report::LayerReport};

/// How large a request may be: an environment is limited by the system to a few MiB.
const REQUEST_MAX: u64 = 16 * 1024 * 1024;

/// How large what comes back may be: reasons are a sentence each.
const STATUS_MAX: usize = 64 * 1024;

/// How many descriptors a message has at most.
const DESCRIPTORS_MAX: usize = 5;

/// What to start. The standard streams travel beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    // A list, since the names need not be text.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: OsString,
    pub(crate) confinement: Option<Confinement>,
}

/// What became of it; each is one message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// From the spawner, with the keeper's pidfd.
    Started {
        pid: i32,
    },
    /// From the spawner.
    Failed(String),
    /// From the launcher, when all is done but the execution, or when a step failed.
    Layers(Vec<LayerReport>),
    /// From the keeper, when the program and everything below it is gone.
    Exited(i32),
    Signalled(i32),
}

/// The ends of a request's descriptors that are the new program's.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) status: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
}

/// Sends a request to the spawner, without waiting.
pub(crate) fn send_request(
    socket: &impl AsFd,
    request: &Request,
    streams: &Streams,
) -> io::Result<()> {
    let mut text = File::from(memfd_create("outrigger-request", MFdFlags::MFD_CLOEXEC)?);
    serde_json::to_writer(&mut text, request)?;
    text.flush()?;
    let mut descriptors = vec![
        text.as_raw_fd(),
        streams.status.as_raw_fd(),
        streams.stdout.as_raw_fd(),
        streams.stderr.as_raw_fd(),
    ];
    descriptors.extend(streams.stdin.as_ref().map(AsRawFd::as_raw_fd));
    send(socket, b"request", &descriptors)
}

/// Waits for the next request; `None` when the server is gone.
pub(crate) fn receive_request(socket: &impl AsFd) -> io::Result<Option<(Request, Streams)>> {
    let mut buffer = [0; 64];
    let (length, descriptors) = receive(socket, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = || {
        let missing = || io::Error::other("a descriptor of the request is missing");
        descriptors.next().ok_or_else(missing)
    };
    let mut text = File::from(next()?);
    let streams = Streams {
        status: next()?,
        stdout: next()?,
        stderr: next()?,
        stdin: descriptors.next(),
    };
    text.rewind()?;
    let mut bytes = Vec::new();
    if text.take(REQUEST_MAX + 1).read_to_end(&mut bytes)? as u64 > REQUEST_MAX {
        return Err(io::Error::other("the request is too large"));
    }
    Ok(Some((serde_json::from_slice(&bytes)?, streams)))
}

/// Says what became of a request.
pub(crate) fn say(
    socket: &impl AsFd,
    status: &Status,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    send(socket, &serde_json::to_vec(status)?, &descriptors)
}

/// What became of a request; `None` when everyone who could say more is gone.
pub(crate) fn hear(socket: &impl AsFd) -> io::Result<Option<(Status, Option<OwnedFd>)>> {
    let mut buffer = vec![0; STATUS_MAX];
    let (length, descriptors) = receive(socket, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let status = serde_json::from_slice(&buffer[..length])?;
    Ok(Some((status, descriptors.into_iter().next())))
}

fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let attached = [ControlMessage::ScmRights(descriptors)];
    let attached: &[ControlMessage<'_>] = if descriptors.is_empty() {
        &[]
    } else {
        &attached[..]
    };
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(
        socket,
        &[IoSlice::new(bytes)],
        attached,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for attached in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = attached {
            descriptors.extend(received.into_iter().map(own));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::other("a message is too long"));
    }
    Ok((message.bytes, descriptors))
}

#[expect(unsafe_code, reason = "the kernel made the descriptor for us just now")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: it came with the message, so that nobody else has it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// An environment as a request has it.
pub(crate) fn environment(map: BTreeMap<OsString, OsString>) -> Vec<(OsString, OsString)> {
    map.into_iter().collect()
}
