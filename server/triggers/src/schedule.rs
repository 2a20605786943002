//! A schedule trigger: runs its plugin when it is time.

use std::{sync::Arc, time::Duration};

use outrigger_model::clock::Timestamp;
use outrigger_storage::journal::LogLevel;
use outrigger_supervisor::{Event, InvocationId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::error;

use crate::{
    alarm::{Alarm, Look},
    origin::Origin,
    runner::{Next, Occasion, Runner},
    timetable::{Timetable, at},
};

/// How many coming runs the log shows when a schedule starts.
const RUNS_SHOWN: usize = 3;

/// Runs one trigger's plugin at each of its times.
#[derive(Debug)]
pub(crate) struct ScheduleTask {
    runner: Arc<Runner>,
    timetable: Timetable,
    running: JoinSet<Next>,
}

impl ScheduleTask {
    pub(crate) fn new(runner: Runner, timetable: Timetable) -> Self {
        Self {
            runner: Arc::new(runner),
            timetable,
            running: JoinSet::new(),
        }
    }

    /// Runs until it is stopped; invocations that run are finished first. Times that pass
    /// while the plugin runs are all made up for, one after the other, unless the trigger is
    /// asynchronous and may begin the next one meanwhile; times while the server was down
    /// are not.
    pub(crate) async fn run(mut self) {
        let now = self.now();
        self.show_coming_runs(now).await;
        let mut alarm = Alarm::new(self.timetable.clone(), Instant::now(), now);
        while let Some(due) = self.next(&mut alarm).await {
            if self.call(due).await == Next::Stop {
                break;
            }
        }
        while self.running.join_next().await.is_some() {}
        self.runner.release();
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

    /// Waits for the next time; `None` if there is none, or the trigger stops.
    async fn next(&self, alarm: &mut Alarm) -> Option<Timestamp> {
        loop {
            let now = self.now();
            if let Some(jump) = alarm.jump(Instant::now(), now) {
                self.say_jump(jump).await;
            }
            if self.runner.stop.is_cancelled() {
                return None;
            }
            match alarm.look(now) {
                Look::Due(due) => return Some(due),
                Look::Wait(nap) => {
                    let slept = self.runner.stop.run_until_cancelled(sleep(nap));
                    slept.await?;
                }
                Look::Never => return None,
            }
        }
    }

    async fn say_jump(&self, jump: Duration) {
        let id = InvocationId(format!("{}-schedule", self.runner.trigger.id).into());
        let jump = humantime::format_duration(Duration::from_secs(jump.as_secs()));
        let text = format!(
            "the system's clock was set forward by {jump}: of the runs in that time, only the \
             last is made up for"
        );
        self.runner.log(&id, LogLevel::Warn, text).await;
    }

    async fn call(&mut self, call_time: Timestamp) -> Next {
        let occasion = Occasion {
            id: InvocationId(format!("{}-{}", self.runner.trigger.id, call_time.0).into()),
            event: Event::Schedule { call_time },
            done: None,
            origin: Origin::default(),
            waited: Duration::ZERO,
        };
        let runner = self.runner.clone();
        self.running
            .spawn(async move { runner.deal_with(&occasion).await });
        self.make_room().await
    }

    /// Waits until another invocation may begin.
    async fn make_room(&mut self) -> Next {
        let concurrency = self.runner.concurrency().get();
        loop {
            let ended = if self.running.len() >= concurrency {
                self.running.join_next().await
            } else {
                self.running.try_join_next()
            };
            match ended {
                None => return Next::Done,
                Some(Ok(Next::Stop)) => return Next::Stop,
                Some(Ok(_)) => {}
                Some(Err(panic)) => error!(%panic, "an invocation's task has panicked"),
            }
        }
    }
}
