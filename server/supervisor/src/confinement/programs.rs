//! What may the programs touch that are confined from their start: hosts, and what makes and
//! fills the virtual environment? Packages can put code into all of them.

use std::path::{Path, PathBuf};

use outrigger_sandbox::{HostConfinement, Limits, Mode, Network, Policy, Role, View};

use super::Confinement;
use crate::config::Config;

/// What a program reaches that ends when it has done its work.
#[derive(Debug)]
pub(crate) struct Errand<'a> {
    /// What it may read beside the plugin directory.
    pub(crate) read: Vec<PathBuf>,
    /// What it may change.
    pub(crate) write: Vec<&'a Path>,
    /// Whether it may talk to others.
    pub(crate) network: bool,
}

impl Confinement {
    /// What nobody may read, where it lies now.
    pub(super) fn secrets(&self) -> Vec<PathBuf> {
        let there = self.secret.iter();
        there.filter_map(|path| path.canonicalize().ok()).collect()
    }

    /// Whether only those can start processes to whom it was granted.
    pub(super) fn forbids_processes(&self) -> bool {
        self.mode != Mode::Off && self.machine.has_seccomp()
    }

    /// The confinement of a program that ends.
    pub(crate) fn of_errand(&self, errand: Errand<'_>) -> HostConfinement {
        let write = errand.write.into_iter().map(Path::to_owned);
        let network = if errand.network {
            Network::Outbound
        } else {
            Network::None
        };
        let confinement = self.program(Role::Program, network, errand.read, write.collect());
        HostConfinement {
            user: Err("it changes what belongs to the server's user".to_owned()),
            ..confinement
        }
    }

    fn program(
        &self,
        role: Role,
        network: Network,
        read: Vec<PathBuf>,
        write: Vec<PathBuf>,
    ) -> HostConfinement {
        let secrets = self.secrets();
        let known = read.into_iter().chain(self.read.iter().cloned());
        let limits = match role {
            // The kernel counts descriptors that are on their way between processes by user, and
            // refuses them beyond the sender's limit: no plugin's own is to use up a host's.
            Role::Host => Limits {
                open_files: self.limits.open_files.map(|files| files.saturating_mul(4)),
                ..self.limits.clone()
            },
            // Libraries may be larger than what a plugin may keep.
            Role::Program => Limits {
                file_size: None,
                ..self.limits.clone()
            },
        };
        let policy = Policy {
            read: known
                .filter(|path| secret_in(path, &secrets).is_none())
                .collect(),
            write,
            subprocesses: true,
            // No worker changes any, and so no host.
            change_modes: role == Role::Program,
            network,
            limits,
        };
        HostConfinement {
            role,
            policy,
            machine: self.machine.clone(),
            mode: self.mode,
            view: View::default(),
            user: Err(String::new()),
        }
    }
}

/// Which secret lies in this path; a rule for a directory holds for all that is in it.
pub(super) fn secret_in<'a>(path: &Path, secrets: &'a [PathBuf]) -> Option<&'a Path> {
    let real = path.canonicalize().unwrap_or_else(|_gone| path.to_owned());
    let mut held = secrets.iter().filter(|secret| secret.starts_with(&real));
    held.next().map(PathBuf::as_path)
}

/// The confinement of hosts: all that any of their workers may have, since these are born into
/// it, and can only give up more.
pub(crate) fn of_hosts(config: &Config, user: Result<u32, String>) -> HostConfinement {
    let settings = &config.confinement;
    let mut read = config.virtual_environment.readable();
    // Each worker's own entry in it is another one, and a host looks after its children there.
    // What must not be seen of others there, the kernel shows to their own kind only.
    read.push("/proc".into());
    let private = [settings.kept.clone(), config.temporary()];
    let write = private.iter().chain(&settings.write).cloned();
    let machine = &settings.machine;
    let view = View {
        covered: settings.secret.clone(),
        // Where the server makes connections, it finds this by its name alone.
        shown: if machine.has_seccomp() && machine.has_notification() {
            Vec::new()
        } else {
            vec![config.socket()]
        },
    };
    // Whatever network a plugin may be granted.
    HostConfinement {
        user,
        view,
        ..settings.program(Role::Host, Network::Outbound, read, write.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outrigger_sandbox::{GroupLimits, Machine};

    use super::*;
    use crate::private::PrivateMax;

    fn settings(directory: &Path) -> Confinement {
        Confinement {
            mode: Mode::Auto,
            machine: Machine::bare(),
            limits: Limits {
                file_size: Some(1),
                open_files: Some(2),
                ..Limits::default()
            },
            groups: Arc::default(),
            group_limits: GroupLimits::default(),
            read: vec![directory.join("plugins"), directory.to_owned()],
            write: vec![directory.join("shared")],
            network: Network::None,
            secret: vec![directory.join("data")],
            kept: directory.join("data/kept"),
            private_max: PrivateMax { bytes: 1, files: 1 },
            kept_names: &[],
        }
    }

    #[test]
    fn an_errand_changes_what_it_is_given_and_reads_no_secrets() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["data", "plugins"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let venv = directory.path().join("venv");
        let confinement = settings(directory.path()).of_errand(Errand {
            read: vec!["/opt/python".into()],
            write: vec![&venv],
            network: false,
        });
        let policy = confinement.policy;
        // Not the directory in which the data is.
        let expected = ["/opt/python".into(), directory.path().join("plugins")];
        assert_eq!(policy.read, expected);
        assert_eq!(policy.write, [venv]);
        assert_eq!(policy.network, Network::None);
        assert_eq!(policy.limits.file_size, None);
        assert_eq!(policy.limits.open_files, Some(2));
    }
}
