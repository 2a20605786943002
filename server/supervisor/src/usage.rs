//! What a worker's process uses, as the kernel counts it.

use std::{fs, time::Duration};

use nix::{time::clock_getcpuclockid, unistd::Pid};

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ProcessUsage {
    pub(crate) user_cpu: Duration,
    pub(crate) system_cpu: Duration,
    /// Since [`reset_peak`], or since the process began.
    pub(crate) peak_memory_bytes: u64,
}

impl ProcessUsage {
    /// What the process has used up to now; nothing of what cannot be read.
    pub(crate) fn of(pid: u32) -> Self {
        let (user_ticks, system_ticks) = cpu_ticks(pid).unwrap_or_default();
        let (user_cpu, system_cpu) = split(cpu_total(pid), user_ticks, system_ticks);
        Self {
            user_cpu,
            system_cpu,
            peak_memory_bytes: peak_memory_bytes(pid).unwrap_or_default(),
        }
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user_cpu: self.user_cpu.saturating_sub(before.user_cpu),
            system_cpu: self.system_cpu.saturating_sub(before.system_cpu),
            peak_memory_bytes: self.peak_memory_bytes,
        }
    }
}

/// Lets the peak of the process's memory begin anew, where the kernel allows it.
pub(crate) fn reset_peak(pid: u32) {
    // proc(5): 5 resets the peak resident set size to the present one. Where it fails,
    // the peak is that of the whole life.
    drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
}

/// Whether a signal or a tracer has stopped it.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, fields)| fields.trim_start());
    state.is_some_and(|state| state.starts_with(['T', 't']))
}

/// All CPU time, exact to the nanosecond.
fn cpu_total(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    let time = clock_getcpuclockid(pid).and_then(nix::time::ClockId::now);
    time.map_or(Duration::ZERO, Duration::from)
}

/// Clock ticks in user mode and in the kernel: too coarse for one invocation, but they
/// tell how the exact time divides.
fn cpu_ticks(pid: u32) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; the fields after it are numbers.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn peak_memory_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn split(total: Duration, user_ticks: u64, system_ticks: u64) -> (Duration, Duration) {
    let ticks = user_ticks + system_ticks;
    if ticks == 0 {
        return (total, Duration::ZERO);
    }
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    let user = total.mul_f64(user_ticks as f64 / ticks as f64);
    (user, total.saturating_sub(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_uses_something() {
        let pid = std::process::id();
        let before = ProcessUsage::of(pid);
        let sum: u64 = (0..2_000_000_u64).map(std::hint::black_box).sum();
        std::hint::black_box(sum);
        let used = ProcessUsage::of(pid).since(before);
        assert!(used.user_cpu + used.system_cpu > Duration::ZERO, "{used:?}");
        assert!(used.peak_memory_bytes > 100_000, "{used:?}");
    }

    #[test]
    fn a_process_that_is_gone_uses_nothing() {
        // The most that any Linux has.
        const PID_MAX: u32 = 1 << 22;
        assert_eq!(ProcessUsage::of(PID_MAX + 1), ProcessUsage::default());
    }

    #[test]
    fn time_divides_as_the_ticks_do() {
        let ms = Duration::from_millis;
        assert_eq!(split(ms(100), 3, 1), (ms(75), ms(25)));
        assert_eq!(split(ms(7), 0, 0), (ms(7), ms(0)));
    }
}
