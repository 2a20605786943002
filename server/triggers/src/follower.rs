//! A trigger that follows the log: runs its plugin on what was written, or on the files that
//! were committed.
//!
//! One batch of entries after the other, or, for an asynchronous trigger, several at the
//! same time; each is recorded as dealt with together with what its plugin wrote.

use std::{sync::Arc, time::Duration};

use outrigger_catalog::progress::{EntryRange, Progress};
use outrigger_model::{
    error::Report,
    ids::{DatabaseId, Sequence},
    trace::Trace,
};
use outrigger_storage::{Commit, feed::Feed, journal::JournalRows};
use outrigger_supervisor::{Event, InvocationId};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tracing::{error, warn};

use crate::{
    interest::{Found, Interest},
    origin::Origin,
    retry,
    runner::{Next, Occasion, Runner},
};

/// How many entries without anything for it may pass before that is recorded.
const UNRECORDED_ENTRIES_MAX: u64 = 1000;

/// Follows the log for one trigger.
#[derive(Debug)]
pub(crate) struct FollowerTask {
    runner: Arc<Runner>,
    interest: Interest,
    feed: Feed,
    /// What was dealt with when the task started; it has gaps if invocations overlapped.
    before: Progress,
    /// As far as this task has looked.
    position: Sequence,
    /// As far as entries were handed to invocations.
    handed: Sequence,
    running: JoinSet<Next>,
}

/// What the task does next.
enum Step {
    Continue,
    Stop,
}

impl FollowerTask {
    pub(crate) fn new(runner: Runner, database: DatabaseId) -> Self {
        let interest = Interest::of(&runner.trigger, database, &runner.engine.config);
        let feed = runner.engine.storage.feed();
        let before = runner.trigger.progress.clone();
        let position = before.cursor();
        Self {
            runner: Arc::new(runner),
            interest,
            feed,
            before,
            position,
            handed: position,
            running: JoinSet::new(),
        }
    }

    /// Runs until it is stopped; invocations that run are finished first.
    pub(crate) async fn run(mut self) {
        let mut news = self.feed.subscribe();
        let concurrency = self.runner.concurrency().get();
        while !self.runner.stop.is_cancelled() {
            let step = if self.running.len() < concurrency {
                self.look(&mut news).await
            } else {
                self.wait_for_room().await
            };
            if matches!(step, Step::Stop) {
                break;
            }
        }
        while self.running.join_next().await.is_some() {}
        self.runner.release();
    }

    /// Looks at the next entries; hands out what is in them for it, waits if there are none.
    async fn look(&mut self, news: &mut watch::Receiver<Sequence>) -> Step {
        let (start, end) = self.before.gap(self.position);
        if start > self.position {
            // What follows was dealt with before a restart.
            self.position = start;
            self.handed = start;
        }
        let found = match self.interest.look(&self.feed, start, end).await {
            Ok(found) => found,
            Err(error) => {
                let trigger = &self.runner.trigger.definition.name;
                warn!(trigger, error = %Report(&error), "cannot read the log, trying again");
                let stop = &self.runner.stop;
                let _slept = stop.run_until_cancelled(sleep(retry::pause(1))).await;
                return Step::Continue;
            }
        };
        let Found {
            through,
            entries,
            event,
        } = found;
        if let Some((event, origin)) = event {
            self.hand_out((event, origin), entries, through);
            return Step::Continue;
        }
        self.position = through;
        let at_end = end == Some(self.position);
        self.record_empty(at_end).await;
        if at_end {
            return Step::Continue;
        }
        self.wait(news).await
    }

    /// Runs the plugin for an event of some entries, all up to `through`. The event's id is the
    /// same for every attempt at it, also after a restart; what came meanwhile may join it
    /// then, which makes another id.
    fn hand_out(
        &mut self,
        (event, origin): (Event, Origin),
        (first, last): (Sequence, Sequence),
        through: Sequence,
    ) {
        let range = EntryRange {
            after: self.handed,
            through,
        };
        self.position = range.through;
        self.handed = range.through;
        let occasion = Occasion {
            id: InvocationId(format!("{}-{first}-{last}", self.runner.trigger.id).into()),
            event,
            done: Some(range),
            origin,
            waited: Duration::ZERO,
        };
        let runner = self.runner.clone();
        self.running
            .spawn(async move { runner.deal_with(&occasion).await });
    }

    /// Records that entries without anything for it are dealt with, where they are many, so that a
    /// restart need not read them again, or where they close a gap. Failing is no harm.
    async fn record_empty(&mut self, closes_gap: bool) {
        let passed = self.position.0 - self.handed.0;
        if passed < UNRECORDED_ENTRIES_MAX && !(closes_gap && passed > 0) {
            return;
        }
        let range = EntryRange {
            after: self.handed,
            through: self.position,
        };
        let commit = Commit {
            writes: Vec::new(),
            done: Some((self.runner.trigger.id, range)),
            change: None,
            journal: Box::new(|_| JournalRows::default()),
            trace: Trace::unrecorded(),
        };
        if self.runner.engine.storage.commit(commit).await.is_ok() {
            self.handed = self.position;
        }
    }

    async fn wait(&mut self, news: &mut watch::Receiver<Sequence>) -> Step {
        let position = self.position;
        tokio::select! {
            changed = news.wait_for(|last| *last > position) => match changed {
                Ok(_) => Step::Continue,
                Err(_closed) => Step::Stop,
            },
            Some(ended) = self.running.join_next() => step_after(ended),
            () = self.runner.stop.cancelled() => Step::Stop,
        }
    }

    /// An invocation that runs when the trigger is stopped is finished first, so this
    /// does not look at that.
    async fn wait_for_room(&mut self) -> Step {
        match self.running.join_next().await {
            Some(ended) => step_after(ended),
            None => Step::Continue,
        }
    }
}

/// A panic leaves its range unrecorded: only a new task finds it again.
fn step_after(ended: Result<Next, tokio::task::JoinError>) -> Step {
    match ended {
        Ok(Next::Stop) => Step::Stop,
        Ok(_) => Step::Continue,
        Err(panic) => {
            error!(%panic, "an invocation's task has panicked, the trigger starts again");
            Step::Stop
        }
    }
}
