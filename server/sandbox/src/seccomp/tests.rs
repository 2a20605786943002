//! Do the programs do what the tables say? Each is run by an interpreter of classic BPF.

use super::{
    bpf::{self, AND, AT_LEAST, EQUAL, LOAD, NATIVE, RETURN, X32, errno},
    calls::{Arg, Rule},
    *,
};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const I386: u32 = 0x4000_0003;

/// Runs a program on a call, as the kernel would; `None` where it would not load.
fn run(program: &SeccompProgram, arch: u32, number: u32, args: [u64; 6]) -> Option<u32> {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    for arg in args {
        data.extend(arg.to_ne_bytes());
    }
    let code: Vec<&[u8]> = program.filter.chunks_exact(8).collect();
    let (mut at, mut word) = (0, 0);
    loop {
        let instruction = code.get(at)?;
        let k = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
        let [then, otherwise] = [usize::from(instruction[2]), usize::from(instruction[3])];
        at += 1;
        match u16::from_ne_bytes(instruction[..2].try_into().unwrap()) {
            LOAD => {
                let at = k as usize;
                assert_eq!(at % 4, 0);
                word = u32::from_ne_bytes(data.get(at..at + 4)?.try_into().unwrap());
            }
            AND => word &= k,
            EQUAL => at += if word == k { then } else { otherwise },
            AT_LEAST => at += if word >= k { then } else { otherwise },
            RETURN => return Some(k),
            other => panic!("{other:#x} is not an instruction that we write"),
        }
    }
}

fn native(program: &SeccompProgram, number: i64, args: [u64; 6]) -> u32 {
    run(program, NATIVE, u32::try_from(number).unwrap(), args).unwrap()
}

fn machine(landlock_abi: u32) -> Machine {
    Machine {
        landlock_abi,
        ..Machine::bare()
    }
}

/// Every combination that makes a difference.
fn cases() -> Vec<(Profile, Policy, Machine, bool)> {
    let mut cases = Vec::new();
    for profile in [Profile::Worker, Profile::Host, Profile::Program] {
        for bits in 0..16_u8 {
            let policy = Policy {
                subprocesses: bits & 1 != 0,
                change_modes: bits & 2 != 0,
                network: if bits & 4 == 0 {
                    Network::Outbound
                } else {
                    Network::None
                },
                ..Policy::default()
            };
            for abi in [0, 2, 3, 6, 7] {
                cases.push((profile, policy.clone(), machine(abi), bits & 8 != 0));
            }
        }
    }
    cases
}

fn worker(policy: &Policy, abi: u32) -> SeccompProgram {
    allow_list(Profile::Worker, policy, &machine(abi), false)
}

/// Arguments for which all of these hold.
fn satisfying(all: &[Arg]) -> [u64; 6] {
    let mut args = [0_u64; 6];
    for arg in all {
        let value = if arg.is {
            arg.value
        } else {
            !arg.value & 0xFFFF
        };
        args[usize::from(arg.index)] = u64::from(value);
    }
    args
}

#[test]
fn every_program_says_of_every_number_what_its_table_says() {
    for (profile, policy, machine, broker) in cases() {
        let program = allow_list(profile, &policy, &machine, broker);
        // The kernel's own limit.
        assert!(program.filter.len() / 8 <= 4096);
        let table = table(profile, &policy, &machine, broker);
        for number in 0..600 {
            let call = table.iter().find(|call| call.number == number);
            let expected = match call.map(|call| call.rule) {
                None => errno(libc::ENOSYS),
                Some(Rule::Allow) => ALLOW,
                Some(Rule::Pretend) => errno(0),
                Some(Rule::Refuse(number)) => errno(number),
                Some(Rule::If(alternatives, _)) => {
                    let name = call.unwrap().name;
                    for all in alternatives {
                        let got = native(&program, number, satisfying(all));
                        assert_eq!(got, ALLOW, "{name} {all:?}");
                    }
                    continue;
                }
            };
            assert_eq!(native(&program, number, [0; 6]), expected, "{number}");
        }
    }
}

#[test]
fn other_interfaces_of_the_kernel_are_deadly() {
    let mut programs: Vec<_> = cases()
        .iter()
        .map(|(profile, policy, machine, broker)| allow_list(*profile, policy, machine, *broker))
        .collect();
    programs.push(broker());
    for program in programs {
        for number in 0..600 {
            assert_eq!(run(&program, I386, number, [0; 6]), Some(KILL));
            if cfg!(target_arch = "x86_64") {
                assert_eq!(run(&program, NATIVE, X32 | number, [0; 6]), Some(KILL));
            }
        }
        assert_eq!(run(&program, NATIVE, u32::MAX, [0; 6]), Some(KILL));
    }
}

