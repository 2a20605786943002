//! How does this process put itself under layers? For programs in Rust: the launcher, and
//! the one that tries layers out. It must have one thread.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    path::PathBuf,
};

use caps::{CapSet, CapsHashSet};
use landlock::{
    AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::{
    errno::Errno,
    sys::{prctl, resource},
    unistd::geteuid,
};

use crate::{
    report::{Layer, LayerReport, State},
    worker::{LandlockRules, SeccompProgram, WorkerLayers},
};

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("set limit {resource} to {wanted}")]
    Limit {
        resource: u32,
        wanted: u64,
        source: Errno,
    },
    #[error("give up capabilities")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("capabilities remain: {0}")]
    CapabilitiesRemain(String),
    #[error("give up gaining privileges")]
    NoNewPrivileges(#[source] Errno),
    #[error("restrict files")]
    Landlock(#[from] RulesetError),
    #[error("look at {path}")]
    Path { path: PathBuf, source: PathFdError },
    #[error("the kernel enforces it in part")]
    Partly,
    #[error("filter system calls")]
    Seccomp(#[source] io::Error),
    #[error("the filter is no list of instructions")]
    Filter,
}

/// What became of the layers, and the descriptor on which the kernel asks about connections.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) reports: Vec<LayerReport>,
    pub(crate) listener: Option<OwnedFd>,
}

/// A layer that has to be there is not.
#[derive(Debug, thiserror::Error)]
#[error("the layer {layer} is required, and this machine does not have it")]
pub(crate) struct Missing {
    pub(crate) layer: Layer,
    pub(crate) source: Box<ApplyError>,
}

impl Applied {
    fn note(
        &mut self,
        layers: &WorkerLayers,
        layer: Layer,
        result: Result<(), ApplyError>,
    ) -> Result<(), Missing> {
        match result {
            Ok(()) => {
                let known = layers.known.iter().find(|known| known.layer == layer);
                let report = known.cloned();
                self.reports
                    .push(report.unwrap_or(LayerReport::enforced(layer)));
                Ok(())
            }
            Err(source) if layers.requires(layer) => Err(Missing {
                layer,
                source: Box::new(source),
            }),
            Err(error) => {
                let why = outline(&error);
                self.reports.push(LayerReport::degraded(layer, why));
                Ok(())
            }
        }
    }

    /// The layers up to `no_new_privs`, which the later ones need.
    pub(crate) fn first(&mut self, layers: &WorkerLayers) -> Result<(), Missing> {
        self.note(layers, Layer::Limits, limits(layers))?;
        if layers.capabilities {
            self.note(layers, Layer::Capabilities, give_up_capabilities())?;
        }
        if layers.no_new_privileges {
            let result = prctl::set_no_new_privs().map_err(ApplyError::NoNewPrivileges);
            self.note(layers, Layer::NoNewPrivileges, result)?;
        }
        Ok(())
    }

    /// Landlock and the filters. From here on little can be done.
    pub(crate) fn last(&mut self, layers: &WorkerLayers) -> Result<(), Missing> {
        if let Some(rules) = &layers.landlock {
            let restricted = restrict(rules, layers.no_new_privileges);
            self.note(layers, Layer::Landlock, restricted)?;
        }
        for program in &layers.seccomp {
            let result = match install(program) {
                Ok(listener) => {
                    self.listener = self.listener.take().or(listener);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            self.note(layers, program.layer, result)?;
        }
        // What is known to be missing was not tried.
        for known in &layers.known {
            let said = self.reports.iter().any(|said| said.layer == known.layer);
            if !said {
                self.reports.push(known.clone());
            }
        }
        Ok(())
    }
}

/// Whether all of this can be had at all, as far as it is known before.
pub(crate) fn required_and_missing(layers: &WorkerLayers) -> Option<&LayerReport> {
    let missing = |layer: Layer| match layer {
        Layer::Landlock => layers.landlock.is_none(),
        Layer::Seccomp => layers.seccomp.is_empty(),
        _ => false,
    };
    layers.known.iter().find(|known| {
        layers.requires(known.layer)
            && missing(known.layer)
            && matches!(known.state, State::Degraded(_))
    })
}

pub(crate) fn outline(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

fn limits(layers: &WorkerLayers) -> Result<(), ApplyError> {
    for (number, soft, hard) in &layers.limits {
        limit(*number, *soft, *hard).map_err(|source| ApplyError::Limit {
            resource: *number,
            wanted: *soft,
            source,
        })?;
    }
    Ok(())
}

fn limit(number: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let resource = crate::limits::resource(number).ok_or(Errno::EINVAL)?;
    // A lower limit that is there already stays.
    let (_, inherited) = resource::getrlimit(resource)?;
    let hard = hard.min(inherited);
    resource::setrlimit(resource, soft.min(hard), hard)
}

/// Gives up all capabilities, also those that root would get back by executing.
fn give_up_capabilities() -> Result<(), ApplyError> {
    if has_no_capabilities()? {
        return Ok(());
    }
    // Without the right to shrink it, nothing is ever gained from it either, since there is
    // `no_new_privs` and the user is not root.
    let shrunk = caps::clear(None, CapSet::Bounding);
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    let none = CapsHashSet::new();
    caps::set(None, CapSet::Effective, &none)?;
    caps::set(None, CapSet::Permitted, &none)?;
    caps::set(None, CapSet::Inheritable, &none)?;
    // Some containers leave root an empty set that it may not shrink.
    if geteuid().is_root() && !caps::read(None, CapSet::Bounding)?.is_empty() {
        shrunk?;
    }
    let remain = caps::read(None, CapSet::Permitted)?;
    if !remain.is_empty() {
        return Err(ApplyError::CapabilitiesRemain(format!("{remain:?}")));
    }
    Ok(())
}

/// Whether there is none, and none to be had.
fn has_no_capabilities() -> Result<bool, ApplyError> {
    let mut sets = vec![CapSet::Effective, CapSet::Permitted, CapSet::Inheritable];
    if geteuid().is_root() {
        sets.push(CapSet::Bounding);
    }
    for set in sets {
        if !caps::read(None, set)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn restrict(rules: &LandlockRules, no_new_privileges: bool) -> Result<(), ApplyError> {
    let fs = BitFlags::<AccessFs>::from_bits_truncate(rules.handled_fs);
    let net = BitFlags::<AccessNet>::from_bits_truncate(rules.handled_net);
    let scoped = BitFlags::<Scope>::from_bits_truncate(rules.scoped);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if !fs.is_empty() {
        ruleset = ruleset.handle_access(fs)?;
    }
    if !net.is_empty() {
        ruleset = ruleset.handle_access(net)?;
    }
    if !scoped.is_empty() {
        ruleset = ruleset.scope(scoped)?;
    }
    let mut created = ruleset.create()?.no_new_privs(no_new_privileges);
    for (path, access) in &rules.paths {
        let access = BitFlags::<AccessFs>::from_bits_truncate(*access);
        match PathFd::new(path) {
            Ok(at) => created = created.add_rule(PathBeneath::new(at, access))?,
            // What is not there, or out of reach in any case, needs no rule.
            Err(PathFdError::OpenCall { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) => {}
            Err(source) => {
                return Err(ApplyError::Path {
                    path: path.clone(),
                    source,
                });
            }
        }
    }
    for (port, access) in &rules.ports {
        let access = BitFlags::<AccessNet>::from_bits_truncate(*access);
        created = created.add_rule(NetPort::new(*port, access))?;
    }
    match created.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        _ => Err(ApplyError::Partly),
    }
}

fn install(program: &SeccompProgram) -> Result<Option<OwnedFd>, ApplyError> {
    let mut filter: Vec<libc::sock_filter> = program
        .filter
        .chunks_exact(8)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let length = u16::try_from(filter.len()).or(Err(ApplyError::Filter))?;
    let list = libc::sock_fprog {
        len: length,
        filter: filter.as_mut_ptr(),
    };
    let answer = set_filter(&list, program.flags).map_err(ApplyError::Seccomp)?;
    Ok(program.has_listener().then(|| own(answer)))
}

#[expect(unsafe_code, reason = "the call has no wrapper")]
fn set_filter(list: &libc::sock_fprog, flags: u32) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the list, and the instructions that it points to, which live
    // until it returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(list),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // A descriptor, or 0.
    libc::c_int::try_from(answer).map_err(io::Error::other)
}

#[expect(unsafe_code, reason = "the kernel made the descriptor for us just now")]
fn own(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: it is the answer of the call that has made it, so that nobody else has it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
