//! Which numbers does the kernel know the limits by?

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
}
