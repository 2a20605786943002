//! Which files and ports does a policy leave, in Landlock's terms?

use std::{
    fs,
    path::{Path, PathBuf},
};

use landlock::{ABI, Access, AccessFs, AccessNet, BitFlags, Scope};

use crate::{
    machine::Machine,
    policy::{Network, Policy},
    report::{Layer, LayerReport},
    worker::LandlockRules,
};

/// What every Python program reads, and why. Nothing here carries anything of another
/// process or of this server.
const READABLE: &[(&str, &str)] = &[
    (
        "/usr",
        "the interpreter, libraries, time zones, certificates",
    ),
    ("/lib", "libraries, where it is not a link into /usr"),
    ("/lib32", "as /lib"),
    ("/lib64", "as /lib; the dynamic loader"),
    ("/bin", "as /lib: the interpreter may be there"),
    ("/sbin", "as /lib: ldconfig, which ctypes.util asks"),
    ("/nix/store", "as /lib, in NixOS; nothing else is there"),
    ("/etc/ld.so.cache", "where libraries are"),
    ("/etc/ld.so.conf", "as above"),
    ("/etc/ld.so.conf.d", "as above"),
    ("/etc/ld.so.preload", "as above"),
    ("/etc/ssl", "certificates that clients trust"),
    ("/etc/pki", "as above, elsewhere"),
    ("/etc/ca-certificates", "as above, elsewhere"),
    (
        "/etc/crypto-policies",
        "what OpenSSL's configuration refers to",
    ),
    ("/etc/resolv.conf", "name servers"),
    ("/etc/hosts", "names of this machine"),
    ("/etc/host.conf", "how names are resolved"),
    ("/etc/hostname", "this machine's name"),
    ("/etc/nsswitch.conf", "how names are resolved"),
    ("/etc/gai.conf", "how addresses are sorted"),
    ("/etc/services", "names of ports"),
    ("/etc/protocols", "names of protocols"),
    ("/etc/localtime", "the time zone"),
    ("/etc/timezone", "the time zone"),
    ("/etc/passwd", "names of users: os.path.expanduser, getpass"),
    ("/etc/group", "names of groups"),
    ("/etc/mime.types", "the mimetypes module"),
    ("/etc/os-release", "the platform module"),
    ("/etc/debian_version", "as above"),
    ("/etc/fonts", "matplotlib"),
    ("/etc/python3", "the distribution's Python"),
    (
        "/etc/python3.11",
        "as above: sitecustomize.py is a link to there",
    ),
    ("/etc/python3.12", "as above"),
    ("/etc/python3.13", "as above"),
    ("/etc/python3.14", "as above"),
    // The process itself, file by file: beside them lie its network's sockets and all mounts.
    ("/proc/self/maps", "the C library looks for its stack"),
    ("/proc/self/smaps", "psutil: memory"),
    ("/proc/self/smaps_rollup", "as above"),
    (
        "/proc/self/status",
        "psutil, numpy's tests: memory, threads",
    ),
    ("/proc/self/stat", "psutil: times"),
    ("/proc/self/statm", "psutil: memory"),
    ("/proc/self/io", "psutil: what was read and written"),
    ("/proc/self/limits", "psutil: limits"),
    ("/proc/self/cmdline", "psutil: its arguments"),
    ("/proc/self/comm", "psutil: its name"),
    ("/proc/self/environ", "psutil: its own environment"),
    ("/proc/self/auxv", "libraries ask what the processor can do"),
    (
        "/proc/self/cgroup",
        "which limits are its own: how many threads to start",
    ),
    ("/proc/self/oom_score", "psutil"),
    ("/proc/self/oom_score_adj", "psutil"),
    ("/proc/self/fdinfo", "psutil: positions in open files"),
    (
        "/proc/self/mounts",
        "psutil: which disks there are, for their usage",
    ),
    (NETWORK_FIGURES, "psutil: bytes by interface"),
    // Figures of the whole machine, which system-metrics plugins read through psutil.
    ("/proc/stat", "processor time"),
    ("/proc/meminfo", "memory"),
    ("/proc/loadavg", "load"),
    ("/proc/uptime", "time since start"),
    ("/proc/cpuinfo", "processors"),
    ("/proc/diskstats", "disks"),
    ("/proc/vmstat", "memory"),
    ("/proc/swaps", "swap space"),
    ("/proc/version", "the kernel"),
    (
        "/proc/filesystems",
        "psutil: which file systems are of disks",
    ),
    ("/proc/sys/kernel/osrelease", "the kernel"),
    ("/proc/sys/kernel/ostype", "the kernel"),
    ("/proc/sys/kernel/pid_max", "how long a pid is"),
    (
        "/proc/sys/kernel/random/boot_id",
        "which start of the machine",
    ),
    ("/proc/sys/vm/overcommit_memory", "allocators ask"),
    ("/proc/sys/fs/file-nr", "open files"),
    (
        "/sys/devices/system/cpu",
        "how many processors: numpy, glibc",
    ),
    ("/sys/devices/system/node", "how memory is spread: OpenBLAS"),
    ("/sys/devices/virtual/dmi/id", "which machine: psutil"),
    ("/sys/kernel/mm/transparent_hugepage", "allocators ask"),
    ("/sys/block", "names of disks"),
    ("/sys/class/block", "names of disks"),
    ("/sys/class/hwmon", "temperatures"),
    ("/sys/class/thermal", "temperatures"),
    ("/sys/class/power_supply", "batteries"),
    // Limits of the container; not the lists of processes beside them.
    ("/sys/fs/cgroup/cpu.max", "how many threads to start"),
    ("/sys/fs/cgroup/cpuset.cpus.effective", "as above"),
    ("/sys/fs/cgroup/memory.max", "how much memory there is"),
    ("/sys/fs/cgroup/memory.high", "as above"),
    ("/sys/fs/cgroup/memory.current", "as above"),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "version 1: as above"),
    ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "version 1"),
    ("/sys/fs/cgroup/cpu/cpu.shares", "version 1"),
    ("/sys/fs/cgroup/cpuset/cpuset.cpus", "version 1"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "version 1"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "version 1"),
];

