//! What a worker may touch, and how it is told: from a plugin's grants to the layers that the
//! worker applies, and what became of them.

mod broker;
mod group;
mod layers;
mod programs;
mod user;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use outrigger_proto::v1::{Assign, LayerReport as Told};
use outrigger_sandbox::{
    ConnectRules, GroupLimits, Groups, Layer, LayerReport, Limits, Machine, Mode, Network, Policy,
    WorkerLayers,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(crate) use self::{
    broker::Brokerage,
    programs::{Errand, of_hosts},
    user::of_workers,
};
use crate::{
    host::{Place, WorkerProcess},
    invocation::{BindingKey, Plugin},
    private::{Over, PrivateMax, PrivateRoot, Watch, Watchee, pin},
    service::Entrance,
};

/// How workers are confined.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// Whether layers must hold, should, or are off.
    pub mode: Mode,
    /// What the kernel can do.
    pub machine: Machine,
    /// How much each worker may take.
    pub limits: Limits,
    /// Where workers get control groups.
    pub groups: Arc<Groups>,
    /// How much each worker may take together with what it starts.
    pub group_limits: GroupLimits,
    /// What all workers may read beside their own environment's Python.
    pub read: Vec<PathBuf>,
    /// What all workers may change.
    pub write: Vec<PathBuf>,
    /// What workers may connect to whose plugin was not granted anything else.
    pub network: Network,
    /// What no worker may read, even if it lies in something that it may.
    pub secret: Vec<PathBuf>,
    /// Where the private directories are that outlive workers.
    pub kept: PathBuf,
    /// How much each worker's private directories may hold.
    pub private_max: PrivateMax,
    /// Environment variables beside HOME in which plugins look for the directory that outlives
    /// workers.
    pub kept_names: &'static [&'static str],
}

/// What a plugin may touch beyond what all may.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants {
    /// Files and directories that it may read.
    pub read: Vec<PathBuf>,
    /// Files and directories that it may change.
    pub write: Vec<PathBuf>,
    /// Whether it may start processes.
    pub subprocesses: bool,
    /// What it may connect to; what all may if `None`.
    pub network: Option<Network>,
}

/// Why a worker cannot be confined as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    /// Its private directories cannot be used.
    #[error("make the private directories of {binding}: {source}")]
    Private {
        binding: BindingKey,
        source: io::Error,
    },
    /// Its plugin keeps too much already.
    #[error("{0}")]
    Full(String),
    /// A layer that must hold cannot be had on this machine.
    #[error("the layer {0} must hold, but this machine does not have it")]
    Missing(Layer),
}

/// Confines workers.
#[derive(Debug)]
pub(crate) struct Confiner {
    settings: Confinement,
    socket: PathBuf,
    entrance: Entrance,
    plugins: PathBuf,
    kept: PrivateRoot,
    temporary: PrivateRoot,
    watch: Watch,
    /// Keeps what rules name in `/proc` the same; see [`pin`].
    _pins: Vec<OwnedFd>,
    /// Bindings whose directories held too much when last looked at.
    full: Mutex<BTreeSet<BindingKey>>,
    /// What was said of enforcement before.
    said: Mutex<BTreeSet<String>>,
    /// Paths that were not granted because of what lies in them.
    withheld: Mutex<BTreeSet<PathBuf>>,
}

/// A worker's confinement before it holds.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) assign: Assign,
    /// Which reports the server makes itself.
    pub(crate) known: Vec<LayerReport>,
    pub(crate) directories: Arc<Watchee>,
    pub(crate) over: Over,
    /// What goes with the worker.
    pub(crate) leftovers: Leftovers,
}

/// Names of private directories that go with a worker.
#[derive(Clone, Debug)]
pub(crate) struct Leftovers {
    temporary: String,
    /// Where its plugin keeps nothing for later.
    home: Option<String>,
}

impl Confiner {
    /// Opens the directories in which it makes others.
    pub(crate) fn new(
        settings: Confinement,
        socket: PathBuf,
        plugins: PathBuf,
        temporary: &Path,
        entrance: Entrance,
        user: Option<u32>,
    ) -> io::Result<Self> {
        let kept = PrivateRoot::open_for(&settings.kept, user)?;
        let temporary = PrivateRoot::open_for(temporary, user)?;
        let pins = pins(&settings);
        Ok(Self {
            settings,
            socket,
            entrance,
            plugins,
            kept,
            temporary,
            watch: Watch::default(),
            _pins: pins,
            full: Mutex::default(),
            said: Mutex::default(),
            withheld: Mutex::default(),
        })
    }

