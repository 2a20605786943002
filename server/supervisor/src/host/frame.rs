//! How messages to and from a host are framed: four bytes of length, big endian,
//! then a protobuf message.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use outrigger_proto::{
    HOST_FRAME_BYTES_MAX,
    v1::{FromHost, ToHost, from_host, to_host},
};
use prost::Message;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The server's end of a host's standard input.
#[derive(Debug)]
pub(crate) struct HostSocket(Framed<UnixStream, LengthDelimitedCodec>);

impl HostSocket {
    pub(crate) fn new(socket: UnixStream) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(HOST_FRAME_BYTES_MAX)
            .new_codec();
        Self(Framed::new(socket, codec))
    }

    pub(crate) async fn send(&mut self, message: to_host::Message) -> io::Result<()> {
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
        let message = FromHost::decode(frame).map_err(io::Error::other)?;
        message
            .message
            .map(Some)
            .ok_or_else(|| io::Error::other("an empty message"))
    }
}