/// Figures of the machine's network interfaces. The kernel makes what is in this directory anew
/// at each look, so that a rule holds for a descriptor of this file and not for its path: what
/// applies the rule keeps one (`_figures.py`).
const NETWORK_FIGURES: &str = "/proc/self/net/dev";

/// What may be listed and not read: names of what the process has, whose files lie beside those
/// that nobody should read.
const LISTED: &[(&str, &str)] = &[
    ("/proc/self/fd", "which descriptors are open"),
    ("/proc/self/task", "which threads there are"),
];

/// Devices that hold nothing.
const DEVICES: &[(&str, &str)] = &[
    ("/dev/null", "subprocess, logging"),
    ("/dev/zero", "memory"),
    ("/dev/full", "tests"),
    ("/dev/random", "random numbers"),
    ("/dev/urandom", "random numbers"),
];

/// The rules for a policy; what they lack on this machine is added to `known`.
pub(crate) fn rules(
    policy: &Policy,
    machine: &Machine,
    known: &mut Vec<LayerReport>,
) -> Option<LandlockRules> {
    let Some(abi) = abi(machine.landlock_abi) else {
        let why = machine.landlock_missing.as_deref().unwrap_or("not here");
        known.push(LayerReport::degraded(Layer::Landlock, why));
        return None;
    };
    let mut lacks = Vec::new();
    if machine.landlock_abi < 3 {
        lacks.push("files can be truncated by path");
    }
    if machine.landlock_abi < 6 {
        lacks.push("signals and abstract Unix sockets are not scoped");
    }
    let handled_fs = AccessFs::from_all(abi);
    let mut paths = Vec::new();
    let mut add = |path: &Path, access: BitFlags<AccessFs>| {
        // What is not there now will not be looked at later.
        let Ok(found) = fs::metadata(path) else {
            return;
        };
        let fitting = if found.is_dir() {
            access
        } else {
            access & AccessFs::from_file(abi)
        };
        paths.push((path.to_owned(), (fitting & handled_fs).bits()));
    };
    let mut read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut write = (AccessFs::from_all(abi) & !AccessFs::Execute)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    if policy.subprocesses {
        read |= AccessFs::Execute;
        write |= AccessFs::Execute;
    }
    for (path, _why) in READABLE {
        add(Path::new(path), read);
    }
    for (path, _why) in LISTED {
        add(Path::new(path), AccessFs::ReadDir.into());
    }
    for (path, _why) in DEVICES {
        add(
            Path::new(path),
            AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        );
    }
    policy.read.iter().for_each(|path| add(path, read));
    policy.write.iter().for_each(|path| add(path, write | read));
    let (handled_net, ports) = network(policy, abi, &mut lacks);
    if !lacks.is_empty() {
        let why = format!("version {}: {}", machine.landlock_abi, lacks.join("; "));
        known.push(LayerReport::degraded(Layer::Landlock, why));
    }
    Some(LandlockRules {
        handled_fs: handled_fs.bits(),
        handled_net,
        scoped: Scope::from_all(abi).bits(),
        paths: merge(paths),
        ports,
    })
}

/// All that a policy lets a program see, wherever it is.
pub(crate) fn granted(policy: &Policy) -> Vec<PathBuf> {
    let always = READABLE.iter().map(|(path, _why)| PathBuf::from(path));
    // What is not a file of a disk is nowhere else either.
    let always = always.filter(|path| !path.starts_with("/proc") && !path.starts_with("/sys"));
    let granted = policy.read.iter().chain(&policy.write).cloned();
    always.chain(granted).collect()
}

/// Adds a file that may be read, though it is not there yet.
pub(crate) fn allow_reading(rules: &mut LandlockRules, path: &Path) {
    let access = AccessFs::ReadFile.into();
    rules.paths.push((path.to_owned(), BitFlags::bits(access)));
}

/// What Landlock can do about TCP: ports, whatever the address.
fn network(policy: &Policy, abi: ABI, lacks: &mut Vec<&'static str>) -> (u64, Vec<(u16, u64)>) {
    let known = AccessNet::from_all(abi);
    let bind = known & AccessNet::BindTcp;
    let connect = known & AccessNet::ConnectTcp;
    match &policy.network {
        Network::None => ((bind | connect).bits(), Vec::new()),
        Network::Outbound => (bind.bits(), Vec::new()),
        Network::Only(targets) => {
            lacks.push("addresses are not compared, only ports");
            let ports = targets.iter().map(|target| (target.port, connect.bits()));
            ((bind | connect).bits(), ports.collect())
        }
    }
}

/// Where the server makes all connections, the program itself makes none.
pub(crate) fn forbid_tcp(rules: &mut LandlockRules, machine: &Machine) {
    if let Some(abi) = abi(machine.landlock_abi()) {
        rules.handled_net = AccessNet::from_all(abi).bits();
        rules.ports.clear();
    }
}

const fn abi(version: u32) -> Option<ABI> {
    Some(match version {
        0 => return None,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        // Newer ones add what this program does not use.
        _ => ABI::V7,
    })
}

/// One rule for each path.
fn merge(paths: Vec<(PathBuf, u64)>) -> Vec<(PathBuf, u64)> {
    let mut merged = std::collections::BTreeMap::<PathBuf, u64>::new();
    for (path, access) in paths {
        *merged.entry(path).or_default() |= access;
    }
    merged.into_iter().collect()
}
