//! Who may be connected to the workers' socket, how many times, and for how long unproven?
//!
//! Any process of this user can connect. Connections cost descriptors and memory of the
//! server, so each process has few of them, and those that prove nothing have little time.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream as StdUnixStream,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::stream::{self, Stream};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::{Duration, Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::quiet::Quiet;
use crate::peer::Peer;

/// Connections of one process. A worker has two, for control and for Flight; its libraries
/// may open new ones before the old ones are gone.
const CONNECTIONS_PER_PROCESS_MAX: usize = 4;
/// Connections that there is room for beside those of all workers.
const CONNECTIONS_SPARE: usize = 64;
/// How long a connection may go without a good token or key. A worker shows its token with
/// its first message.
pub(super) const UNPROVEN_MAX: Duration = Duration::from_secs(10);
/// How much may be said before that: the largest ticket, and some frames.
const UNPROVEN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long to wait when the kernel has no descriptor left: some will be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many connections that were made for workers may wait to be admitted.
const BROKERED_MAX: usize = 256;

/// How connections that wait to be admitted come, whoever has made them.
#[derive(Debug)]
pub(crate) struct Arrivals {
    listener: UnixListener,
    brokered: mpsc::Receiver<Brokered>,
}

/// A connection that the server has made for a worker, and which process asked for it: the
/// kernel would say that it was the server.
type Brokered = (u32, StdUnixStream);

/// Where the connections of workers come in that cannot make them themselves.
#[derive(Clone, Debug)]
pub(crate) struct Entrance(mpsc::Sender<Brokered>);

impl Entrance {
    /// Lets a connection in that this process has asked for. Where too many wait, it is closed.
    pub(crate) fn admit(&self, process: u32, stream: StdUnixStream) {
        drop(self.0.try_send((process, stream)));
    }
}

impl Arrivals {
    /// What comes at the listener, and at the entrance beside it.
    pub(super) fn new(listener: UnixListener) -> (Self, Entrance) {
        let (entrance, brokered) = mpsc::channel(BROKERED_MAX);
        (Self { listener, brokered }, Entrance(entrance))
    }

    /// The next one, and the process at its other end.
    async fn next(&mut self) -> io::Result<(UnixStream, u32)> {
        tokio::select! {
            accepted = self.listener.accept() => {
                let (socket, _address) = accepted?;
                let pid = socket.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
                let unknown = || io::Error::other("the peer's process is unknown");
                Ok((socket, pid.ok_or_else(unknown)?))
            }
            Some((pid, stream)) = self.brokered.recv() => {
                Ok((UnixStream::from_std(stream)?, pid))
            }
        }
    }
}

