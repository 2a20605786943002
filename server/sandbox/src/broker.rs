//! Makes the connections of a program that may not make them itself.
//!
//! The program's filter holds it at each `connect` and tells us ([`man
//! seccomp_unotify`](https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html)). We copy
//! the address, look whether the policy allows it, connect a socket of our own, and put that
//! in the place of the program's. What the program changes meanwhile, in its memory or its
//! descriptors, changes nothing, because nothing it can change is looked at twice.
//!
//! Names are resolved here too: whatever name server the program wants to ask by TCP, it
//! gets a [resolver](names) of ours. (The C library asks by TCP where its environment has
//! `RES_OPTIONS=use-vc`; its sockets for UDP are refused by another filter.)
//!
//! What has to wait for the program, whose memory can be busy and whose threads can have no turn,
//! waits on threads of its own, few for each program: nobody else waits with it.
//!
//! Where this ends, because the server does, `connect` answers ENOSYS: it fails closed.

mod address;
mod names;
mod notification;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, setsockopt, socket,
        sockopt::TcpNoDelay,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    task::spawn_blocking,
    time::timeout,
};

pub use self::rules::{ConnectRules, RefusalReason};
use self::{
    address::Target,
    names::Names,
    notification::{Asked, Call, Pending},
    rules::Verdict,
};
use crate::policy::Network;

/// Calls, and connections to the resolver, that are under way at a time. More wait in the
/// kernel, which holds up nobody but the program.
const CALLS_MAX: usize = 64;
/// Threads that may wait for one program.
const STEPS_MAX: usize = 2;
/// How long a connection may take. Linux gives up after about the same time.
const CONNECT_MAX: Duration = Duration::from_secs(130);

/// What a program has done that its owner should know.
#[derive(Debug)]
pub enum BrokerEvent {
    /// It has connected to the server's own socket.
    Own {
        /// Which process: the program, or one that it has started.
        process: u32,
        /// The server's end.
        stream: StdUnixStream,
    },
    /// It was refused.
    Refused(Refusal),
}

/// A connection, or a name's resolution, that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What it wanted, such as `tcp 1.2.3.4:443`, `unix /run/docker.sock`, `name example.com`.
    pub target: String,
    /// Why it was refused.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} was refused: {}", self.target, self.reason)
    }
}

/// Makes the connections of one program and of what it starts.
#[derive(Debug)]
pub struct Broker {
    listener: AsyncFd<Arc<OwnedFd>>,
    steps: Arc<Semaphore>,
    rules: ConnectRules,
    names: Names,
}

/// Who is told.
type OnEvent<'a> = &'a (dyn Fn(BrokerEvent) + Send + Sync);

/// How a call ends well.
enum Outcome {
    /// The caller has its connection.
    Connected,
    /// It has one to the resolver, and this is our end.
    Names(UnixStream),
}

impl Broker {
    /// A broker for the program whose filter has this listener.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    #[expect(unsafe_code, reason = "a promise about who owns a descriptor")]
    pub fn new(listener: OwnedFd, rules: ConnectRules) -> io::Result<Self> {
        // SAFETY: the descriptor is owned, and nothing here takes it out or replaces it before
        // the registration is dropped with it.
        let listener =
            unsafe { AsyncFd::register_with_interest(Arc::new(listener), Interest::READABLE)? };
        Ok(Self {
            listener,
            steps: Arc::new(Semaphore::new(STEPS_MAX)),
            rules,
            names: Names::default(),
        })
    }

