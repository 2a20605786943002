//! Which layers does a program add to itself after the fork? Plain data, made here from a
//! policy, so that what applies it (Python, with one thread) has nothing to decide.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    landlock,
    limits::limits,
    machine::Machine,
    policy::{Mode, Policy},
    report::{Layer, LayerReport},
    seccomp::{self, Profile},
};

/// The layers that a worker adds after the fork, to be applied in the order of the fields,
/// with `no_new_privs` between the limits and Landlock.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct WorkerLayers {
    /// Limits for `setrlimit`: resource, soft, hard. Where the hard limit is lower already,
    /// both are lowered to that.
    pub limits: Vec<(u32, u64, u64)>,
    /// Whether all capabilities are to be given up.
    pub capabilities: bool,
    /// Whether `no_new_privs` is to be set; the two layers after it need that.
    pub no_new_privileges: bool,
    /// The files and ports that remain.
    pub landlock: Option<LandlockRules>,
    /// Filters, to be installed in this order.
    pub seccomp: Vec<SeccompProgram>,
    /// Layers whose failure is to end the worker, instead of being reported.
    pub required: Vec<Layer>,
    /// What is known before the worker tries: layers that this machine does not have, has
    /// in part, or that nobody wants. Belongs into the worker's list of layers.
    pub known: Vec<LayerReport>,
}

/// A Landlock domain: what is handled is forbidden, but for the rules. The bits are those of
/// `linux/landlock.h`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct LandlockRules {
    /// Ways of access to files that are forbidden unless a rule allows them.
    pub handled_fs: u64,
    /// The same for TCP ports.
    pub handled_net: u64,
    /// What does not leave the domain: abstract Unix sockets, signals.
    pub scoped: u64,
    /// What may be done at a file, or at all below a directory. A path that is not there is
    /// to be left out. The bits fit what was found at the path: a file has no directory's.
    pub paths: Vec<(PathBuf, u64)>,
    /// What may be done with a TCP port.
    pub ports: Vec<(u16, u64)>,
}

/// A filter for system calls.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SeccompProgram {
    /// Which layer it is for.
    pub layer: Layer,
    /// An array of `struct sock_filter` of this machine, 8 bytes each.
    pub filter: Vec<u8>,
    /// Flags for `seccomp(SECCOMP_SET_MODE_FILTER)`.
    pub flags: u32,
}

impl SeccompProgram {
    /// Whether installing it returns a descriptor on which the kernel asks about calls.
    pub fn has_listener(&self) -> bool {
        u64::from(self.flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }
}

impl WorkerLayers {
    /// The layers that this policy needs and this machine has.
    pub fn new(policy: &Policy, machine: &Machine, mode: Mode) -> Self {
        Self::for_profile(Profile::Worker, policy, machine, mode)
    }

    /// The same for hosts too.
    pub(crate) fn for_profile(
        profile: Profile,
        policy: &Policy,
        machine: &Machine,
        mode: Mode,
    ) -> Self {
        if mode == Mode::Off {
            return Self {
                known: [Layer::Limits, Layer::Landlock, Layer::Seccomp]
                    .map(LayerReport::off)
                    .to_vec(),
                ..Self::default()
            };
        }
        let left_out = [Layer::Capabilities, Layer::NoNewPrivileges]
            .into_iter()
            .filter(|layer| machine.leaves_out(*layer));
        let mut known: Vec<_> = left_out.map(LayerReport::off).collect();
        let landlock = landlock::rules(policy, machine, &mut known);
        let seccomp = match &machine.seccomp_missing {
            None => vec![seccomp::allow_list(profile, policy, machine, false)],
            Some(why) => {
                known.push(LayerReport::degraded(Layer::Seccomp, why));
                Vec::new()
            }
        };
        let mut required = Vec::new();
        if mode == Mode::Strict {
            required.extend([
                Layer::Limits,
                Layer::NoNewPrivileges,
                Layer::Landlock,
                Layer::Seccomp,
            ]);
        }
        Self {
            limits: limits(&policy.limits),
            capabilities: !machine.leaves_out(Layer::Capabilities),
            no_new_privileges: !machine.leaves_out(Layer::NoNewPrivileges),
            landlock,
            seccomp,
            required,
            known,
        }
    }

    /// Whether a filter hands calls to the server.
    pub fn has_listener(&self) -> bool {
        self.seccomp.iter().any(SeccompProgram::has_listener)
    }

    /// Whether the worker must not go on without this layer.
    pub fn requires(&self, layer: Layer) -> bool {
        self.required.contains(&layer)
    }

    /// Adds the filter that hands every `connect` to the server, which must then answer at
    /// the listener; what nobody answers fails. Landlock forbids TCP as well from then on,
    /// because the worker itself connects nowhere. Where the machine has no notifications, that
    /// is known to be missing instead. Call it with the policy and machine of
    /// [`WorkerLayers::new`].
    #[must_use]
    pub fn with_connect_broker(mut self, policy: &Policy, machine: &Machine) -> Self {
        let missing = match (&machine.notification_missing, self.seccomp.is_empty()) {
            (_, true) if !self.no_new_privileges => Some(LayerReport::off(Layer::Broker)),
            (_, true) => Some(LayerReport::degraded(
                Layer::Broker,
                "calls are not filtered",
            )),
            (Some(why), false) => Some(LayerReport::degraded(Layer::Broker, why)),
            (None, false) => None,
        };
        if self.requires(Layer::Seccomp) {
            self.required.push(Layer::Broker);
        }
        if let Some(missing) = missing {
            self.known.push(missing);
            return self;
        }
        // The allow-list comes last: it takes away the call that installs filters.
        let allow_list = seccomp::allow_list(Profile::Worker, policy, machine, true);
        self.seccomp = vec![seccomp::broker(), allow_list];
        if let Some(rules) = &mut self.landlock {
            landlock::forbid_tcp(rules, machine);
        }
        self
    }

    /// Says which process applies them. Needed where Landlock does not keep signals in
    /// (before version 6): there only its own process may be named in a signal.
    #[must_use]
    pub fn for_process(mut self, pid: u32) -> Self {
        for program in &mut self.seccomp {
            seccomp::set_own_pid(program, pid);
        }
        self
    }
}
