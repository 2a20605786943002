//! What an invocation costs: counted while it runs, by the server alone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrigger_proto::v1::Timings;
use tokio::{task::spawn_blocking, time::Instant};

use super::{collect::count_lines, messages};
use crate::{
    invocation::{Event, Finished, Usage},
    registry::Active,
    usage::{ProcessUsage, Watched},
};

/// Measures one invocation.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    process: Watched,
    before: ProcessUsage,
    active: Option<Arc<Active>>,
    usage: Usage,
    wall: Option<Duration>,
}

impl Meter {
    pub(super) async fn start(process: Watched, event: &Event) -> Self {
        let rows_in = match event {
            Event::Writes(tables) => {
                let batches = tables.iter().flat_map(|table| &table.batches);
                batches.map(|batch| batch.num_rows() as u64).sum()
            }
            Event::Files(files) => files.iter().map(|file| file.rows).sum(),
            Event::Schedule { .. } | Event::Request(_) => 0,
        };
        // A thread that the plugin has left can keep its memory busy, for which the kernel waits.
        let begin = move || {
            process.reset_peak();
            process.usage()
        };
        let before = spawn_blocking(begin).await.unwrap_or_default();
        Self {
            started: Instant::now(),
            process,
            before,
            active: None,
            usage: Usage {
                pid: process.pid(),
                rows_in,
                ..Usage::default()
            },
            wall: None,
        }
    }

    /// What the invocation moves is counted there.
    pub(super) fn watch(&mut self, active: Arc<Active>) {
        self.active = Some(active);
    }

    pub(super) fn on_finished(&mut self, finished: &Finished, timings: Option<Timings>) {
        let wall = self.started.elapsed();
        self.wall = Some(wall);
        let usage = &mut self.usage;
        usage.phases = messages::phases(timings, wall);
        for text in finished.lines.values() {
            usage.lines_out += count_lines(text);
            usage.bytes_out += text.len() as u64;
        }
    }

    /// `exit` is what the process has used in all, if it has ended.
    pub(super) fn finish(self, exit: Option<ProcessUsage>, log_lines: u64) -> Usage {
        let mut usage = self.usage;
        let process = exit
            .unwrap_or_else(|| self.process.usage())
            .since(self.before);
        if let Some(active) = self.active {
            let moved = &active.moved;
            usage.bytes_in += moved.bytes_in.load(Ordering::Relaxed);
            usage.lines_out += moved.lines_out.load(Ordering::Relaxed);
            usage.bytes_out += moved.bytes_out.load(Ordering::Relaxed);
        }
        Usage {
            wall: self.wall.unwrap_or_else(|| self.started.elapsed()),
            user_cpu: process.user_cpu,
            system_cpu: process.system_cpu,
            peak_memory_bytes: process.peak_memory_bytes,
            log_lines,
            ..usage
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc};

    use outrigger_model::clock::Timestamp;
    use tokio::runtime;

    use super::*;

    #[test]
    fn what_lasts_as_long_as_the_worker_likes_is_done_on_a_thread_for_that() {
        let runtime = runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (release, held) = mpsc::channel::<()>();
            let held = spawn_blocking(move || held.recv());
            let event = Event::Schedule {
                call_time: Timestamp(0),
            };
            let own = Watched::new(std::process::id());
            let mut start = pin!(Meter::start(own, &event));
            // The only thread that may wait is taken, and this one did not do it instead.
            assert!(futures::poll!(&mut start).is_pending());
            drop(release);
            assert!(held.await.unwrap().is_err(), "nobody sends");
            let meter = start.await;
            assert_ne!(meter.before, ProcessUsage::default());
        });
    }
}