    /// Looks after private directories until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let (watch, max) = (self.watch.clone(), self.settings.private_max);
        watch.run(max, shutdown).await;
    }

    /// Makes the directory in which a binding keeps its files before its first worker needs it;
    /// blocks.
    pub(crate) fn make_kept(&self, binding: &BindingKey) {
        let made = self.kept.make(&binding.0);
        if let Err(error) = made.and_then(|home| home.link_entries(&self.plugins)) {
            debug!(%binding, %error, "a private directory cannot be made yet");
        }
    }

    /// Makes a worker's directories and says what it is to be told; blocks.
    pub(crate) fn prepare(
        &self,
        plugin: &Plugin,
        pid: u32,
        token: Vec<u8>,
        python: &[PathBuf],
    ) -> Result<Prepared, ConfineError> {
        let binding = &plugin.binding;
        let leftovers = Leftovers {
            temporary: format!("{binding}-{pid}"),
            home: (!plugin.keeps_files).then(|| format!("{binding}-{pid}-home")),
        };
        let has_family = plugin.grants.subprocesses || !self.settings.forbids_processes();
        let directories = self.directories(binding, &leftovers, pid, has_family);
        let (watchee, over) = directories.inspect_err(|_failed| self.clean_up(&leftovers))?;
        let [home, temporary] = &watchee.directories;
        let paths = [home.path.clone(), temporary.path.clone()];
        let layers = self.layers(plugin, python, &paths).for_process(pid);
        for (layer, is_there) in [
            (Layer::Landlock, layers.landlock.is_some()),
            (Layer::Seccomp, !layers.seccomp.is_empty()),
        ] {
            if layers.requires(layer) && !is_there {
                self.clean_up(&leftovers);
                return Err(ConfineError::Missing(layer));
            }
        }
        self.watch.add(&watchee);
        Ok(Prepared {
            assign: Assign {
                token,
                socket: self.socket.display().to_string(),
                environment: environment(&paths, self.settings.kept_names, layers.has_listener()),
                directory: paths[0].display().to_string(),
                confinement: Some(layers::message(&layers)),
            },
            known: layers.known,
            directories: watchee,
            over,
            leftovers,
        })
    }

    fn directories(
        &self,
        binding: &BindingKey,
        leftovers: &Leftovers,
        pid: u32,
        has_family: bool,
    ) -> Result<(Arc<Watchee>, Over), ConfineError> {
        let made = || -> io::Result<_> {
            let home = match &leftovers.home {
                None => self.kept.make(&binding.0),
                Some(name) => self.temporary.make(name),
            }?;
            home.link_entries(&self.plugins)?;
            Ok([home, self.temporary.make(&leftovers.temporary)?])
        };
        let directories = made().map_err(|source| ConfineError::Private {
            binding: binding.clone(),
            source,
        })?;
        let (watchee, over) = Watchee::new(directories, pid, has_family);
        self.check_room(binding, &watchee)?;
        Ok((Arc::new(watchee), over))
    }

    /// One whose directories held too much may only start once there is room.
    fn check_room(&self, binding: &BindingKey, watchee: &Watchee) -> Result<(), ConfineError> {
        if !self.full.lock().contains(binding) {
            return Ok(());
        }
        if let Some(excess) = watchee.excess(self.settings.private_max) {
            return Err(ConfineError::Full(excess));
        }
        self.full.lock().remove(binding);
        Ok(())
    }

    /// A worker was ended because its directories held too much.
    pub(crate) fn on_full(&self, binding: &BindingKey) {
        self.full.lock().insert(binding.clone());
    }

    fn layers(&self, plugin: &Plugin, python: &[PathBuf], private: &[PathBuf; 2]) -> WorkerLayers {
        let Confinement {
            mode,
            machine,
            limits,
            read,
            write,
            ..
        } = &self.settings;
        let (grants, secrets) = (&plugin.grants, self.settings.secrets());
        let read = python.iter().chain(read).chain(&grants.read);
        let policy = Policy {
            read: read
                .filter(|path| self.may_read(path, &secrets))
                .cloned()
                .collect(),
            write: private
                .iter()
                .chain(write)
                .chain(&grants.write)
                .cloned()
                .collect(),
            subprocesses: grants.subprocesses,
            change_modes: false,
            network: self.network(plugin),
            limits: limits.clone(),
        };
        WorkerLayers::new(&policy, machine, *mode).with_connect_broker(&policy, machine)
    }

    /// What makes the connections of a plugin's worker.
    pub(crate) fn brokerage(&self, plugin: &Plugin, process: &WorkerProcess) -> Brokerage {
        Brokerage {
            rules: ConnectRules {
                own_socket: self.socket.clone(),
                network: self.network(plugin),
            },
            entrance: self.entrance.clone(),
            output: process.says.clone(),
        }
    }

    fn network(&self, plugin: &Plugin) -> Network {
        let granted = plugin.grants.network.as_ref();
        granted.unwrap_or(&self.settings.network).clone()
    }

    /// Says once of each path why it may not.
    fn may_read(&self, path: &Path, secrets: &[PathBuf]) -> bool {
        let Some(secret) = programs::secret_in(path, secrets) else {
            return true;
        };
        if self.settings.mode != Mode::Off && self.withheld.lock().insert(path.to_owned()) {
            warn!(
                path = %path.display(),
                holds = %secret.display(),
                "plugins cannot read a directory, because it holds what they must not: move one \
                 of them"
            );
        }
        false
    }

    /// What became of the layers, in words; said once for each different answer. `born` are
    /// those of its host.
    pub(crate) fn conclude(
        &self,
        born: &[LayerReport],
        known: Vec<LayerReport>,
        told: Vec<Told>,
    ) -> Result<Arc<str>, String> {
        let mut reports = layers::merge(known, told)?;
        reports.extend(layers::inherited(born));
        if self.settings.mode != Mode::Off {
            // Decided when the server started, and the same for all.
            reports.push(if self.settings.machine.leaves_out(Layer::Environment) {
                LayerReport::off(Layer::Environment)
            } else {
                LayerReport::enforced(Layer::Environment)
            });
            reports.sort_by_key(|report| report.layer);
        }
        let words: Vec<String> = reports.iter().map(ToString::to_string).collect();
        let enforcement = words.join(" ");
        if self.said.lock().insert(enforcement.clone()) {
            info!(enforcement, "workers are confined");
        } else {
            debug!(enforcement, "a worker is confined");
        }
        Ok(enforcement.into())
    }

    /// Has what the operator has put into the plugin directory since then appear; blocks.
    pub(crate) fn refresh(&self, directories: &Watchee) {
        if let Err(error) = directories.directories[0].link_entries(&self.plugins) {
            debug!(%error, "the plugin directory's entries cannot be shown to a worker");
        }
    }

    /// Ends what a worker has left that has ended, and removes what goes with it; blocks.
    pub(crate) fn end(&self, place: &Place, leftovers: Option<&Leftovers>) {
        // Before its files: what it has started may still write some.
        group::end(place);
        if let Some(leftovers) = leftovers {
            self.clean_up(leftovers);
        }
    }

    fn clean_up(&self, leftovers: &Leftovers) {
        for name in [Some(&leftovers.temporary), leftovers.home.as_ref()] {
            let Some(name) = name else { continue };
            if let Err(error) = self.temporary.remove(name) {
                warn!(name, %error, "a worker's temporary directory cannot be removed");
            }
        }
    }

    /// Removes what a plugin has kept that is gone for good; blocks.
    pub(crate) fn forget(&self, binding: &BindingKey) {
        self.full.lock().remove(binding);
        match self.kept.remove(&binding.0) {
            Ok(()) => debug!(%binding, "removed a private directory"),
            Err(error) => {
                warn!(%binding, %error, "a private directory cannot be removed");
            }
        }
    }

    /// Removes what all others have kept; blocks.
    pub(crate) fn forget_others(&self, keep: &BTreeSet<BindingKey>) {
        let names = match self.kept.names() {
            Ok(names) => names,
            Err(error) => return warn!(%error, "private directories cannot be listed"),
        };
        for name in names {
            let binding = BindingKey(name.into());
            if !keep.contains(&binding) {
                info!(%binding, "removing the private directory of what is gone");
                self.forget(&binding);
            }
        }
    }
}

/// What plugins find where.
fn environment(
    [home, temporary]: &[PathBuf; 2],
    kept_names: &[&str],
    brokered: bool,
) -> HashMap<String, String> {
    let home = home.display().to_string();
    let mut environment = HashMap::new();
    for name in [&["HOME"], kept_names].concat() {
        environment.insert(name.to_owned(), home.clone());
    }
    environment.insert("TMPDIR".to_owned(), temporary.display().to_string());
    if brokered {
        // The C library asks for names by TCP: those questions the broker answers.
        environment.insert("RES_OPTIONS".to_owned(), "use-vc".to_owned());
    }
    environment
}

fn pins(settings: &Confinement) -> Vec<OwnedFd> {
    let layers = WorkerLayers::new(&Policy::default(), &settings.machine, settings.mode);
    let rules = layers.landlock.map(|rules| rules.paths).unwrap_or_default();
    let files = rules.iter().map(|(path, _)| path);
    files
        .filter(|path| path.starts_with("/proc") && !path.starts_with("/proc/self"))
        .filter_map(|path| pin(path))
        .collect()
}
