//! Why does a worker not say where its plugin is?

use std::fs;

/// The bit of SIGUSR1 in the kernel's sets of signals.
const SIGUSR1_BIT: u64 = 1 << 9;

/// What the kernel says of a process that has not answered SIGUSR1.
pub(super) fn why_silent(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    explain(&status.unwrap_or_default())
}

/// Explains it by /proc/<pid>/status, which is that of the main thread.
fn explain(status: &str) -> String {
    let field = |name: &str| {
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(found, value)| (found == name).then(|| value.trim()))
    };
    let has_signal = |name| {
        let set = field(name).and_then(|set| u64::from_str_radix(set, 16).ok());
        set.is_some_and(|set| set & SIGUSR1_BIT != 0)
    };
    let Some(state) = field("State") else {
        return "its process is gone".to_owned();
    };
    let reason = match state.chars().next() {
        Some('Z' | 'X') => "its process has ended",
        Some('T') => "a signal has stopped its process",
        Some('t') => "a debugger has stopped its process",
        Some('D') => "its process is in a system call that nothing interrupts",
        _ if has_signal("SigIgn") => "its process ignores SIGUSR1, by which it is asked",
        _ if has_signal("SigBlk") => "its process blocks SIGUSR1, by which it is asked",
        _ => "its process handles SIGUSR1, by which it is asked, in a way of its own, or is slow",
    };
    format!("{reason} (state {state})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, blocked: u64, ignored: u64) -> String {
        format!(
            "Name:\tState: x\nState:\t{state}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
        )
    }

    #[test]
    fn each_silence_has_its_reason() {
        for (status, expected) in [
            (
                status("T (stopped)", 0, SIGUSR1_BIT),
                "a signal has stopped its process (state T (stopped))",
            ),
            (
                status("D (disk sleep)", 0, 0),
                "its process is in a system call that nothing interrupts (state D (disk sleep))",
            ),
            (
                status("S (sleeping)", 0, SIGUSR1_BIT | 1),
                "its process ignores SIGUSR1, by which it is asked (state S (sleeping))",
            ),
            (
                status("S (sleeping)", SIGUSR1_BIT, 1 << 8),
                "its process blocks SIGUSR1, by which it is asked (state S (sleeping))",
            ),
            (String::new(), "its process is gone"),
        ] {
            assert_eq!(explain(&status), expected);
        }
        let own = why_silent(std::process::id());
        assert!(own.contains("in a way of its own"), "{own}");
    }
}
