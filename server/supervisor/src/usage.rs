//! What a worker's process uses, as the kernel counts it.

use std::{fs, time::Duration};

use nix::{
    time::clock_getcpuclockid,
    unistd::{Pid, SysconfVar, sysconf},
};

/// CPU time and memory of a process. What its children have used counts once it has waited for
/// them, and of their memory nothing: the kernel does not tell others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ProcessUsage {
    pub(crate) user_cpu: Duration,
    pub(crate) system_cpu: Duration,
    /// Since [`Watched::reset_peak`], or since the process began.
    pub(crate) peak_memory_bytes: u64,
}

impl ProcessUsage {
    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user_cpu: self.user_cpu.saturating_sub(before.user_cpu),
            system_cpu: self.system_cpu.saturating_sub(before.system_cpu),
            peak_memory_bytes: self.peak_memory_bytes,
        }
    }
}

/// A process whose usage is read, and never that of another which has got its number since:
/// what can end and be reaped at any time is known by when it began, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    pid: u32,
    /// In ticks since the machine began; `None` if it was gone already.
    began: Option<u64>,
}

impl Watched {
    /// Watches the process that has this number now.
    pub(crate) fn new(pid: u32) -> Self {
        let began = Stat::read(pid).map(|stat| stat.began);
        Self { pid, began }
    }

    /// Its number.
    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    /// What the process has used up to now; nothing of what cannot be read.
    pub(crate) fn usage(self) -> ProcessUsage {
        let total = cpu_total(self.pid);
        let peak_memory_bytes = peak_memory_bytes(self.pid).unwrap_or_default();
        // Looked at last: if it is still the same, all that was read was its own.
        let Some(stat) = self.stat() else {
            return ProcessUsage::default();
        };
        let (user_cpu, system_cpu) = split(total, stat.user_ticks, stat.system_ticks);
        ProcessUsage {
            user_cpu: user_cpu + of_ticks(stat.children_user_ticks),
            system_cpu: system_cpu + of_ticks(stat.children_system_ticks),
            peak_memory_bytes,
        }
    }

    /// Lets the peak of the process's memory begin anew, where the kernel allows it; blocks as long
    /// as a thread of the process keeps its memory busy.
    pub(crate) fn reset_peak(self) {
        if self.stat().is_some() {
            // proc(5): 5 resets the peak resident set size to the present one. Where it
            // fails, the peak is that of the whole life.
            drop(fs::write(format!("/proc/{}/clear_refs", self.pid), "5"));
        }
    }

    /// Whether a signal or a tracer has stopped it.
    pub(crate) fn is_stopped(self) -> bool {
        self.stat().is_some_and(|stat| stat.is_stopped)
    }

    /// Whether it has ended, reaped or not.
    pub(crate) fn has_ended(self) -> bool {
        self.stat().is_none_or(|stat| stat.has_ended)
    }

    fn stat(self) -> Option<Stat> {
        Stat::read(self.pid).filter(|stat| Some(stat.began) == self.began)
    }
}

/// A process as /proc/<pid>/stat describes it.
#[derive(Clone, Copy, Debug)]
struct Stat {
    is_stopped: bool,
    has_ended: bool,
    /// Clock ticks in user mode and in the kernel: too coarse for one invocation, but they
    /// tell how the exact time divides.
    user_ticks: u64,
    system_ticks: u64,
    /// Of children that it has waited for.
    children_user_ticks: u64,
    children_system_ticks: u64,
    began: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain anything; the fields after it do not.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self {
            is_stopped: matches!(*fields.first()?, "T" | "t"),
            has_ended: matches!(*fields.first()?, "Z" | "X"),
            user_ticks: number(11)?,
            system_ticks: number(12)?,
            children_user_ticks: number(13)?,
            children_system_ticks: number(14)?,
            began: number(19)?,
        })
    }
}

/// All CPU time, exact to the nanosecond.
fn cpu_total(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    let time = clock_getcpuclockid(pid).and_then(nix::time::ClockId::now);
    time.map_or(Duration::ZERO, Duration::from)
}

fn peak_memory_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn of_ticks(ticks: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let per_second = per_second.and_then(|ticks| u64::try_from(ticks).ok());
    Duration::from_millis(ticks.saturating_mul(1000) / per_second.unwrap_or(100).max(1))
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
        let own = Watched::new(std::process::id());
        let before = own.usage();
        let sum: u64 = (0..2_000_000_u64).map(std::hint::black_box).sum();
        std::hint::black_box(sum);
        let used = own.usage().since(before);
        assert!(used.user_cpu + used.system_cpu > Duration::ZERO, "{used:?}");
        assert!(used.peak_memory_bytes > 100_000, "{used:?}");
    }

    #[test]
    fn children_count_once_they_were_waited_for() {
        let own = Watched::new(std::process::id());
        let before = own.usage();
        #[expect(clippy::disallowed_methods, reason = "a child of the test's own")]
        let mut shell = std::process::Command::new("sh");
        let counts = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done";
        let ended = shell.args(["-c", counts]).status();
        assert!(ended.is_ok_and(|status| status.success()));
        let used = own.usage().since(before);
        assert!(used.user_cpu >= Duration::from_millis(10), "{used:?}");
    }

    #[test]
    fn a_process_that_is_gone_uses_nothing() {
        // The most that any Linux has.
        const PID_MAX: u32 = 1 << 22;
        let gone = Watched::new(PID_MAX + 1);
        assert_eq!(gone.usage(), ProcessUsage::default());
    }

    #[test]
    fn whoever_gets_the_number_later_is_somebody_else() {
        let stranger = Watched::new(std::process::id());
        let earlier = |began| Watched { began, ..stranger };
        // So that its peak is far above what it has now.
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        let peak = stranger.usage().peak_memory_bytes;
        // A worker that ended, also before anybody looked: its number is now this process's.
        for ended in [
            earlier(stranger.began.map(|began| began - 1)),
            earlier(None),
        ] {
            assert_eq!(ended.usage(), ProcessUsage::default());
            assert!(!ended.is_stopped());
            ended.reset_peak();
            assert!(stranger.usage().peak_memory_bytes >= peak);
        }
        assert_ne!(stranger.usage(), ProcessUsage::default());
    }

    #[test]
    fn time_divides_as_the_ticks_do() {
        let ms = Duration::from_millis;
        assert_eq!(split(ms(100), 3, 1), (ms(75), ms(25)));
        assert_eq!(split(ms(7), 0, 0), (ms(7), ms(0)));
    }
}
