//! Which layers are there, and what became of each?

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that the kernel is asked to enforce. In the order in which they are applied.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layer {
    /// What the server has open does not reach the program.
    Descriptors,
    /// A session and process group of its own.
    Session,
    /// It ends when its parent does.
    ParentDeath,
    /// Memory, processes and processor time bounded as a group.
    Cgroup,
    /// A user id of its own.
    User,
    /// A user namespace of its own.
    UserNamespace,
    /// It sees a file tree of its own.
    MountNamespace,
    /// It sees processes of its own only.
    PidNamespace,
    /// It has System V and POSIX queues of its own.
    IpcNamespace,
    /// A host name of its own.
    UtsNamespace,
    /// It has network interfaces of its own.
    NetworkNamespace,
    /// Limits per process.
    Limits,
    /// No capability is left, nor can one be gained.
    Capabilities,
    /// No setuid program gives privileges back.
    NoNewPrivileges,
    /// Only the granted files; no signals and abstract sockets out.
    Landlock,
    /// None of the server's variables but those that are meant for it.
    Environment,
    /// Only the system calls that are needed.
    Seccomp,
    /// The server makes its connections, after looking at the address.
    Broker,
}

impl Layer {
    /// All of them, in order.
    pub const ALL: [Self; 18] = [
        Self::Descriptors,
        Self::Session,
        Self::ParentDeath,
        Self::Cgroup,
        Self::User,
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::NetworkNamespace,
        Self::Limits,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::Landlock,
        Self::Environment,
        Self::Seccomp,
        Self::Broker,
    ];

    /// Whether a worker has it from its host.
    pub fn is_inherited(self) -> bool {
        (Self::User..=Self::NetworkNamespace).contains(&self)
    }

    /// Its name in logs, tables and messages between processes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Session => "session",
            Self::ParentDeath => "parent_death",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::UserNamespace => "user_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::PidNamespace => "pid_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::UtsNamespace => "uts_namespace",
            Self::NetworkNamespace => "network_namespace",
            Self::Limits => "limits",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no_new_privileges",
            Self::Landlock => "landlock",
            Self::Environment => "environment",
            Self::Seccomp => "seccomp",
            Self::Broker => "broker",
        }
    }

    /// The layer of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What the kernel really enforces of a layer.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All of it.
    Enforced,
    /// Less than that, or nothing; and why.
    Degraded(String),
    /// It was not asked for.
    Off,
}

/// What became of a layer.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Which.
    pub layer: Layer,
    /// What became of it.
    pub state: State,
}

impl LayerReport {
    /// It holds.
    pub const fn enforced(layer: Layer) -> Self {
        Self {
            layer,
            state: State::Enforced,
        }
    }

    /// It does not hold as it should.
    pub fn degraded(layer: Layer, why: impl Into<String>) -> Self {
        Self {
            layer,
            state: State::Degraded(why.into()),
        }
    }

    /// Nobody wanted it.
    pub const fn off(layer: Layer) -> Self {
        Self {
            layer,
            state: State::Off,
        }
    }
}

/// As in `landlock=enforced` and `cgroup=degraded(it is not writable)`.
impl fmt::Display for LayerReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, state } = self;
        match state {
            State::Enforced => write!(formatter, "{layer}=enforced"),
            State::Degraded(why) => write!(formatter, "{layer}=degraded({why})"),
            State::Off => write!(formatter, "{layer}=off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_by_their_names_in_their_order() {
        for layer in Layer::ALL {
            assert_eq!(Layer::from_name(layer.name()), Some(layer));
        }
        assert!(Layer::ALL.is_sorted());
        assert_eq!(Layer::from_name("landlocks"), None);
    }
}
