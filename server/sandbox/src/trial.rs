//! What would hold on this machine? Starts a process under the layers of a host and, as workers
//! are, those of a worker below them, has it try things, and judges by what came of them, not by
//! the names of layers.

mod attempts;
mod bait;

use std::{
    io,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{self, Command, ExitCode, ExitStatus, Stdio},
};

use nix::{
    sys::prctl,
    unistd::{alarm, geteuid, getppid},
};
use serde::{Deserialize, Serialize};

use self::bait::Bait;
use crate::{
    apply::{self, Applied},
    confinement::{Confinement, HostConfinement, Role},
    groups::{GroupLimits, Groups},
    launch,
    machine::Machine,
    namespaces,
    policy::{Mode, Network, Policy},
    report::{Layer, LayerReport, State},
    worker::WorkerLayers,
};

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__outrigger-try";

/// Layers that strict mode does without.
const OF_TIER_A: [Layer; 4] = [
    Layer::MountNamespace,
    Layer::IpcNamespace,
    Layer::UtsNamespace,
    Layer::NetworkNamespace,
];

/// How many seconds all attempts may take. They take milliseconds.
const TRIAL_MAX: u32 = 20;

/// How much holds, from the most to the least. docs/security.md says what each stops.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Tier {
    /// Nothing that could be relied on.
    None,
    /// Files, signals and system calls, but any Unix socket and any address can be reached.
    C,
    /// And connections.
    B,
    /// And namespaces.
    A,
}

impl Tier {
    /// What strict mode asks for.
    pub const STRICT: Self = Self::B;

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::C => "C",
            Self::B => "B",
            Self::A => "A",
        }
    }
}

/// Something that was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who has tried it: a plugin, or a program that is confined from its start.
    pub who: String,
    /// What.
    pub what: String,
    /// The layer that is to decide it.
    pub layer: Layer,
    /// Whether it is to be possible: what plugins need.
    pub wanted: bool,
    /// Why it could not be done; nothing if it could.
    pub refusal: Option<String>,
}

impl Attempt {
    /// Whether it ended as it should.
    pub const fn holds(&self) -> bool {
        self.wanted == self.refusal.is_none()
    }
}

/// What would hold.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What became of each layer of a worker, in order.
    pub layers: Vec<LayerReport>,
    /// The same for the other programs, by their names.
    pub programs: Vec<(String, Vec<LayerReport>)>,
    /// What was tried.
    pub attempts: Vec<Attempt>,
}

/// What strict mode lacks here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("--sandbox strict needs the layer {layer}, which does not hold here: {why}. {remedy}")]
pub struct NotStrict {
    /// The layer.
    pub layer: Layer,
    /// Why it does not hold.
    pub why: String,
    /// What can be done about it.
    pub remedy: &'static str,
}

/// What the trying process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    subject: Subject,
    layers: Layers,
    bait: bait::Places,
}

/// Whose layers are tried.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Subject {
    /// A worker: whether it is somebody else than the server, and has a control group.
    Worker { other: bool, group: bool },
    /// What workers are forks of.
    Host { other: bool },
    /// What fills the virtual environment.
    Installer,
}

/// Its layers, as those are told who take them.
#[derive(Debug, Serialize, Deserialize)]
enum Layers {
    Worker {
        host: Option<Confinement>,
        layers: WorkerLayers,
    },
    Program(Option<Confinement>),
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    layers: Vec<LayerReport>,
    attempts: Vec<Attempt>,
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Worker { .. } => "a plugin",
            Self::Host { .. } => "a host",
            Self::Installer => "pip",
        }
    }

    const fn is_worker(self) -> bool {
        matches!(self, Self::Worker { .. })
    }

    const fn is_somebody_else(self) -> bool {
        match self {
            Self::Worker { other, .. } | Self::Host { other } => other,
            Self::Installer => false,
        }
    }
}

