//! A Unix stream that carries descriptors along with its bytes.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
};

/// How many descriptors one message may carry: a worker's channel and its output.
const SENT_MAX: usize = 3;

/// Passes descriptors. What the other end sends and nobody has asked for ends the stream.
#[derive(Debug)]
pub(crate) struct Passing {
    stream: UnixStream,
    /// Go with the next bytes.
    outgoing: Vec<OwnedFd>,
    /// Has come, and waits to be taken.
    incoming: Option<OwnedFd>,
}

impl Passing {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            outgoing: Vec::new(),
            incoming: None,
        }
    }

    /// Sends the descriptors, three at most, with the next bytes, and closes them then.
    pub(crate) fn attach(&mut self, descriptors: Vec<OwnedFd>) {
        self.outgoing = descriptors;
    }

    /// What has come with the bytes up to now.
    pub(crate) fn detach(&mut self) -> Option<OwnedFd> {
        self.incoming.take()
    }
}

impl AsyncRead for Passing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let bytes = buffer.initialize_unfilled();
            let received = this
                .stream
                .try_io(Interest::READABLE, || receive(&this.stream, bytes));
            match received {
                Ok((length, descriptor)) => {
                    if descriptor.is_some() && this.incoming.is_some() {
                        return Poll::Ready(Err(unexpected()));
                    }
                    this.incoming = descriptor.or_else(|| this.incoming.take());
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Passing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outgoing.is_empty() {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        }
        loop {
            ready!(this.stream.poll_write_ready(cx))?;
            let sent = this.stream.try_io(Interest::WRITABLE, || {
                send(&this.stream, bytes, &this.outgoing)
            });
            match sent {
                Ok(length) => {
                    this.outgoing.clear();
                    return Poll::Ready(Ok(length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many descriptors to send at once"));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    );
    Ok(sent?)
}

fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    // All are taken out, so that those that are too many are closed.
    let mut descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let first = descriptors.pop();
    if !descriptors.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(unexpected());
    }
    Ok((received.bytes, first))
}

fn unexpected() -> io::Error {
    let text = "it sent more descriptors than it may";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Passing, Passing) {
        let (one, other) = UnixStream::pair().unwrap();
        (Passing::new(one), Passing::new(other))
    }

    #[tokio::test]
    async fn a_descriptor_comes_with_the_bytes_it_was_attached_to() {
        let (mut ours, mut theirs) = pair();
        ours.write_all(b"a").await.unwrap();
        let mut byte = [0];
        theirs.read_exact(&mut byte).await.unwrap();
        assert!(theirs.detach().is_none());
        let file = File::open("/proc/self/stat").unwrap();
        ours.attach(vec![file.into()]);
        ours.write_all(b"b").await.unwrap();
        theirs.read_exact(&mut byte).await.unwrap();
        let mut text = String::new();
        let mut passed = File::from(theirs.detach().expect("it has come"));
        io::Read::read_to_string(&mut passed, &mut text).unwrap();
        assert!(text.starts_with(&std::process::id().to_string()));
        assert!(theirs.detach().is_none());
    }

    #[tokio::test]
    async fn more_descriptors_than_one_end_the_stream() {
        for count in [2, 3, 20] {
            let (ours, mut theirs) = pair();
            let file = File::open("/dev/null").unwrap();
            let descriptors = vec![file.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let slices = [IoSlice::new(b"x")];
            sendmsg(&ours.stream, &slices, &mut ancillary, SendFlags::empty()).unwrap();
            let error = theirs.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{count}");
        }
    }
}
