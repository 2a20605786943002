//! Which system calls does a policy leave, as a program for the kernel?

mod bpf;
mod calls;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use calls::Call;

use crate::{
    machine::Machine,
    policy::{Network, Policy},
    report::Layer,
    worker::SeccompProgram,
};

/// Who the program is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// What runs plugins.
    Worker,
    /// What forks workers, and runs no plugin.
    Host,
    /// What installs, and what else ends when it has done its work.
    Program,
}

/// The calls that a policy leaves. A later table says it better than an earlier one.
fn table(profile: Profile, policy: &Policy, machine: &Machine, broker: bool) -> Vec<&'static Call> {
    let mut tables = vec![calls::COMMON, calls::LEGACY];
    if machine.landlock_abi() >= 3 {
        tables.push(calls::TRUNCATE);
    }
    tables.push(if machine.landlock_abi() >= 6 {
        calls::SIGNALS_SCOPED
    } else {
        calls::SIGNALS_OWN
    });
    let host = profile == Profile::Host;
    if host || policy.subprocesses {
        tables.extend([calls::SUBPROCESSES, calls::SUBPROCESSES_LEGACY]);
    } else {
        tables.extend([calls::THREADS, calls::THREADS_LEGACY]);
    }
    if policy.change_modes {
        tables.extend([calls::METADATA, calls::METADATA_NEW, calls::METADATA_LEGACY]);
    }
    // With a broker the plugin connects a socket, is refused, and the log says why.
    if policy.network == Network::None && !host && !broker {
        tables.push(calls::NO_NETWORK);
    }
    match profile {
        Profile::Worker => {}
        Profile::Host => tables.extend([calls::HOST, calls::HOST_LEGACY]),
        Profile::Program if policy.network == Network::None => tables.push(calls::NO_SOCKETS),
        Profile::Program => tables.push(calls::PROGRAM),
    }
    let calls = tables.into_iter().flatten();
    let by_number: BTreeMap<i64, &Call> = calls.map(|call| (call.number, call)).collect();
    by_number.into_values().collect()
}

/// The filter that leaves only the calls that are needed.
pub(crate) fn allow_list(
    profile: Profile,
    policy: &Policy,
    machine: &Machine,
    broker: bool,
) -> SeccompProgram {
    SeccompProgram {
        layer: Layer::Seccomp,
        filter: bpf::bytes(&bpf::allow_list(table(profile, policy, machine, broker))),
        flags: 0,
    }
}

/// The filter that hands `connect` to the server.
pub(crate) fn broker() -> SeccompProgram {
    // The flags are few, and stand in the low bits.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    SeccompProgram {
        layer: Layer::Broker,
        filter: bpf::bytes(&bpf::hand_over(calls::BROKERED)),
        flags: u32::try_from(flags).unwrap_or(0),
    }
}

/// Puts the id of the process that the filter is for into it.
pub(crate) fn set_own_pid(program: &mut SeccompProgram, pid: u32) {
    bpf::set_own_pid(&mut program.filter, pid);
}

/// A system call that a worker may make, or that gets an answer of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SystemCall {
    /// Its name.
    pub name: &'static str,
    /// Whether it may be made.
    pub allowed: Allowed,
    /// Why.
    pub why: &'static str,
}

/// Whether a system call may be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allowed {
    /// Yes.
    Always,
    /// With some arguments.
    Partly,
    /// It does nothing, and says that it worked.
    Pretended,
    /// It fails, with this error.
    Refused(i32),
}

/// The system calls that a worker with this policy can make on this machine, or that have an
/// answer of their own. All others do not exist for it (`ENOSYS`).
pub fn system_calls(policy: &Policy, machine: &Machine) -> Vec<SystemCall> {
    let calls = table(Profile::Worker, policy, machine, false);
    let say = |call: &Call| SystemCall {
        name: call.name.trim_start_matches("SYS_"),
        allowed: match call.rule {
            calls::Rule::Allow => Allowed::Always,
            calls::Rule::If(..) => Allowed::Partly,
            calls::Rule::Pretend => Allowed::Pretended,
            calls::Rule::Refuse(error) => Allowed::Refused(error),
        },
        why: call.why,
    };
    calls.into_iter().map(say).collect()
}