impl Trial {
    /// Tries it out. Blocks for some milliseconds; starts this binary, whose `main` must begin
    /// with [`crate::launch::program`].
    pub fn run(machine: &Machine) -> io::Result<Self> {
        let bait = Bait::lay()?;
        let mut trial = Self::of_worker(machine, &bait)?;
        for (role, network) in [
            (Role::Host, Network::None),
            (Role::Program, Network::Outbound),
        ] {
            trial.add_program(machine, &bait, role, network)?;
        }
        Ok(trial)
    }

    fn of_worker(machine: &Machine, bait: &Bait) -> io::Result<Self> {
        let places = bait.places()?;
        let policy = Policy {
            write: vec![places.granted.clone()],
            ..Policy::default()
        };
        let groups = Groups::make(machine);
        let user = bait.own_user(machine);
        if let Ok(user) = user {
            bait.give(user)?;
        }
        let task = Task {
            subject: Subject::Worker {
                other: user.is_ok(),
                group: groups.bounds_processes(),
            },
            layers: Layers::Worker {
                host: bait.host(&policy, machine, user.clone()).plain(),
                layers: WorkerLayers::new(&policy, machine, Mode::Auto)
                    .with_connect_broker(&policy, machine),
            },
            bait: places,
        };
        let (status, mut answer) = ask(&task, &groups)?;
        bait.judge(&mut answer.attempts);
        answer.attempts.push(Attempt {
            who: task.subject.name().to_owned(),
            what: "call the kernel through another interface (x32)".to_owned(),
            layer: Layer::Seccomp,
            wanted: false,
            refusal: (status.signal() == Some(libc::SIGSYS)).then(|| "killed".to_owned()),
        });
        let mut layers = answer.layers;
        layers.push(groups.report());
        layers.push(match user {
            Ok(_) => LayerReport::enforced(Layer::User),
            Err(why) => LayerReport::degraded(Layer::User, why),
        });
        layers.sort_by_key(|report| report.layer);
        Ok(Self {
            layers,
            programs: Vec::new(),
            attempts: answer.attempts,
        })
    }

    /// A program that is confined from its start.
    fn add_program(
        &mut self,
        machine: &Machine,
        bait: &Bait,
        role: Role,
        network: Network,
    ) -> io::Result<()> {
        let places = bait.places()?;
        let (user, subject) = match role {
            Role::Host => {
                let user = bait.own_user(machine);
                let other = user.is_ok();
                (user, Subject::Host { other })
            }
            Role::Program => {
                let why = "it changes what belongs to the server's user";
                (Err(why.to_owned()), Subject::Installer)
            }
        };
        if bait.own_user(machine).is_ok() {
            let owner = user.as_ref().copied();
            bait.give(owner.unwrap_or_else(|_server| geteuid().as_raw()))?;
        }
        let confinement = HostConfinement {
            role,
            policy: Policy {
                write: vec![places.granted.clone()],
                change_modes: role == Role::Program,
                subprocesses: true,
                network,
                ..Policy::default()
            },
            machine: machine.clone(),
            mode: Mode::Auto,
            view: bait.view(),
            user,
        };
        let task = Task {
            subject,
            layers: Layers::Program(confinement.plain()),
            bait: places,
        };
        let (_, mut answer) = ask(&task, &Groups::default())?;
        bait.judge(&mut answer.attempts);
        answer.layers.sort_by_key(|report| report.layer);
        self.programs
            .push((subject.name().to_owned(), answer.layers));
        self.attempts.extend(answer.attempts);
        Ok(())
    }

    /// How much holds.
    pub fn tier(&self) -> Tier {
        let lost = |layer: Layer| {
            let mut of_it = self
                .attempts
                .iter()
                .filter(|attempt| attempt.layer == layer);
            of_it.any(|attempt| !attempt.holds())
        };
        if [Layer::Landlock, Layer::Seccomp].into_iter().any(lost) {
            return Tier::None;
        }
        if lost(Layer::Broker) {
            Tier::C
        } else if OF_TIER_A.into_iter().any(lost) {
            Tier::B
        } else {
            Tier::A
        }
    }

