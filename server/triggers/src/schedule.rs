//! A schedule trigger: runs its plugin when it is time.

use std::time::Duration;

use outrigger_model::clock::Timestamp;
use outrigger_storage::journal::LogLevel;
use outrigger_supervisor::{Event, InvocationId};
use tokio::time::sleep;

use crate::{
    backend::binding_key,
    retry,
    runner::{Next, Occasion, Runner},
    timetable::{Timetable, at},
};

/// How long to sleep at a time, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_mins(1);
/// How many coming runs the log shows when a schedule starts.
const RUNS_SHOWN: usize = 3;

/// Runs one trigger's plugin at each of its times.
#[derive(Debug)]
pub(crate) struct ScheduleTask {
    runner: Runner,
    timetable: Timetable,
}

impl ScheduleTask {
    pub(crate) fn new(runner: Runner, timetable: Timetable) -> Self {
        Self { runner, timetable }
    }

    /// Runs until it is stopped; an invocation that runs is finished first. Times that pass
    /// while the plugin runs are all made up for, one after the other; times while the
    /// server was down are not.
    pub(crate) async fn run(mut self) {
        let mut last = self.now();
        self.show_coming_runs(last).await;
        while let Some(due) = self.timetable.next_after(last) {
            self.sleep_until(due).await;
            if self.runner.stop.is_cancelled() || matches!(self.call(due).await, Next::Stop) {
                break;
            }
            last = due;
        }
        let key = binding_key(self.runner.trigger.id);
        self.runner.engine.supervisor.release(&key);
    }

    fn now(&self) -> Timestamp {
        self.runner.engine.storage.clock().now()
    }

    async fn show_coming_runs(&self, now: Timestamp) {
        let coming = std::iter::successors(self.timetable.next_after(now), |last| {
            self.timetable.next_after(*last)
        });
        let times: Vec<String> = coming
            .take(RUNS_SHOWN)
            .map(|time| at(time).to_string())
            .collect();
        let id = InvocationId(format!("{}-schedule", self.runner.trigger.id).into());
        let text = format!("next runs: {}", times.join(", "));
        self.runner.log(&id, LogLevel::Info, text).await;
    }

    async fn sleep_until(&self, due: Timestamp) {
        loop {
            let left = u64::try_from(due.0 - self.now().0).unwrap_or(0);
            if left == 0 {
                return;
            }
            let nap = Duration::from_nanos(left).min(SLEEP_MAX);
            if self
                .runner
                .stop
                .run_until_cancelled(sleep(nap))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn call(&mut self, call_time: Timestamp) -> Next {
        let occasion = Occasion {
            id: InvocationId(format!("{}-{}", self.runner.trigger.id, call_time.0).into()),
            event: Event::Schedule { call_time },
            cursor: None,
        };
        for attempt in 1.. {
            match self.runner.attempt(&occasion, attempt).await {
                Next::Again => {
                    let pause = sleep(retry::pause(attempt));
                    if self.runner.stop.run_until_cancelled(pause).await.is_none() {
                        return Next::Stop;
                    }
                }
                next => return next,
            }
        }
        Next::Done
    }
}