    /// Answers calls until no process with the filter is left. `on` must not block.
    ///
    /// # Errors
    /// If the kernel does not let it look for calls any more.
    pub async fn serve(&self, on: impl Fn(BrokerEvent) + Send + Sync) -> io::Result<()> {
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = calls.next() => {}
                taken = self.next(), if calls.len() < CALLS_MAX => match taken? {
                    Some(call) => calls.push(self.handle(call, &on)),
                    None => return Ok(()),
                },
            }
        }
    }

    /// The next call; `None` at the end.
    ///
    /// # Cancel safety
    /// A call that is taken is returned before anything is waited for.
    async fn next(&self) -> io::Result<Option<Call>> {
        loop {
            let mut ready = self.listener.readable().await?;
            match notification::pending(self.fd())? {
                // If its caller is interrupted just now, this does not wait for another one:
                // the kernel still counts it.
                Pending::Call => {
                    if let Some(call) = notification::receive(self.fd())? {
                        return Ok(Some(call));
                    }
                }
                Pending::Nothing => ready.clear_ready(),
                Pending::Over => return Ok(None),
            }
        }
    }

    async fn handle(&self, call: Call, on: OnEvent<'_>) {
        let (answer, asks) = match self.connect(call, on).await {
            Ok(Outcome::Connected) => (Ok(()), None),
            Ok(Outcome::Names(asks)) => (Ok(()), Some(asks)),
            Err(error) => (Err(error), None),
        };
        // A failure means that the caller is gone.
        drop(call.answer(self.fd(), answer));
        if let Some(asks) = asks {
            self.resolve(asks, on).await;
        }
    }

    async fn connect(&self, call: Call, on: OnEvent<'_>) -> Result<Outcome, Errno> {
        let asked = self.step(move |listener| call.look(listener)).await?;
        let target = address::read(&asked.address)?;
        match self.rules.judge(&target) {
            Verdict::Own => self.connect_own(call, &asked, on).await,
            Verdict::Names => self.connect_names(call, &asked).await,
            Verdict::Connect(address) => self.connect_tcp(call, &asked, address).await,
            Verdict::IfNamed(address, names) => {
                if !self.names.any_has(&names, address.ip()).await {
                    return Err(refuse(target, RefusalReason::NotListed, on));
                }
                self.connect_tcp(call, &asked, address).await
            }
            Verdict::Refuse(reason) => Err(refuse(target, reason, on)),
            Verdict::Absent => Err(Errno::ENOENT),
        }
    }

    /// Both ends are made here: the server need not ask who has connected.
    async fn connect_own(
        &self,
        call: Call,
        asked: &Asked,
        on: OnEvent<'_>,
    ) -> Result<Outcome, Errno> {
        let process = asked.process.ok_or(Errno::ESRCH)?;
        let (stream, theirs) = StdUnixStream::pair().map_err(errno)?;
        theirs
            .set_nonblocking(asked.is_nonblocking)
            .map_err(errno)?;
        stream.set_nonblocking(true).map_err(errno)?;
        self.put(call, theirs.into()).await?;
        on(BrokerEvent::Own { process, stream });
        Ok(Outcome::Connected)
    }

    async fn connect_names(&self, call: Call, asked: &Asked) -> Result<Outcome, Errno> {
        let (ours, theirs) = StdUnixStream::pair().map_err(errno)?;
        theirs
            .set_nonblocking(asked.is_nonblocking)
            .map_err(errno)?;
        ours.set_nonblocking(true).map_err(errno)?;
        self.put(call, theirs.into()).await?;
        UnixStream::from_std(ours)
            .map(Outcome::Names)
            .map_err(errno)
    }

    async fn connect_tcp(
        &self,
        call: Call,
        asked: &Asked,
        address: SocketAddr,
    ) -> Result<Outcome, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream = |family| socket(family, SockType::Stream, flags, None);
        let (ours, begun) = match address {
            SocketAddr::V4(address) => {
                let ours = stream(AddressFamily::Inet)?;
                let begun = connect(ours.as_raw_fd(), &SockaddrIn::from(address));
                (ours, begun)
            }
            SocketAddr::V6(address) => {
                let ours = stream(AddressFamily::Inet6)?;
                let begun = connect(ours.as_raw_fd(), &SockaddrIn6::from(address));
                (ours, begun)
            }
        };
        // The options of the caller's own socket are lost; this is the one nearly all set.
        setsockopt(&ours, TcpNoDelay, &true)?;
        if asked.is_nonblocking {
            if matches!(begun, Ok(()) | Err(Errno::EINPROGRESS)) {
                self.put(call, ours).await?;
            }
            return begun.map(|()| Outcome::Connected);
        }
        match begun {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let connected = timeout(CONNECT_MAX, until_connected(ours));
        let connected = connected.await.or(Err(Errno::ETIMEDOUT))?;
        self.put(call, connected.map_err(errno)?).await?;
        Ok(Outcome::Connected)
    }

    async fn put(&self, call: Call, socket: OwnedFd) -> Result<(), Errno> {
        let put = move |listener: BorrowedFd<'_>| call.put(listener, &socket).map_err(errno);
        self.step(put).await
    }

    /// Does what may have to wait for the caller.
    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let turn = self.steps.clone().acquire_owned().await;
        let listener = self.listener.get_ref().clone();
        let done = spawn_blocking(move || {
            // As long as it waits, whoever has asked for it.
            let _turn = turn;
            work(listener.as_fd())
        });
        done.await.unwrap_or(Err(Errno::EIO))
    }

    async fn resolve(&self, asks: UnixStream, on: OnEvent<'_>) {
        let permit = |name: &str| self.rules.judge_name(name);
        let refused = |name: &str, reason| {
            let target = format!("name {name}");
            on(BrokerEvent::Refused(Refusal { target, reason }));
        };
        let remember = matches!(self.rules.network, Network::Only(_));
        // Whatever ends it, the program sees its end.
        drop(self.names.serve(asks, permit, refused, remember).await);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.get_ref().as_fd()
    }
}

fn refuse(target: Target, reason: RefusalReason, on: OnEvent<'_>) -> Errno {
    let target = target.to_string();
    on(BrokerEvent::Refused(Refusal { target, reason }));
    // What a firewall would have it see, which programs are prepared for.
    Errno::ECONNREFUSED
}

/// Waits until a connection that was begun is there, for a caller that waits.
async fn until_connected(begun: OwnedFd) -> io::Result<OwnedFd> {
    let stream = TcpStream::from_std(begun.into())?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
