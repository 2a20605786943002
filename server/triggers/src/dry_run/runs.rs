//! How a dry run goes, from its turn to its report.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::SecondsFormat;
use outrigger_catalog::trigger::TriggerEvent;
use outrigger_model::{clock::Timestamp, shutdown::Gate};
use outrigger_storage::Storage;
use outrigger_supervisor::{
    BindingKey, Concluded, Event, EventTable, Finished, Grants, Invocation, InvocationId, LogLevel,
    Plugin, Supervisor,
};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    DryEvent, DryRun, DryRunConfig, DryRunError, DryRunReport, FILES_MAX, RUNNING_MAX,
    capture::{Capture, Captures},
    sessions::{SessionKey, Sessions},
};
use crate::{
    backend::describe_line,
    interest::event_of_files,
    plugins::Plugins,
    source::{PluginSource, SourceError},
    spec::TriggerSpec,
    timetable::{Timetable, at},
    wording,
};

/// How long one waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);
/// The cache of those who name none.
const SHARED_CACHE: &str = "_shared_test";
/// The schedule of those who name none.
const EVERY_SECOND: &str = "* * * * * *";
/// How often to look for workers that are not used any more.
const EXPIRE_INTERVAL: Duration = Duration::from_mins(1);

/// Makes dry runs. Clones share the limits.
#[derive(Clone, Debug)]
pub struct DryRuns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    storage: Storage,
    plugins: Plugins,
    config: DryRunConfig,
    /// None if the server runs no plugins.
    workers: Option<Workers>,
    turns: Arc<Semaphore>,
    gate: Gate,
}

#[derive(Debug)]
struct Workers {
    supervisor: Supervisor,
    captures: Captures,
    sessions: Mutex<Sessions>,
    /// How many dry runs there were.
    started: AtomicU64,
}

impl DryRuns {
    /// Dry runs on the supervisor, whose backend must know the same captures; without one,
    /// none. They are given up when the gate closes.
    pub fn new(
        storage: Storage,
        plugins: Plugins,
        workers: Option<(Supervisor, Captures)>,
        config: DryRunConfig,
        gate: Gate,
    ) -> Self {
        let workers = workers.map(|(supervisor, captures)| Workers {
            supervisor,
            captures,
            sessions: Mutex::default(),
            started: AtomicU64::new(0),
        });
        let shared = Arc::new(Shared {
            storage,
            plugins,
            config,
            workers,
            turns: Arc::new(Semaphore::new(RUNNING_MAX)),
            gate: gate.clone(),
        });
        let expiry = expire(shared.clone(), gate.token().clone());
        gate.tasks().spawn(expiry);
        Self(shared)
    }

    /// Runs a plugin once. It goes on if its caller does not wait for the end, and keeps
    /// its turn until then.
    pub async fn run(&self, wanted: DryRun) -> Result<DryRunReport, DryRunError> {
        if wanted.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(DryRunError::Timeout);
        }
        if let DryEvent::Files {
            files: Some(count), ..
        } = wanted.event
            && !(1..=FILES_MAX).contains(&count)
        {
            return Err(DryRunError::Files);
        }
        let turn = turn(&self.0.turns).await?;
        let (shared, stop) = (self.0.clone(), self.0.gate.token().clone());
        let task = self.0.gate.tasks().spawn(async move {
            let _turn = turn;
            let report = stop.run_until_cancelled(shared.run(wanted)).await;
            report.unwrap_or(Err(DryRunError::Stopping))
        });
        task.await.map_err(DryRunError::Panicked)?
    }
}

