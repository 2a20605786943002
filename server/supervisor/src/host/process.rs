//! A running host process.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use outrigger_proto::{
    PROTOCOL_VERSION,
    v1::{HostReady, from_host, to_host},
};
use outrigger_sandbox::{HostConfinement, Launch, Launcher, Layer, Running};
use tokio::{
    net::{UnixStream, unix::pipe},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::worker::Born;
use crate::{
    config::Config, environment::read_lines, error::HostError, host::frame::HostSocket,
    output::Tail,
};

/// How long a message may wait until the host reads.
const SEND_MAX: Duration = Duration::from_secs(5);

/// What tells a host which layers its workers do not take although they could; see `_child.py`.
const LEFT_OUT: &str = "OUTRIGGER_LAYERS_LEFT_OUT";

/// Of those that workers take without being told how.
fn left_out(confinement: &HostConfinement) -> Option<String> {
    let own = [Layer::Descriptors, Layer::Capabilities].into_iter();
    let names = own.filter(|layer| confinement.machine.leaves_out(*layer));
    let names: Vec<_> = names.map(Layer::name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// A host's variables.
fn environment(config: &Config, confinement: &HostConfinement) -> BTreeMap<OsString, OsString> {
    let mut environment = config.environment.clone();
    // Without these, loading the modules starts threads, and a process with
    // threads must not fork.
    for (name, value) in [
        ("OPENBLAS_NUM_THREADS", "1"),
        ("JE_ARROW_MALLOC_CONF", "background_thread:false"),
        ("GRPC_ENABLE_FORK_SUPPORT", "0"),
    ] {
        environment.insert(name.into(), value.into());
    }
    config.virtual_environment.complete(&mut environment);
    // Never from somewhere else.
    environment.remove(OsStr::new(LEFT_OUT));
    if let Some(left_out) = left_out(confinement) {
        environment.insert(LEFT_OUT.into(), left_out.into());
    }
    environment
}

/// A host that is ready. Ends with its workers when dropped.
#[derive(Debug)]
pub(crate) struct HostProcess {
    socket: HostSocket,
    running: Running,
    born: Born,
}

impl HostProcess {
    /// Starts a host and waits until its modules are loaded.
    pub(crate) async fn start(
        config: &Config,
        confinement: HostConfinement,
        launcher: &Launcher,
        tasks: &TaskTracker,
    ) -> Result<Self, HostError> {
        config.virtual_environment.check()?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let environment = environment(config, &confinement);
        let launched = launcher
            .launch(Launch {
                program: config.virtual_environment.python().to_owned(),
                // -P: nothing in the working directory is imported by the trusted host.
                arguments: ["-P", "-m", "outrigger_plugin_host", "host"]
                    .map(Into::into)
                    .to_vec(),
                environment,
                directory: config.run_directory.clone(),
                stdin: Some(theirs.into()),
                confinement: Some(confinement),
            })
            .await?;
        let keeper = launched.running.pid();
        let mut host = Self {
            socket: HostSocket::new(UnixStream::from_std(ours)?),
            running: launched.running,
            born: Born {
                layers: launched.layers.into(),
                python: Arc::default(),
                keeper,
            },
        };
        let stdout = pipe::Receiver::from_owned_fd(launched.stdout)?;
        let stderr = pipe::Receiver::from_owned_fd(launched.stderr)?;
        let pid = host.pid();
        tasks.spawn(read_lines(stdout, move |line| {
            info!(pid, line, "plugin host");
        }));
        let tail = Arc::new(parking_lot::Mutex::new(Tail::default()));
        let sink = tail.clone();
        let stderr = tasks.spawn(read_lines(stderr, move |line| {
            warn!(pid, line, "plugin host");
            sink.lock().push(line);
        }));
        match timeout(config.host_start_max, host.ready()).await {
            Ok(Ok(ready)) => {
                let layers: Vec<_> = host.born.layers.iter().map(ToString::to_string).collect();
                info!(
                    pid,
                    python = ready.python_version,
                    enforcement = layers.join(" "),
                    "plugin host is ready"
                );
                host.born.python = ready.readable.into_iter().map(PathBuf::from).collect();
                Ok(host)
            }
            Ok(Err(HostError::Socket(_))) => {
                // It ended; what it said tells why.
                host.running.kill();
                let exit = host.running.wait().await;
                drop(timeout(Duration::from_secs(1), stderr).await);
                let said = tail.lock().lines().join("\n");
                Err(HostError::Ended(format!("{exit:?}\n{said}")))
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(HostError::NotReady(config.host_start_max)),
        }
    }

    async fn ready(&mut self) -> Result<HostReady, HostError> {
        match self.next().await? {
            from_host::Message::Ready(ready) if ready.protocol == PROTOCOL_VERSION => Ok(ready),
            from_host::Message::Ready(ready) => Err(HostError::Protocol(format!(
                "it speaks version {}, this server version {PROTOCOL_VERSION}",
                ready.protocol
            ))),
            other => Err(HostError::Protocol(format!("{other:?} came before ready"))),
        }
    }

    /// What its workers have from it.
    pub(super) fn born(&self) -> Born {
        self.born.clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The next thing it says; the end of the stream is an error.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> io::Result<from_host::Message> {
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed its socket");
        self.socket.receive().await?.ok_or_else(closed)
    }

    /// Says something to it, and passes descriptors. A host that does not read is as good
    /// as gone.
    pub(crate) async fn send(
        &mut self,
        message: to_host::Message,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let stuck = || io::Error::new(io::ErrorKind::TimedOut, "it does not read its socket");
        timeout(SEND_MAX, self.socket.send(message, descriptors))
            .await
            .unwrap_or_else(|_elapsed| Err(stuck()))
    }

    /// Closes its socket, which tells it to end, and waits for that.
    pub(crate) async fn stop(self, grace: Duration) {
        let Self {
            socket,
            mut running,
            ..
        } = self;
        drop(socket);
        if timeout(grace, running.wait()).await.is_err() {
            warn!(
                pid = running.pid(),
                "the plugin host did not end in time, killing it"
            );
            running.kill();
            running.wait().await;
        }
    }
}
