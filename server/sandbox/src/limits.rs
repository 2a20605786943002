//! Which numbers does the kernel know the limits by?

use nix::sys::resource::Resource;

use crate::policy::Limits;

/// The limits for `setrlimit`: resource, soft, hard.
pub(crate) fn limits(limits: &Limits) -> Vec<(u32, u64, u64)> {
    // Destructured, so that a new limit is not forgotten here.
    let Limits {
        address_space,
        open_files,
        processes,
        file_size,
        cpu_seconds,
        locked_memory,
        message_queues,
        pending_signals,
    } = limits;
    [
        (libc::RLIMIT_AS, *address_space),
        (libc::RLIMIT_NOFILE, *open_files),
        (libc::RLIMIT_NPROC, *processes),
        (libc::RLIMIT_FSIZE, *file_size),
        (libc::RLIMIT_CPU, *cpu_seconds),
        (libc::RLIMIT_MEMLOCK, *locked_memory),
        (libc::RLIMIT_MSGQUEUE, *message_queues),
        (libc::RLIMIT_SIGPENDING, *pending_signals),
        // A core file would hold what the program was told, and fill the disk.
        (libc::RLIMIT_CORE, Some(0)),
    ]
    .into_iter()
    .filter_map(|(resource, limit)| limit.map(|limit| (resource, limit, limit)))
    .collect()
}

/// The limit of that number.
pub(crate) fn resource(number: u32) -> Option<Resource> {
    Some(match number {
        libc::RLIMIT_AS => Resource::RLIMIT_AS,
        libc::RLIMIT_NOFILE => Resource::RLIMIT_NOFILE,
        libc::RLIMIT_NPROC => Resource::RLIMIT_NPROC,
        libc::RLIMIT_FSIZE => Resource::RLIMIT_FSIZE,
        libc::RLIMIT_CPU => Resource::RLIMIT_CPU,
        libc::RLIMIT_MEMLOCK => Resource::RLIMIT_MEMLOCK,
        libc::RLIMIT_MSGQUEUE => Resource::RLIMIT_MSGQUEUE,
        libc::RLIMIT_SIGPENDING => Resource::RLIMIT_SIGPENDING,
        libc::RLIMIT_CORE => Resource::RLIMIT_CORE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_limited_and_core_files_always() {
        assert_eq!(limits(&Limits::default()), [(libc::RLIMIT_CORE, 0, 0)]);
        let given = Limits {
            open_files: Some(64),
            ..Limits::default()
        };
        assert_eq!(limits(&given)[0], (libc::RLIMIT_NOFILE, 64, 64));
    }

    #[test]
    fn every_limit_can_be_applied() {
        let all = Limits {
            address_space: Some(1),
            open_files: Some(1),
            processes: Some(1),
            file_size: Some(1),
            cpu_seconds: Some(1),
            locked_memory: Some(1),
            message_queues: Some(1),
            pending_signals: Some(1),
        };
        let numbers = limits(&all);
        assert_eq!(numbers.len(), 9);
        assert!(
            numbers
                .iter()
                .all(|(number, _, _)| resource(*number).is_some())
        );
    }
}
