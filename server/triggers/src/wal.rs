//! A WAL trigger: follows the log and runs its plugin on what was written.

use std::time::Duration;

use outrigger_catalog::trigger::TriggerEvent;
use outrigger_model::{
    error::Report,
    ids::{DatabaseId, Sequence},
};
use outrigger_storage::{
    Commit,
    feed::{Delivery, Feed, Filter},
};
use outrigger_supervisor::{Event, EventTable, InvocationId};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use crate::{
    backend::binding_key,
    retry,
    runner::{Next, Occasion, Runner},
};

/// How many entries without rows the durable cursor may lag behind.
const UNSAVED_ENTRIES_MAX: u64 = 1000;

/// Owns one trigger's cursor.
#[derive(Debug)]
pub(crate) struct WalTask {
    runner: Runner,
    filter: Filter,
    feed: Feed,
    /// As far as this task has looked.
    cursor: Sequence,
    /// The cursor that a restart would find.
    durable: Sequence,
}

impl WalTask {
    pub(crate) fn new(runner: Runner, database: DatabaseId) -> Self {
        let table = match &runner.trigger.definition.event {
            TriggerEvent::SingleTableWalWrite { table_name } => Some(table_name.clone()),
            _ => None,
        };
        let config = &runner.engine.config;
        let filter = Filter {
            database,
            table,
            rows_max: config.batch_rows_max,
            bytes_max: config.batch_bytes_max.0,
        };
        let (feed, cursor) = (runner.engine.storage.feed(), runner.trigger.cursor);
        Self {
            runner,
            filter,
            feed,
            cursor,
            durable: cursor,
        }
    }

    /// Runs until it is stopped; an invocation that runs is finished first.
    pub(crate) async fn run(mut self) {
        let mut news = self.feed.subscribe();
        while !self.runner.stop.is_cancelled() {
            let next = match self.feed.read(self.cursor, &self.filter).await {
                Ok(delivery) => self.on_delivery(delivery, &mut news).await,
                Err(error) => {
                    let trigger = &self.runner.trigger.definition.name;
                    warn!(trigger, error = %Report(&error), "cannot read the log, trying again");
                    self.pause(retry::pause(1)).await;
                    Next::Again
                }
            };
            if matches!(next, Next::Stop) {
                break;
            }
        }
        let key = binding_key(self.runner.trigger.id);
        self.runner.engine.supervisor.release(&key);
    }

    async fn on_delivery(
        &mut self,
        delivery: Delivery,
        news: &mut watch::Receiver<Sequence>,
    ) -> Next {
        let through = delivery.through;
        if delivery.tables.is_empty() {
            self.cursor = through;
            self.save_cursor().await;
            return self.wait_for_news(news).await;
        }
        let occasion = self.occasion(delivery);
        for attempt in 1.. {
            match self.runner.attempt(&occasion, attempt).await {
                Next::Done => {
                    self.cursor = through;
                    self.durable = through;
                    break;
                }
                Next::Stop => return Next::Stop,
                Next::Again => self.pause(retry::pause(attempt)).await,
            }
            if self.runner.stop.is_cancelled() {
                return Next::Stop;
            }
        }
        Next::Done
    }

    /// Makes the cursor durable where it has passed many entries without rows, so that a
    /// restart need not read them again. Failing is no harm.
    async fn save_cursor(&mut self) {
        if self.cursor.0 - self.durable.0 < UNSAVED_ENTRIES_MAX {
            return;
        }
        let commit = Commit {
            writes: Vec::new(),
            cursor: Some((self.runner.trigger.id, self.cursor)),
            change: None,
            logs: Box::new(|_| Vec::new()),
        };
        if self.runner.engine.storage.commit(commit).await.is_ok() {
            self.durable = self.cursor;
        }
    }

    async fn wait_for_news(&self, news: &mut watch::Receiver<Sequence>) -> Next {
        let cursor = self.cursor;
        tokio::select! {
            changed = news.wait_for(|last| *last > cursor) => match changed {
                Ok(_) => Next::Done,
                Err(_closed) => Next::Stop,
            },
            () = self.runner.stop.cancelled() => Next::Stop,
        }
    }

    async fn pause(&self, pause: Duration) {
        // Whether it was stopped is asked by whoever goes on.
        let _slept = self.runner.stop.run_until_cancelled(sleep(pause)).await;
    }

    /// The event of a delivery. Its id is the same for every attempt at the same rows, also
    /// after a restart; rows that were written meanwhile may join them then, which makes
    /// another id.
    fn occasion(&self, delivery: Delivery) -> Occasion {
        let (first, last) = delivery
            .entries
            .unwrap_or((delivery.through, delivery.through));
        let tables = delivery.tables.into_iter().map(|table| EventTable {
            name: table.name,
            batches: table.batches,
        });
        Occasion {
            id: InvocationId(format!("{}-{first}-{last}", self.runner.trigger.id).into()),
            event: Event::Writes(tables.collect()),
            cursor: Some(delivery.through),
        }
    }
}
