//! Which layers does a program get before it starts? Plain data, made in the server, for the
//! launcher to apply.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    landlock,
    machine::Machine,
    namespaces::{NETWORK_FIGURES, Namespaces},
    policy::{Mode, Policy},
    seccomp::Profile,
    view::{self, Mount, View},
    worker::{SeccompProgram, WorkerLayers},
};

/// What a program that is started is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It forks workers, which add their own layers below its own. What it loads is not trusted.
    Host,
    /// It does its work and ends, such as an installer. What it runs is not trusted. It may
    /// start processes, and reaches the network, if at all, without a broker.
    Program,
}

/// How a program is to be confined from its start.
#[derive(Clone, Debug)]
pub struct HostConfinement {
    /// What it is for.
    pub role: Role,
    /// What it may touch. A host's must include whatever any of its workers may get.
    pub policy: Policy,
    /// What this machine can enforce.
    pub machine: Machine,
    /// What happens where a layer cannot be had.
    pub mode: Mode,
    /// What a host sees of the file tree, where it can have one of its own.
    pub view: View,
    /// Whose process it is; or why it is the server's user's.
    pub user: Result<u32, String>,
}

/// What the launcher is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confinement {
    pub(crate) layers: WorkerLayers,
    /// Which namespaces of its own to take.
    pub(crate) namespaces: Namespaces,
    /// Whether this is root, and so takes them without a user namespace.
    pub(crate) root: bool,
    /// Whom to become; or why nobody.
    pub(crate) user: Result<u32, String>,
    /// For a program that changes modes: all is mounted read-only but this.
    pub(crate) writable: Option<Vec<PathBuf>>,
    /// Its filters where that cannot be had: changes of modes do nothing then.
    pub(crate) cautious: Vec<SeccompProgram>,
}

impl HostConfinement {
    /// What the launcher is told; nothing where no layer is wanted.
    pub(crate) fn plain(&self) -> Option<Confinement> {
        if self.mode == Mode::Off {
            return None;
        }
        let profile = match self.role {
            Role::Host => Profile::Host,
            Role::Program => Profile::Program,
        };
        // The launcher itself has still to execute the program.
        let policy = Policy {
            subprocesses: true,
            ..self.policy.clone()
        };
        let mut layers = WorkerLayers::for_profile(profile, &policy, &self.machine, self.mode);
        let brokered = self.machine.has_seccomp() && self.machine.has_notification();
        if let (Role::Host, true, Some(rules)) = (self.role, brokered, &mut layers.landlock) {
            // Nobody below it connects: the server does.
            landlock::forbid_tcp(rules, &self.machine);
        }
        if let (Role::Host, Some(rules)) = (self.role, &mut layers.landlock) {
            landlock::allow_reading(rules, NETWORK_FIGURES.as_ref());
        }
        let changes = self.role == Role::Program && policy.change_modes;
        let cautious = Policy {
            change_modes: false,
            ..policy.clone()
        };
        let cautious =
            WorkerLayers::for_profile(profile, &cautious, &self.machine, self.mode).seccomp;
        Some(Confinement {
            layers,
            namespaces: self.namespaces(brokered),
            root: self.machine.root,
            user: self.user.clone(),
            writable: changes.then_some(policy.write),
            cautious,
        })
    }

    fn namespaces(&self, brokered: bool) -> Namespaces {
        let missing = self.machine.namespaces_missing.clone();
        match self.role {
            Role::Host => Namespaces {
                mounts: view::mounts(&self.view, &landlock::granted(&self.policy)),
                network: brokered,
                missing,
            },
            Role::Program => Namespaces {
                mounts: vec![Mount::SharedMemory],
                network: false,
                missing,
            },
        }
    }
}