    /// What strict mode lacks here, if anything.
    pub fn strict(&self) -> Result<(), NotStrict> {
        let broken = |attempt: &&Attempt| !attempt.holds() && !OF_TIER_A.contains(&attempt.layer);
        let Some(first) = self.attempts.iter().find(broken) else {
            return Ok(());
        };
        let report = self
            .layers
            .iter()
            .find(|report| report.layer == first.layer);
        let why = match (report.map(|report| &report.state), &first.refusal) {
            (Some(State::Degraded(why)), _) => why.clone(),
            (_, Some(refusal)) => format!("{} cannot {}: {refusal}", first.who, first.what),
            (_, None) => format!("{} could {}", first.who, first.what),
        };
        Err(NotStrict {
            layer: first.layer,
            why,
            remedy: remedy(first.layer),
        })
    }
}

const fn remedy(layer: Layer) -> &'static str {
    match layer {
        Layer::Landlock => {
            "It needs Linux 6.12 or newer with Landlock, which gVisor and some container \
             services do not offer; or start with --sandbox auto, which runs plugins with what \
             is there"
        }
        Layer::Seccomp => {
            "It needs a kernel with CONFIG_SECCOMP_FILTER, and a container whose profile allows \
             seccomp; or start with --sandbox auto"
        }
        _ => "See docs/security.md, or start with --sandbox auto",
    }
}

fn ask(task: &Task, groups: &Groups) -> io::Result<(ExitStatus, Answer)> {
    let (status, text) = start(task, groups)?;
    let unusable = |error| {
        let text = String::from_utf8_lossy(&text);
        let who = task.subject.name();
        io::Error::other(format!(
            "the trial of {who} said {text:?} ({status}): {error}"
        ))
    };
    let answer = serde_json::from_slice(&text).map_err(unusable)?;
    Ok((status, answer))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is started before there is a launcher, and ends by itself"
)]
fn start(task: &Task, groups: &Groups) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let limits = GroupLimits {
        memory_bytes: None,
        processes: Some(attempts::GROUP_PROCESSES as u64),
    };
    // It waits for its task.
    let group = groups.enter(child.id(), process::id(), limits);
    let mut input = child.stdin.take();
    if let Some(input) = &mut input {
        input.write_all(&serde_json::to_vec(task)?)?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    // Without one the attempt that needs it tells.
    if let Ok(Some(group)) = group {
        group.remove()?;
    }
    Ok((output.status, output.stdout))
}

/// The trying process.
pub(crate) fn run() -> ExitCode {
    match answer() {
        Ok(()) => {
            // Deadly, where it is refused; it asks for the own process id.
            attempts::other_interface();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Where the answer is expected, so that it is seen.
            let text = apply::outline(&*error);
            drop(io::stdout().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<(), Box<dyn std::error::Error>> {
    alarm::set(TRIAL_MAX);
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let task: Task = serde_json::from_slice(&text)?;
    let layers = match task.layers {
        Layers::Worker { host, layers } => of_worker(host.as_ref(), layers, &task.bait)?,
        Layers::Program(confinement) => launch::confine(getppid(), confinement.as_ref())?,
    };
    let answer = Answer {
        layers,
        attempts: attempts::all(task.subject, &task.bait),
    };
    io::stdout().write_all(&serde_json::to_vec(&answer)?)?;
    io::stdout().flush()?;
    Ok(())
}

/// A worker is a fork of its host.
fn of_worker(
    host: Option<&Confinement>,
    layers: WorkerLayers,
    bait: &bait::Places,
) -> Result<Vec<LayerReport>, Box<dyn std::error::Error>> {
    let born = match host {
        Some(host) => launch::enclose(getppid(), host)?,
        None => Vec::new(),
    };
    // As after executing Python.
    prctl::set_dumpable(true)?;
    namespaces::share_memory(&bait.granted)?;
    let layers = layers.for_process(process::id());
    let mut applied = Applied::default();
    applied.first(&layers)?;
    applied.last(&layers)?;
    // Nobody answers: what is handed over fails.
    drop(applied.listener.take());
    // What becomes of the user in a server depends on where its files are.
    let inherited =
        |report: &LayerReport| report.layer.is_inherited() && report.layer != Layer::User;
    let born = born.into_iter().filter(inherited);
    Ok(born.chain(applied.reports).collect())
}
