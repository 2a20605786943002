//! Which layers does a program get before it starts? Plain data, made in the server, for the
//! launcher to apply.

use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    policy::{Mode, Policy},
    seccomp::Profile,
    worker::WorkerLayers,
};

/// What a program that is started is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It forks workers, which add their own layers below its own, and runs nothing that is
    /// not trusted itself.
    Host,
    /// It does its work and ends, such as an installer. What it runs is not trusted.
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
}

/// What the launcher is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confinement {
    pub(crate) layers: WorkerLayers,
    /// Whether to take namespaces of its own.
    pub(crate) namespaces: bool,
    /// Whether this is root, and so takes them without a user namespace.
    pub(crate) root: bool,
}

impl HostConfinement {
    /// What the launcher is told; nothing where no layer is wanted.
    pub(crate) fn plain(&self) -> Option<Confinement> {
        if self.mode == Mode::Off {
            return None;
        }
        let profile = match self.role {
            Role::Host => Profile::Host,
            Role::Program => Profile::Worker,
        };
        // The launcher itself has still to execute the program.
        let policy = Policy {
            subprocesses: true,
            ..self.policy.clone()
        };
        let layers = WorkerLayers::for_profile(profile, &policy, &self.machine, self.mode);
        Some(Confinement {
            layers,
            namespaces: true,
            root: self.machine.root,
        })
    }
}
