//! What can be said about what plugins may touch.

use std::{
    path::{Component, PathBuf},
    str::FromStr,
};

use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit};
use outrigger_model::bytes::ByteSize;
use outrigger_sandbox::{GroupLimits, Layer, Limits, Machine, Mode, Network};
use outrigger_supervisor::PrivateMax;

/// Descriptors that a worker may have open: gRPC, a plugin's connections, and room.
const OPEN_FILES_MAX: u64 = 1024;
/// No worker could start with less.
const OPEN_FILES_MIN: u64 = 64;
/// What of the server's own limit one worker may have.
const OPEN_FILES_SHARE: u64 = 4;
/// Processes and threads of the server's whole user, because the kernel counts no other way:
/// keeps a plugin from using up all that the machine can have. Root is exempt.
const PROCESSES_MAX: u64 = 8192;

/// Processes and threads of one worker and all that it starts, where it has a control group.
const GROUP_PROCESSES_MAX: u64 = 1024;

/// Bytes that a worker may lock into memory: what Linux gives to ordinary users. Root's would be
/// without a limit.
const LOCKED_MEMORY_MAX: u64 = 8 * 1024 * 1024;

/// Arguments about confinement.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Plugin sandbox")]
pub(crate) struct ConfinementArgs {
    /// What happens where the kernel cannot confine plugins: run none, run them all the same,
    /// or never confine any
    #[arg(
        long,
        env = "INFLUXDB3_SANDBOX",
        default_value = "auto",
        ignore_case = true,
        value_name = "MODE"
    )]
    sandbox: SandboxMode,

    /// Leave out layers: for finding out what each is good for
    #[arg(long, hide = true, value_delimiter = ',', value_name = "LAYERS")]
    sandbox_without: Vec<LeftOut>,

    /// Where triggers keep files of their own [default: <data-dir>/<node-id>/plugin-state]
    #[arg(long, env = "INFLUXDB3_PLUGIN_STATE_DIR", value_name = "DIRECTORY")]
    pub(crate) plugin_state_dir: Option<PathBuf>,

    /// How many bytes the private directories of a worker may hold
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_PRIVATE_SIZE",
        default_value = "2gb",
        value_name = "SIZE"
    )]
    plugin_private_size: ByteSize,

    /// How many files they may hold
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_PRIVATE_FILES",
        default_value_t = 50_000,
        value_name = "NUMBER"
    )]
    plugin_private_files: u64,

    /// How much address space a worker may have; a Python with pandas needs 400mb, and each
    /// thread some 100mb more
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_ADDRESS_SPACE",
        default_value = "8gb",
        value_name = "SIZE"
    )]
    plugin_address_space: ByteSize,

    /// What plugins may connect to whose trigger says nothing about it: `none`, `outbound` (any
    /// TCP address but those of the link), or `HOST:PORT,…`
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_NETWORK",
        default_value = "outbound",
        value_name = "NETWORK"
    )]
    plugin_network: Network,

    /// Files and directories that all plugins may read (`ro:PATH`), or change too (`rw:PATH`)
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_PATHS",
        value_delimiter = ',',
        value_name = "PATHS"
    )]
    plugin_paths: Vec<GrantedPath>,

    /// Pass only these of the server's environment variables to plugins, beside those that every
    /// program needs; a name may end with * [default: all but the server's own and secrets]
    #[arg(
        long,
        env = "INFLUXDB3_PLUGIN_ENV",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub(crate) plugin_env: Option<Vec<String>>,
}

/// Modes of the sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum SandboxMode {
    /// No plugin runs without the layers that must hold.
    Strict,
    /// Plugins run with what this machine has.
    Auto,
    /// Plugins may do whatever the server's user may.
    Off,
}

/// Layers that can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum LeftOut {
    Landlock,
    Seccomp,
    Broker,
    Limits,
    /// All of them.
    Namespaces,
    Environment,
    Descriptors,
    Capabilities,
    NoNewPrivileges,
    User,
    Cgroup,
}

impl LeftOut {
    const fn layer(self) -> Layer {
        match self {
            Self::Landlock => Layer::Landlock,
            Self::Seccomp => Layer::Seccomp,
            Self::Broker => Layer::Broker,
            Self::Limits => Layer::Limits,
            // The others are nothing without it.
            Self::Namespaces => Layer::MountNamespace,
            Self::Environment => Layer::Environment,
            Self::Descriptors => Layer::Descriptors,
            Self::Capabilities => Layer::Capabilities,
            Self::NoNewPrivileges => Layer::NoNewPrivileges,
            Self::User => Layer::User,
            Self::Cgroup => Layer::Cgroup,
        }
    }
}

/// What plugins may reach of which their triggers say nothing.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    pub(crate) network: Network,
}