impl Shared {
    async fn run(&self, mut wanted: DryRun) -> Result<DryRunReport, DryRunError> {
        let workers = self.workers.as_ref().ok_or(SourceError::NoDirectory)?;
        let source = self.plugins.newest(&wanted.plugin).await?;
        let capture = Arc::new(Capture::new(
            wanted.database.clone(),
            self.storage.rehearsal(),
            self.config.lines_bytes_max,
        ));
        let mut report = DryRunReport::default();
        let event = std::mem::replace(&mut wanted.event, DryEvent::Schedule { schedule: None });
        let event = match event {
            DryEvent::Writes { lines, table } => {
                written(&capture, lines, table, &mut report).await?
            }
            DryEvent::Files { table, files } => {
                self.committed(&wanted.database, table.as_deref(), files, &mut report)
            }
            DryEvent::Schedule { schedule } => {
                self.scheduled(&wanted.database, schedule.as_deref(), &mut report)
            }
            DryEvent::Request(request) => self
                .has_database(&wanted.database, &mut report)
                .then_some(Event::Request(request)),
        };
        let Some(event) = event else {
            return Ok(report);
        };
        capture.say(LogLevel::Info, &wording::starting(&event));
        let timeout = wanted.timeout.unwrap_or(self.config.invocation_timeout);
        let Concluded { result, usage } = workers
            .invoke(wanted, &source, &capture, (event, timeout))
            .await;
        match result {
            Ok(finished) => report.response = on_finished(&capture, finished, usage.wall).await,
            Err(error) => {
                let first = format!("error executing plugin: {error}");
                report.errors.push(wording::with_details(first, &error));
            }
        }
        let kept = capture.take();
        report.log_lines = kept.log_lines;
        report.database_writes = kept.writes;
        report.errors.extend(kept.errors);
        Ok(report)
    }

    fn has_database(&self, name: &str, report: &mut DryRunReport) -> bool {
        let exists = self.storage.catalog().database(name).is_ok();
        if !exists {
            report.errors.push("couldn't find db".to_owned());
        }
        exists
    }

    /// The event of the newest files; none if there are none.
    fn committed(
        &self,
        database: &str,
        table: Option<&str>,
        files: Option<usize>,
        report: &mut DryRunReport,
    ) -> Option<Event> {
        let Ok(files) = self
            .storage
            .newest_files(database, table, files.unwrap_or(1))
        else {
            report.errors.push("couldn't find db".to_owned());
            return None;
        };
        let event = event_of_files(files);
        if event.is_none() {
            let whose = table.map_or("no table".to_owned(), |table| format!("no table {table:?}"));
            report.log_lines.push(format!(
                "INFO: the plugin was not called: {database:?} has {whose} with Parquet files yet; \
                 snapshots make them"
            ));
        }
        event
    }

    fn scheduled(
        &self,
        database: &str,
        schedule: Option<&str>,
        report: &mut DryRunReport,
    ) -> Option<Event> {
        if !self.has_database(database, report) {
            return None;
        }
        match next_time(schedule.unwrap_or(EVERY_SECOND), self.storage.clock().now()) {
            Ok(call_time) => {
                let time = at(call_time).to_rfc3339_opts(SecondsFormat::AutoSi, true);
                report.trigger_time = Some(time);
                Some(Event::Schedule { call_time })
            }
            Err(text) => {
                report.errors.push(text);
                None
            }
        }
    }
}

impl Workers {
    async fn invoke(
        &self,
        wanted: DryRun,
        source: &PluginSource,
        capture: &Arc<Capture>,
        (event, timeout): (Event, Duration),
    ) -> Concluded {
        let key = SessionKey {
            database: wanted.database,
            plugin: wanted.plugin,
            cache_name: wanted.cache_name.unwrap_or_else(|| SHARED_CACHE.to_owned()),
        };
        let binding = self.join(&key);
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let id = InvocationId(format!("{binding}-{number}").into());
        info!(invocation = %id, plugin = key.plugin, db = key.database, "dry run");
        let plugin = Arc::new(Plugin {
            binding,
            name: key.plugin.clone(),
            revision: source.revision.clone(),
            source: source.text.for_worker(),
            arguments: wanted.arguments,
            workers_max: 1,
            grants: Grants::default(),
            keeps_files: false,
        });
        let registered = self.captures.register(id.clone(), capture.clone());
        let invocation = Invocation {
            id,
            attempt: 1,
            timeout,
            unwanted: CancellationToken::new(),
            trace: wanted.trace,
            event,
        };
        let concluded = self.supervisor.invoke(plugin, invocation).await;
        drop(registered);
        self.sessions.lock().leave(&key, Instant::now());
        concluded
    }

    fn join(&self, key: &SessionKey) -> BindingKey {
        let (binding, released) = self.sessions.lock().join(key.clone(), Instant::now());
        if let Some(released) = released {
            self.supervisor.release(&released);
        }
        binding
    }
}

/// The right to run, once others have ended.
async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, DryRunError> {
    match timeout(TURN_WAIT_MAX, turns.clone().acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(DryRunError::Busy),
    }
}