/// The connections that are admitted. Never ends: one that cannot be accepted must not end
/// all others.
pub(super) fn incoming(
    arrivals: Arrivals,
    workers_max: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let door = Arc::new(Door::for_workers(workers_max));
    stream::unfold((arrivals, door), |(mut arrivals, door)| async move {
        loop {
            match arrivals.next().await {
                Ok((socket, pid)) => {
                    if let Some(connection) = Connection::admit(socket, pid, &door) {
                        return Some((Ok(connection), (arrivals, door)));
                    }
                }
                Err(error) => {
                    door.quiet
                        .say(|| warn!(%error, "cannot accept a worker's connection"));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Counts who is inside.
#[derive(Debug)]
struct Door {
    connections_max: usize,
    inside: Mutex<HashMap<u32, usize>>,
    quiet: Quiet,
}

impl Door {
    fn for_workers(workers_max: usize) -> Self {
        let own = workers_max.saturating_mul(CONNECTIONS_PER_PROCESS_MAX);
        Self {
            connections_max: own.saturating_add(CONNECTIONS_SPARE),
            inside: Mutex::default(),
            quiet: Quiet::default(),
        }
    }

    fn enter(self: &Arc<Self>, pid: u32) -> Option<Seat> {
        let mut inside = self.inside.lock();
        let total: usize = inside.values().sum();
        let own = inside.entry(pid).or_default();
        if *own >= CONNECTIONS_PER_PROCESS_MAX || total >= self.connections_max {
            let own = *own;
            inside.retain(|_, count| *count > 0);
            drop(inside);
            self.quiet
                .say(|| warn!(pid, own, total, "refused a connection: there are too many"));
            return None;
        }
        *own += 1;
        drop(inside);
        let door = self.clone();
        Some(Seat { door, pid })
    }
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
struct Seat {
    door: Arc<Door>,
    pid: u32,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock();
        if let Some(count) = inside.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.pid);
            }
        }
    }
}

/// A connection that notes when it was heard.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    peer: Arc<Peer>,
    /// Until it has proven who it is.
    probation: Option<Probation>,
    _seat: Seat,
}

#[derive(Debug)]
struct Probation {
    over: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Connection {
    fn admit(socket: UnixStream, pid: u32, door: &Arc<Door>) -> Option<Self> {
        let seat = door.enter(pid)?;
        Some(Self {
            socket,
            peer: Arc::new(Peer::new(pid)),
            probation: Some(Probation {
                over: Box::pin(tokio::time::sleep_until(Instant::now() + UNPROVEN_MAX)),
                bytes: 0,
            }),
            _seat: seat,
        })
    }

    /// Whether it may still be listened to.
    fn check(&mut self, cx: &mut Context<'_>, bytes: usize) -> io::Result<()> {
        let Some(probation) = &mut self.probation else {
            return Ok(());
        };
        if self.peer.is_proven() {
            self.probation = None;
            return Ok(());
        }
        probation.bytes += bytes;
        let late = probation.over.as_mut().poll(cx).is_ready();
        if late || probation.bytes > UNPROVEN_BYTES_MAX {
            let (pid, bytes) = (self.peer.pid, probation.bytes);
            debug!(pid, bytes, "closed a connection that proved nothing");
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx, 0)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.peer.on_heard();
        }
        Poll::Ready(self.check(cx, bytes))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_process_has_few_places_and_gets_them_back() {
        let door = Arc::new(Door::for_workers(1));
        let seats: Vec<_> = (0..10).filter_map(|_| door.enter(7)).collect();
        assert_eq!(seats.len(), CONNECTIONS_PER_PROCESS_MAX);
        assert!(door.enter(8).is_some(), "others have their own");
        drop(seats);
        assert!(door.enter(7).is_some());
        assert!(door.inside.lock().is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn there_are_not_more_than_the_limit_in_all() {
        let door = Arc::new(Door::for_workers(1));
        let seats: Vec<_> = (0..10_000).filter_map(|pid| door.enter(pid)).collect();
        assert_eq!(seats.len(), door.connections_max);
        assert_eq!(door.inside.lock().len(), door.connections_max);
    }

    async fn connected() -> (UnixStream, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let (arrivals, _entrance) = Arrivals::new(listener);
        let connection = Box::pin(incoming(arrivals, 1))
            .next()
            .await
            .unwrap()
            .unwrap();
        (client, connection)
    }

    #[tokio::test]
    async fn a_connection_that_was_made_for_a_worker_has_the_workers_pid() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (arrivals, entrance) = Arrivals::new(listener);
        let (ours, _theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        entrance.admit(4711, ours);
        let mut incoming = Box::pin(incoming(arrivals, 1));
        let connection = incoming.next().await.unwrap().unwrap();
        assert_eq!(connection.connect_info().pid, 4711);
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let (_client, mut connection) = connected().await;
        tokio::time::pause();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_proven_connection_may_be_silent() {
        let (mut client, mut connection) = connected().await;
        connection.connect_info().prove();
        tokio::time::pause();
        let first = tokio::time::timeout(UNPROVEN_MAX * 10, connection.read_u8()).await;
        assert!(first.is_err(), "{first:?}");
        client.write_u8(5).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_stranger_cannot_say_much() {
        let (mut client, mut connection) = connected().await;
        let flood = async { client.write_all(&vec![0; 2 * UNPROVEN_BYTES_MAX]).await };
        let mut sink = tokio::io::sink();
        let (_, read) = tokio::join!(flood, async {
            let read = tokio::io::copy(&mut connection, &mut sink).await;
            drop(connection);
            read
        });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