/// A path that plugins may use.
#[derive(Clone, Debug, Eq, PartialEq)]
enum GrantedPath {
    /// Not changing it.
    Read(PathBuf),
    /// Changing it, too.
    Write(PathBuf),
}

impl FromStr for GrantedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, path) = text.split_once(':').unwrap_or_default();
        let path = PathBuf::from(path);
        let goes_up = path.components().any(|part| part == Component::ParentDir);
        let is_plain = path.is_absolute() && !goes_up;
        match kind {
            "ro" if is_plain => Ok(Self::Read(path)),
            "rw" if is_plain => Ok(Self::Write(path)),
            _ => Err(format!(
                "{text:?} is neither ro:PATH nor rw:PATH with an absolute path without `..`"
            )),
        }
    }
}

impl ConfinementArgs {
    /// What all plugins may reach beside what they need.
    pub(crate) fn reach(&self) -> Reach {
        let mut reach = Reach {
            read: Vec::new(),
            write: Vec::new(),
            network: self.plugin_network.clone(),
        };
        for granted in &self.plugin_paths {
            match granted {
                GrantedPath::Read(path) => reach.read.push(path.clone()),
                GrantedPath::Write(path) => reach.write.push(path.clone()),
            }
        }
        reach
    }

    /// What this machine can do, but for what is left out.
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = Machine::probe();
        for left_out in &self.sandbox_without {
            machine.lose(left_out.layer());
        }
        machine
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.sandbox {
            SandboxMode::Strict => Mode::Strict,
            SandboxMode::Auto => Mode::Auto,
            SandboxMode::Off => Mode::Off,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        if self.sandbox_without.contains(&LeftOut::Limits) {
            return Limits::default();
        }
        Limits {
            address_space: Some(self.plugin_address_space.0 as u64),
            open_files: Some(open_files_max()),
            processes: Some(PROCESSES_MAX),
            file_size: Some(self.plugin_private_size.0 as u64),
            locked_memory: Some(LOCKED_MEMORY_MAX),
            ..Limits::default()
        }
    }

    /// How much a worker may take together with what it starts.
    pub(crate) fn group_limits(&self) -> GroupLimits {
        GroupLimits {
            memory_bytes: Some(self.plugin_address_space.0 as u64),
            processes: Some(GROUP_PROCESSES_MAX),
        }
    }

    /// Whether plugins get all that the server's environment has.
    pub(crate) fn whole_environment(&self) -> bool {
        self.sandbox_without.contains(&LeftOut::Environment)
    }

    pub(crate) fn private_max(&self) -> PrivateMax {
        PrivateMax {
            bytes: self.plugin_private_size.0 as u64,
            files: self.plugin_private_files,
        }
    }

    /// What is wrong with them.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &'static str> {
        const ADDRESS_SPACE_MIN: usize = ByteSize::mib(400).0;
        let too_small = self.plugin_address_space.0 < ADDRESS_SPACE_MIN;
        let none = self.plugin_private_size.0 == 0 || self.plugin_private_files == 0;
        let empty = |name: &String| name.is_empty() || name == "*";
        let names = self.plugin_env.iter().flatten();
        let contradicts = !self.sandbox_without.is_empty() && self.sandbox != SandboxMode::Auto;
        [
            (
                contradicts,
                "--sandbox-without leaves out a layer, which needs --sandbox auto",
            ),
            (
                too_small,
                "--plugin-address-space must be 400mb at least, or no worker could start",
            ),
            (
                none,
                "--plugin-private-size and --plugin-private-files must be more than 0",
            ),
            (
                names.clone().any(empty),
                "--plugin-env names variables, for example API_KEY,TWILIO_*",
            ),
        ]
        .into_iter()
        .filter_map(|(wrong, text)| wrong.then_some(text))
    }
}

/// How many descriptors a worker may have open. The kernel counts those that are on their way
/// between processes for a user as a whole, and refuses to send any beyond the limit of who sends:
/// what plugins can have on their way is to be less than what the server, and a host, may.
fn open_files_max() -> u64 {
    let own = getrlimit(Resource::RLIMIT_NOFILE);
    let share = own.map_or(OPEN_FILES_MAX, |(_, hard)| hard / OPEN_FILES_SHARE);
    share.clamp(OPEN_FILES_MIN, OPEN_FILES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_may_be_done_with_them() {
        let read = GrantedPath::Read("/data".into());
        assert_eq!("ro:/data".parse(), Ok(read));
        let write = GrantedPath::Write("/a:b".into());
        assert_eq!("rw:/a:b".parse(), Ok(write));
        for text in ["", "/data", "ro:data", "rx:/data", "ro:", "rw:/a/../b"] {
            let refusal = text.parse::<GrantedPath>().unwrap_err();
            assert!(refusal.contains("neither ro:PATH nor rw:PATH"), "{refusal}");
        }
    }
}
