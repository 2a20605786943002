//! What can be said about what plugins may touch.

use std::path::PathBuf;

use clap::ValueEnum;
use outrigger_model::bytes::ByteSize;
use outrigger_sandbox::{Layer, Limits, Machine, Mode};
use outrigger_supervisor::PrivateMax;

/// Descriptors that a worker may have open: gRPC, a plugin's connections, and room.
const OPEN_FILES_MAX: u64 = 4096;
/// Processes and threads of the server's whole user, because the kernel counts no other way:
/// keeps a plugin from using up all that the machine can have. Root is exempt.
const PROCESSES_MAX: u64 = 8192;

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

    /// Leave out one layer: for finding out what each is good for
    #[arg(long, hide = true, value_name = "LAYER")]
    sandbox_without: Option<LeftOut>,

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
}

impl ConfinementArgs {
    /// What this machine can do, but for what is left out.
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = Machine::probe();
        let lost = match self.sandbox_without {
            Some(LeftOut::Landlock) => Some(Layer::Landlock),
            Some(LeftOut::Seccomp) => Some(Layer::Seccomp),
            Some(LeftOut::Broker) => Some(Layer::Broker),
            Some(LeftOut::Limits) | None => None,
        };
        if let Some(layer) = lost {
            machine.lose(layer);
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
        if self.sandbox_without == Some(LeftOut::Limits) {
            return Limits::default();
        }
        Limits {
            address_space: Some(self.plugin_address_space.0 as u64),
            open_files: Some(OPEN_FILES_MAX),
            processes: Some(PROCESSES_MAX),
            file_size: Some(self.plugin_private_size.0 as u64),
            locked_memory: Some(LOCKED_MEMORY_MAX),
            ..Limits::default()
        }
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
        let contradicts = self.sandbox_without.is_some() && self.sandbox != SandboxMode::Auto;
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
