//! What would hold on this machine? Starts a process under the layers of a host and, as workers
//! are, those of a worker below them, has it try things, and judges by what came of them, not by
//! the names of layers.

mod attempts;
mod bait;

use std::{
    io,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use nix::unistd::{alarm, getppid};
use serde::{Deserialize, Serialize};

use self::bait::Bait;
use crate::{
    apply::{self, Applied},
    confinement::Confinement,
    launch,
    machine::Machine,
    namespaces,
    policy::{Mode, Policy},
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
    /// What became of each layer, in order.
    pub layers: Vec<LayerReport>,
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
    host: Option<Confinement>,
    layers: WorkerLayers,
    bait: bait::Places,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    layers: Vec<LayerReport>,
    attempts: Vec<Attempt>,
}

impl Trial {
    /// Tries it out. Blocks for some milliseconds; starts this binary, whose `main` must begin
    /// with [`crate::launch::program`].
    pub fn run(machine: &Machine) -> io::Result<Self> {
        let bait = Bait::lay(machine)?;
        let places = bait.places()?;
        let policy = Policy {
            write: vec![places.granted.clone()],
            ..Policy::default()
        };
        let task = Task {
            host: bait.host(&policy, machine).plain(),
            layers: WorkerLayers::new(&policy, machine, Mode::Auto)
                .with_connect_broker(&policy, machine),
            bait: places,
        };
        let (status, text) = start(&task)?;
        let unusable = |error| {
            let text = String::from_utf8_lossy(&text);
            io::Error::other(format!("the trial said {text:?} ({status}): {error}"))
        };
        let mut answer: Answer = serde_json::from_slice(&text).map_err(unusable)?;
        bait.judge(&mut answer.attempts);
        answer.attempts.push(Attempt {
            what: "call the kernel through another interface (x32)".to_owned(),
            layer: Layer::Seccomp,
            wanted: false,
            refusal: (status.signal() == Some(libc::SIGSYS)).then(|| "killed".to_owned()),
        });
        let mut trial = Self {
            layers: answer.layers,
            attempts: answer.attempts,
        };
        // What becomes of it in a server depends on where its files are.
        trial.layers.retain(|report| report.layer != Layer::User);
        trial.layers.push(match machine.own_user() {
            Ok(_) => LayerReport::enforced(Layer::User),
            Err(why) => LayerReport::degraded(Layer::User, why),
        });
        trial.layers.sort_by_key(|report| report.layer);
        Ok(trial)
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
            (_, Some(refusal)) => format!("a plugin cannot {}: {refusal}", first.what),
            (_, None) => format!("a plugin could {}", first.what),
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

#[expect(
    clippy::disallowed_methods,
    reason = "it is started before there is a launcher, and ends by itself"
)]
fn start(task: &Task) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take();
    if let Some(input) = &mut input {
        input.write_all(&serde_json::to_vec(task)?)?;
    }
    drop(input);
    let output = child.wait_with_output()?;
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
    let born = match &task.host {
        Some(host) => launch::enclose(getppid(), host)?,
        None => Vec::new(),
    };
    namespaces::share_memory(&task.bait.granted)?;
    let layers = task.layers.for_process(std::process::id());
    let mut applied = Applied::default();
    applied.first(&layers)?;
    applied.last(&layers)?;
    // Nobody answers: what is handed over fails.
    drop(applied.listener.take());
    let inherited = |report: &LayerReport| report.layer.is_inherited();
    let born = born.into_iter().filter(inherited);
    let answer = Answer {
        layers: born.chain(applied.reports).collect(),
        attempts: attempts::all(&task.bait),
    };
    io::stdout().write_all(&serde_json::to_vec(&answer)?)?;
    io::stdout().flush()?;
    Ok(())
}