/// What must not be had by any worker, whatever it is granted.
#[test]
fn what_reaches_other_processes_or_the_kernel_is_in_no_table() {
    let never = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_kcmp,
        libc::SYS_perf_event_open,
        libc::SYS_bpf,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_mount_setattr,
        libc::SYS_personality,
        libc::SYS_inotify_init1,
        libc::SYS_inotify_add_watch,
        libc::SYS_fanotify_init,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_shmget,
        libc::SYS_msgget,
        libc::SYS_semget,
        libc::SYS_mq_open,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setattr,
        libc::SYS_setuid,
        libc::SYS_setresuid,
        libc::SYS_capset,
        libc::SYS_vmsplice,
        libc::SYS_sethostname,
    ];
    for (profile, policy, machine, broker) in cases() {
        let program = allow_list(profile, &policy, &machine, broker);
        for number in never {
            let answer = native(&program, number, [0; 6]);
            assert_eq!(answer, errno(libc::ENOSYS), "{number}");
        }
        // A worker cannot bring its own domain or filter, which the host's workers do.
        let own = [
            libc::SYS_seccomp,
            libc::SYS_landlock_restrict_self,
            libc::SYS_memfd_create,
        ];
        for number in own {
            let allowed = native(&program, number, [0; 6]) == ALLOW;
            assert_eq!(allowed, profile == Profile::Host, "{number}");
        }
    }
}

#[test]
fn a_worker_starts_threads_and_nothing_else_unless_it_is_granted() {
    const THREAD: u64 = 0x003d_0f00;
    const FORK: u64 = 0x0120_0011;
    let policy = Policy::default();
    let program = worker(&policy, 7);
    let clone = |program: &SeccompProgram, flags| {
        native(program, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) == ALLOW
    };
    assert!(clone(&program, THREAD));
    assert!(!clone(&program, FORK));
    let refused = [libc::SYS_execve, libc::SYS_execveat];
    for number in refused {
        assert_eq!(native(&program, number, [0; 6]), errno(libc::EPERM));
    }
    let granted = Policy {
        subprocesses: true,
        ..policy
    };
    let granted = worker(&granted, 7);
    assert!(clone(&granted, THREAD));
    assert!(clone(&granted, FORK));
    for number in refused {
        assert_eq!(native(&granted, number, [0; 6]), ALLOW);
    }
    let clone_new = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
        // A child of its parent's.
        libc::CLONE_PARENT,
    ];
    for flag in clone_new {
        for start in [THREAD, FORK] {
            let flags = start | u64::from(flag.cast_unsigned());
            assert!(!clone(&granted, flags), "{flag:#x}");
            assert!(!clone(&program, flags), "{flag:#x}");
        }
    }
    // Its flags are in memory.
    for program in [program, granted] {
        let answer = native(&program, libc::SYS_clone3, [0; 6]);
        assert_eq!(answer, errno(libc::ENOSYS));
    }
}

#[test]
fn sockets_are_tcp_or_unix_streams() {
    let socket = |program: &SeccompProgram, family: i32, kind: i32, protocol: i32| {
        let args = [family, kind, protocol].map(|arg| u64::from(arg.cast_unsigned()));
        let args = [args[0], args[1], args[2], 0, 0, 0];
        native(program, libc::SYS_socket, args) == ALLOW
    };
    let outbound = worker(&Policy::default(), 7);
    let none = Policy {
        network: Network::None,
        ..Policy::default()
    };
    let none = worker(&none, 7);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for family in 0..50 {
        for kind in 0..16 {
            for protocol in [0, 1, 6, 17, 132, 255, 256, 262] {
                let kind = kind | flags;
                let unix = family == libc::AF_UNIX && protocol == 0;
                let inet = [libc::AF_INET, libc::AF_INET6].contains(&family)
                    && [0, libc::IPPROTO_TCP].contains(&protocol);
                let stream = kind & 0xF == libc::SOCK_STREAM;
                let asked = (family, kind, protocol);
                let got = socket(&outbound, family, kind, protocol);
                assert_eq!(got, stream && (unix || inet), "{asked:?}");
                let got = socket(&none, family, kind, protocol);
                assert_eq!(got, stream && unix, "{asked:?}");
            }
        }
    }
    let program = |network| {
        let policy = Policy {
            network,
            ..Policy::default()
        };
        allow_list(Profile::Program, &policy, &machine(7), false)
    };
    let [installer, lonely] = [Network::Outbound, Network::None].map(program);
    for (family, kind, expected) in [
        (libc::AF_INET, libc::SOCK_STREAM, true),
        (libc::AF_INET6, libc::SOCK_DGRAM, true),
        (libc::AF_INET, libc::SOCK_RAW, false),
        (libc::AF_UNIX, libc::SOCK_STREAM, false),
        (libc::AF_UNIX, libc::SOCK_DGRAM, false),
        (libc::AF_NETLINK, libc::SOCK_RAW, false),
    ] {
        let asked = (family, kind);
        assert_eq!(socket(&installer, family, kind, 0), expected, "{asked:?}");
        assert!(!socket(&lonely, family, kind, 0), "{asked:?}");
    }
}