/// The event of lines that might be written; none if they are bad, or not for the table.
async fn written(
    capture: &Capture,
    lines: String,
    table: Option<String>,
    report: &mut DryRunReport,
) -> Result<Option<Event>, DryRunError> {
    let mut tables = match capture.input(lines).await? {
        Ok(tables) => tables,
        Err(refused) => {
            let refused = refused.iter().map(describe_line);
            let errors = refused.map(|line| format!("error in the lines to test with: {line}"));
            report.errors.extend(errors);
            return Ok(None);
        }
    };
    let why = match &table {
        Some(wanted) => {
            tables.retain(|table| table.name == *wanted);
            format!("no line is for the table {wanted:?}")
        }
        None => "there are no lines".to_owned(),
    };
    if tables.is_empty() {
        let text = format!("INFO: the plugin was not called: {why}");
        report.log_lines.push(text);
        return Ok(None);
    }
    let tables = tables.into_iter().map(|table| EventTable {
        name: table.name,
        batches: table.batches,
    });
    Ok(Some(Event::Writes(tables.collect())))
}

/// When a schedule fires next. It may be written as in a trigger's specification, or be
/// a bare cron expression.
fn next_time(schedule: &str, now: Timestamp) -> Result<Timestamp, String> {
    let schedule = schedule.trim();
    let keywords = ["every:", "cron:", "schedule:"];
    let spec = if keywords.iter().any(|word| schedule.starts_with(word)) {
        schedule.to_owned()
    } else {
        format!("cron:{schedule}")
    };
    let what = if spec.starts_with("every:") {
        "schedule"
    } else {
        "cron syntax"
    };
    let invalid = |reason: &str| format!("invalid {what}: {reason}");
    let TriggerSpec(event) = spec
        .parse()
        .map_err(|error: crate::spec::SpecError| invalid(error.reason()))?;
    let timetable = match event {
        TriggerEvent::Every { duration } => Timetable::Every(duration),
        TriggerEvent::Schedule { schedule } => {
            Timetable::cron(&schedule).map_err(|error| invalid(&error.to_string()))?
        }
        _ => unreachable!("the keywords are those of schedules"),
    };
    timetable
        .next_after(now)
        .ok_or_else(|| invalid("it never fires"))
}

/// Takes what a run has left; the engine's line is the last.
async fn on_finished(
    capture: &Capture,
    mut finished: Finished,
    wall: Duration,
) -> Option<outrigger_supervisor::Response> {
    for (target, lines) in std::mem::take(&mut finished.lines) {
        capture.write_buffered(target, lines).await;
    }
    capture.say(LogLevel::Info, &wording::finished(wall));
    finished.response
}

/// Releases workers that were not used for long, until the gate closes.
async fn expire(shared: Arc<Shared>, stop: CancellationToken) {
    let Some(workers) = &shared.workers else {
        return;
    };
    let pause = || stop.run_until_cancelled(sleep(EXPIRE_INTERVAL));
    while pause().await.is_some() {
        let expired = workers.sessions.lock().expire(Instant::now());
        for binding in expired {
            workers.supervisor.release(&binding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_so_many_go_on_at_a_time() {
        let turns = Arc::new(Semaphore::new(RUNNING_MAX));
        let mut running = Vec::new();
        for _ in 0..RUNNING_MAX {
            running.push(turn(&turns).await.unwrap());
        }
        let refused = turn(&turns).await;
        assert!(matches!(refused, Err(DryRunError::Busy)), "{refused:?}");
        let next = tokio::join!(turn(&turns), async { drop(running.pop()) }).0;
        assert!(next.is_ok(), "{next:?}");
    }

    #[test]
    fn a_schedule_is_read_as_in_a_trigger() {
        let next = |schedule| next_time(schedule, Timestamp(1_500_000_000)).map(|time| time.0);
        assert_eq!(next("* * * * * *"), Ok(2_000_000_000));
        assert_eq!(next("every:4s"), Ok(4_000_000_000));
        assert_eq!(next(" */5 * * * * "), Ok(300_000_000_000));
        assert_eq!(next("cron:0 */5 * * * *"), Ok(300_000_000_000));
        let refused = next("not a cron").unwrap_err();
        assert!(refused.starts_with("invalid cron syntax: "), "{refused}");
        let refused = next("every:0s").unwrap_err();
        assert!(refused.starts_with("invalid schedule: "), "{refused}");
        assert!(next("request:x").is_err());
    }
}
