//! The channel of a worker that belongs to no plugin yet: what it and the server say to each
//! other before it connects.

use std::{io, os::fd::OwnedFd, os::unix::net::UnixStream as StdUnixStream};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use outrigger_proto::{
    FROM_SPARE_BYTES_MAX, TO_SPARE_BYTES_MAX,
    v1::{Assign, Confined, FromSpare, ToSpare, from_spare, to_spare},
};
use prost::Message;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::passing::Passing;

/// Why a worker cannot be used whose channel this was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// It has closed its end: what has ended it, its process tells.
    #[error("it closed its channel")]
    Closed,
    /// It says that it may not run.
    #[error("its layer {layer} must hold, but does not: {reason}")]
    Refused { layer: String, reason: String },
    /// It said something that it may not say.
    #[error("it broke the protocol: {0}")]
    Violation(String),
    /// The message to it is too large.
    #[error("the message to it has {size} bytes, and {TO_SPARE_BYTES_MAX} are allowed")]
    TooLarge { size: usize },
}

/// The server's end.
#[derive(Debug)]
pub(crate) struct Channel(Framed<Passing, LengthDelimitedCodec>);

impl Channel {
    /// A channel, and the end that the worker gets.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(FROM_SPARE_BYTES_MAX)
            .new_codec();
        let ours = Passing::new(UnixStream::from_std(ours)?);
        Ok((Self(Framed::new(ours, codec)), theirs.into()))
    }

    /// Waits until the worker is set up.
    pub(crate) async fn waiting(&mut self, pid: u32) -> Result<(), ChannelError> {
        match self.receive().await? {
            from_spare::Message::Waiting(waiting) if waiting.pid == pid => Ok(()),
            from_spare::Message::Waiting(waiting) => Err(ChannelError::Violation(format!(
                "process {pid} says that it is process {}",
                waiting.pid
            ))),
            other => Err(unexpected(&other, "waiting")),
        }
    }

    /// Waits for what ends a worker that only waits.
    ///
    /// # Cancel safety
    /// May be dropped at any time; nothing is lost.
    pub(crate) async fn broken(&mut self) -> ChannelError {
        match self.receive().await {
            Ok(message) => unexpected(&message, "nothing"),
            Err(error) => error,
        }
    }

    /// Assigns the worker and waits for its answer, which is the last thing said here. With it
    /// comes the descriptor on which the kernel tells of its calls, if its layers have one.
    pub(crate) async fn assign(
        mut self,
        assign: Assign,
    ) -> Result<(Confined, Option<OwnedFd>), ChannelError> {
        let confinement = assign.confinement.as_ref();
        let has_listener = confinement.is_some_and(|layers| {
            let mut programs = layers.seccomp.iter();
            programs.any(|program| program.listener)
        });
        let message = ToSpare {
            message: Some(to_spare::Message::Assign(assign)),
        };
        let bytes = message.encode_to_vec();
        if bytes.len() > TO_SPARE_BYTES_MAX {
            return Err(ChannelError::TooLarge { size: bytes.len() });
        }
        // The limit is for what it says. If it is gone, the next read says so.
        self.0.codec_mut().set_max_frame_length(TO_SPARE_BYTES_MAX);
        let sent = self.0.send(Bytes::from(bytes)).await;
        self.0
            .codec_mut()
            .set_max_frame_length(FROM_SPARE_BYTES_MAX);
        sent.map_err(|_gone| ChannelError::Closed)?;
        let answer = self.next().await?;
        let listener = self.0.get_mut().detach();
        if listener.is_some() && !has_listener {
            return Err(unasked());
        }
        match answer {
            from_spare::Message::Confined(confined) => Ok((confined, listener)),
            from_spare::Message::Refused(refused) => Err(ChannelError::Refused {
                layer: refused.layer,
                reason: refused.reason,
            }),
            again @ from_spare::Message::Waiting(_) => Err(unexpected(&again, "confined")),
        }
    }

    async fn receive(&mut self) -> Result<from_spare::Message, ChannelError> {
        let message = self.next().await?;
        if self.0.get_mut().detach().is_some() {
            return Err(unasked());
        }
        Ok(message)
    }

    async fn next(&mut self) -> Result<from_spare::Message, ChannelError> {
        let frame = match self.0.next().await {
            None => return Err(ChannelError::Closed),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(broken(&error)),
        };
        let message = FromSpare::decode(frame)
            .map_err(|error| ChannelError::Violation(error.to_string()))?
            .message;
        message.ok_or_else(|| ChannelError::Violation("an empty message".to_owned()))
    }
}