#[test]
fn what_is_sent_and_received_is_neither_fast_open_nor_out_of_band() {
    let outbound = worker(&Policy::default(), 7);
    for (number, at) in [
        (libc::SYS_sendto, 3),
        (libc::SYS_sendmsg, 2),
        (libc::SYS_sendmmsg, 3),
    ] {
        let mut args = [0; 6];
        args[at] = u64::from(libc::MSG_NOSIGNAL.cast_unsigned());
        assert_eq!(native(&outbound, number, args), ALLOW);
        for flag in [libc::MSG_FASTOPEN, libc::MSG_OOB, libc::MSG_ZEROCOPY] {
            let mut args = args;
            args[at] |= u64::from(flag.cast_unsigned());
            assert_eq!(native(&outbound, number, args), errno(libc::EPERM));
        }
    }
    for (number, at) in [
        (libc::SYS_recvfrom, 3),
        (libc::SYS_recvmsg, 2),
        (libc::SYS_recvmmsg, 3),
    ] {
        let mut args = [0; 6];
        for flag in [libc::MSG_PEEK, libc::MSG_WAITALL, libc::MSG_CMSG_CLOEXEC] {
            args[at] |= u64::from(flag.cast_unsigned());
            assert_eq!(native(&outbound, number, args), ALLOW);
        }
        args[at] |= u64::from(libc::MSG_OOB.cast_unsigned());
        assert_eq!(native(&outbound, number, args), errno(libc::EPERM));
    }
}

#[test]
fn other_processes_are_out_of_reach_where_landlock_has_no_say() {
    let program = worker(&Policy::default(), 7);
    let server = 4242_u64;
    for number in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        let on = |pid| native(&program, number, [pid, 0, 0, 0, 0, 0]);
        assert_eq!(on(0), ALLOW);
        assert_eq!(on(server), errno(libc::EPERM));
        // The kernel looks at the low half only; so does the program.
        assert_eq!(on(1 << 32), ALLOW);
    }
    for (number, process, group) in [(libc::SYS_setpriority, 0, 1), (libc::SYS_ioprio_set, 1, 2)] {
        let on = |which, who| native(&program, number, [which, who, 0, 0, 0, 0]);
        assert_eq!(on(process, 0), ALLOW);
        assert_eq!(on(process, server), errno(libc::EPERM));
        assert_eq!(on(group, 0), errno(libc::EPERM));
    }
    // The mark by which the host knows whose process it is.
    let locks = [0, 10, 0, 0, 0, 0];
    assert_eq!(
        native(&program, libc::SYS_prlimit64, locks),
        errno(libc::EPERM)
    );
    // Where Landlock does not scope signals, only the own process may be named.
    let mut old = worker(&Policy::default(), 4);
    let kill = |program: &SeccompProgram, pid: i32| {
        let pid = u64::from(pid.cast_unsigned());
        native(program, libc::SYS_kill, [pid, 9, 0, 0, 0, 0]) == ALLOW
    };
    assert!(!kill(&old, 77), "it is not known yet whose it is");
    set_own_pid(&mut old, 77);
    assert!(kill(&old, 77));
    for pid in [0, -1, -77, 1, 4242] {
        assert!(!kill(&old, pid), "{pid}");
    }
}

#[test]
fn the_broker_hears_of_connect_and_nothing_else() {
    let program = broker();
    assert!(program.has_listener());
    for number in 0..600 {
        let connect = number == libc::SYS_connect;
        let expected = if connect {
            libc::SECCOMP_RET_USER_NOTIF
        } else {
            ALLOW
        };
        assert_eq!(native(&program, number, [0; 6]), expected);
    }
}

#[test]
fn every_entry_has_a_reason_and_stands_once_in_its_table() {
    for table in [
        calls::COMMON,
        calls::LEGACY,
        calls::TRUNCATE,
        calls::SIGNALS_SCOPED,
        calls::SIGNALS_OWN,
        calls::THREADS,
        calls::SUBPROCESSES,
        calls::METADATA,
        calls::METADATA_NEW,
        calls::NO_NETWORK,
        calls::HOST,
        calls::BROKERED,
    ] {
        let mut numbers = std::collections::BTreeSet::new();
        for call in table {
            assert!(call.why.len() > 3, "{}", call.name);
            assert!(numbers.insert(call.number), "{} twice", call.name);
        }
    }
    let mut longest = 0;
    for (profile, policy, machine, broker) in cases() {
        for call in table(profile, &policy, &machine, broker) {
            if let Rule::If(alternatives, _) = call.rule {
                longest = longest.max(alternatives.len());
                assert!(
                    alternatives.iter().all(|all| !all.is_empty()),
                    "{}",
                    call.name
                );
            }
        }
        drop(bpf::allow_list(table(profile, &policy, &machine, broker)));
    }
    assert!(longest > 0);
}
