//! How messages to and from a host are framed: four bytes of length, big endian,
//! then a protobuf message.

use std::{io, os::fd::OwnedFd};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use outrigger_proto::{
    HOST_FRAME_BYTES_MAX,
    v1::{FromHost, ToHost, from_host, to_host},
};
use prost::Message;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::passing::Passing;

/// The server's end of a host's standard input.
#[derive(Debug)]
pub(crate) struct HostSocket(Framed<Passing, LengthDelimitedCodec>);

impl HostSocket {
    pub(crate) fn new(socket: UnixStream) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(HOST_FRAME_BYTES_MAX)
            .new_codec();
        Self(Framed::new(Passing::new(socket), codec))
    }

    /// Sends a message, and descriptors with its first byte.
    pub(crate) async fn send(
        &mut self,
        message: to_host::Message,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        // Nothing of an earlier message waits to be written: each is flushed.
        self.0.get_mut().attach(descriptors);
        let bytes = ToHost {
            message: Some(message),
        }
        .encode_to_vec();
        self.0.send(Bytes::from(bytes)).await
    }

    /// The next message; `None` when the host has closed its end.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped: what was read stays in the codec's buffer.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<from_host::Message>> {
        let Some(frame) = self.0.next().await.transpose()? else {
            return Ok(None);
        };
        if self.0.get_mut().detach().is_some() {
            return Err(io::Error::other("a descriptor that nobody asked for"));
        }
        let message = FromHost::decode(frame).map_err(io::Error::other)?;
        message
            .message
            .map(Some)
            .ok_or_else(|| io::Error::other("an empty message"))
    }
}