fn unasked() -> ChannelError {
    ChannelError::Violation("a descriptor that nobody asked for".to_owned())
}

/// What a failed read means: the other end has gone, or has sent what cannot be read.
fn broken(error: &io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::InvalidData => ChannelError::Violation(error.to_string()),
        _ => ChannelError::Closed,
    }
}

fn unexpected(message: &from_spare::Message, wanted: &str) -> ChannelError {
    let name = match message {
        from_spare::Message::Waiting(_) => "waiting",
        from_spare::Message::Confined(_) => "confined",
        from_spare::Message::Refused(_) => "refused",
    };
    ChannelError::Violation(format!("{name} came instead of {wanted}"))
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use outrigger_proto::v1::{Refused, Waiting};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = StdUnixStream::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        (ours, UnixStream::from_std(theirs).unwrap())
    }

    fn frame(message: from_spare::Message) -> Vec<u8> {
        let bytes = FromSpare {
            message: Some(message),
        }
        .encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], &bytes].concat()
    }

    fn waiting(pid: u32) -> Vec<u8> {
        frame(from_spare::Message::Waiting(Waiting { pid }))
    }

    #[track_caller]
    fn check_violation(result: Result<(), ChannelError>, text: &str) {
        match result {
            Err(ChannelError::Violation(what)) => assert!(what.contains(text), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_worker_waits_and_is_assigned() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&waiting(7)).await.unwrap();
        ours.waiting(7).await.unwrap();
        let assign = Assign {
            token: vec![1; 32],
            directory: "d".repeat(500_000),
            ..Assign::default()
        };
        let expected = assign.clone();
        let reads = async {
            let length = theirs.read_u32().await.unwrap() as usize;
            let mut bytes = vec![0; length];
            theirs.read_exact(&mut bytes).await.unwrap();
            let to_spare::Message::Assign(assign) =
                ToSpare::decode(&bytes[..]).unwrap().message.unwrap();
            let confined = frame(from_spare::Message::Confined(Confined::default()));
            theirs.write_all(&confined).await.unwrap();
            assign
        };
        let (confined, got) = tokio::join!(ours.assign(assign), reads);
        let (confined, listener) = confined.unwrap();
        assert!(listener.is_none());
        assert_eq!((confined, got), (Confined::default(), expected));
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "it is still open");
    }

    #[tokio::test]
    async fn what_a_broken_worker_says_is_named() {
        for (said, text) in [
            (waiting(8), "process 7 says that it is process 8"),
            (vec![0xff; 4], "frame size too big"),
            (vec![0, 1, 0, 1], "frame size too big"),
            (vec![0, 0, 0, 0], "an empty message"),
            (vec![0, 0, 0, 1, 0xff], "decode"),
            (
                frame(from_spare::Message::Confined(Confined::default())),
                "confined came instead of waiting",
            ),
        ] {
            let (mut ours, mut theirs) = pair();
            theirs.write_all(&said).await.unwrap();
            check_violation(ours.waiting(7).await, text);
        }
    }

    #[tokio::test]
    async fn one_that_says_something_while_it_waits_breaks_the_protocol() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&waiting(7)).await.unwrap();
        check_violation(Err(ours.broken().await), "waiting came instead of nothing");
    }

    #[tokio::test]
    async fn half_a_message_and_an_end_are_an_end() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&waiting(7)[..3]).await.unwrap();
        drop(theirs);
        assert!(matches!(ours.broken().await, ChannelError::Closed));
        let (ours, theirs) = pair();
        drop(theirs);
        let assigned = ours.assign(Assign::default()).await;
        assert!(matches!(assigned, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn a_layer_that_must_hold_is_named() {
        let (ours, mut theirs) = pair();
        let refused = frame(from_spare::Message::Refused(Refused {
            layer: "landlock".into(),
            reason: "not supported".into(),
        }));
        theirs.write_all(&refused).await.unwrap();
        let error = ours.assign(Assign::default()).await.unwrap_err();
        let text = "its layer landlock must hold, but does not: not supported";
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    async fn an_assignment_beyond_the_limit_is_not_sent() {
        let (ours, _theirs) = pair();
        let assign = Assign {
            directory: "d".repeat(TO_SPARE_BYTES_MAX),
            ..Assign::default()
        };
        let error = ours.assign(assign).await.unwrap_err();
        assert!(matches!(error, ChannelError::TooLarge { .. }), "{error}");
    }
}
