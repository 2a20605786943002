//! A worker that has said hello: what may be said to it, and what it may say.
//!
//! ```text
//! Spare ──assign, hello──► Idle ──bind──► Binding ──ready──► Idle
//!                           │ ▲                └─load failed─► Idle (unbound)
//!                      invoke │ completed
//!                           ▼ │
//!                          Busy ── death, violation, deadline ──► Exited
//! ```
//!
//! Every path out of an exchange other than its proper end leaves the worker
//! unusable: whoever holds it drops it, and dropping kills it.

mod allowance;
mod collect;
pub(crate) mod intervals;
mod liveness;
mod messages;
mod meter;
mod spare;
mod stacks;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrigger_model::{
    clock::{Clock, SystemClock},
    error::Report,
    trace::{Span, Trace},
};
use outrigger_proto::{
    PROTOCOL_VERSION,
    v1::{
        Cancel, Completed, Drain, FromWorker, PluginError, Probe, Timings, ToWorker, completed,
        from_worker, to_worker,
    },
};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub(crate) use self::{
    allowance::Allowance,
    collect::count_lines,
    spare::{Spare, Surroundings},
};
use self::{
    collect::Collector,
    liveness::{Liveness, Seen},
    messages::{check, failure, log_line, name},
    meter::Meter,
    stacks::{StackDump, without_dump},
};
use crate::{
    backend::{LogLevel, LogLine, Scope},
    config::Config,
    error::{ExitReason, HostError, InvocationError},
    host::{OutputLine, SIGKILL, WorkerProcess, exited},
    invocation::{BindingKey, Concluded, Event, Finished, Invocation, Plugin},
    private::{Over, Watchee},
    registry::{Active, InvocationKey, Link, Registry},
    usage::Watched,
};

/// How long a worker's stream may stay open after its process has ended, or the other way round.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);
/// How long the last message of an ended process may take.
const LAST_MESSAGE_MAX: Duration = Duration::from_secs(1);
/// How long an invocation goes on that nobody wants any more.
const UNWANTED_MAX: Duration = Duration::from_secs(5);
/// How long the dump of a late worker's stacks may take.
const DUMP_MAX: Duration = Duration::from_secs(1);
/// How many messages may come between invocations: as many as wait in a worker at most. Our
/// own runtime sends none.
const STRAYS_MAX: u32 = 32;
/// How many messages of an invocation may log more than is stored: a plugin that says a word for
/// each of its rows is only cut short, one that says nothing else is ended.
const FLOOD_MAX: u32 = 1_000_000;
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;

/// A connected worker. Dropping it kills its process.
#[derive(Debug)]
pub(crate) struct Worker {
    process: WorkerProcess,
    watched: Watched,
    link: Link,
    /// The revision that it has loaded.
    bound: Option<String>,
    /// How many objects its plugin keeps in it, as it says.
    cached_objects: u64,
    /// Messages since the last invocation that belong to none.
    strays: u32,
    /// What it passes on as `args`.
    arguments: Option<BTreeMap<String, String>>,
    confined: Confined,
    clock: SystemClock,
}

/// How a worker is confined.
#[derive(Debug)]
pub(crate) struct Confined {
    /// What became of each layer.
    pub(crate) enforcement: Arc<str>,
    pub(crate) directories: Arc<Watchee>,
    /// Why it must end, once its directories hold too much.
    pub(crate) over: Over,
    pub(crate) _pin: Option<OwnedFd>,
}

/// An invocation that runs, and what is kept of it meanwhile.
#[derive(Debug)]
struct Running {
    scope: Scope,
    allowance: Allowance,
    meter: Meter,
}

/// What ended an exchange.
#[derive(Debug)]
enum Break {
    /// The stream ended.
    Ended,
    /// The worker said something it may not say.
    Violation(String),
}

impl Worker {
    /// A worker that has said hello.
    fn new(process: WorkerProcess, link: Link, confined: Confined) -> Self {
        Self {
            watched: Watched::new(process.pid),
            process,
            link,
            confined,
            bound: None,
            cached_objects: 0,
            strays: 0,
            arguments: None,
            clock: SystemClock::default(),
        }
    }

    /// How many objects its plugin keeps in it: more than none forbid to end it for
    /// being idle. Nothing else may rely on what it says.
    pub(crate) fn cached_objects(&self) -> u64 {
        self.cached_objects
    }

    /// What became of each layer of its confinement.
    pub(crate) fn enforcement(&self) -> &Arc<str> {
        &self.confined.enforcement
    }

    /// Its private directories.
    pub(crate) fn directories(&self) -> &Arc<Watchee> {
        &self.confined.directories
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Waits for anything that ends an idle worker, and says what. What it still
    /// prints is returned for the log.
    ///
    /// # Cancel safety
    /// May be dropped at any time; nothing is lost.
    pub(crate) async fn idle(&mut self) -> Result<OutputLine, ExitReason> {
        loop {
            tokio::select! {
                message = next(&mut self.link) => {
                    let heard = match message {
                        Ok(from_worker::Message::Log(_) | from_worker::Message::Lines(_)) => {
                            self.on_stray()
                        }
                        Ok(other) => {
                            let what = format!("{} while idle", name(&other));
                            Err(Break::Violation(what))
                        }
                        Err(reason) => Err(reason),
                    };
                    match heard {
                        Ok(()) => {}
                        Err(Break::Violation(what)) => {
                            return Err(ExitReason::ProtocolViolation(what));
                        }
                        Err(Break::Ended) => return Err(self.last_words().await),
                    }
                }
                Some(line) = self.process.output.recv() => return Ok(line),
                exit = exited(&mut self.process.exit) => return Err(exit.reason),
                what = too_much(&mut self.confined.over) => {
                    return Err(ExitReason::PrivateFull(what));
                }
            }
        }
    }

    /// A thread of the plugin spoke while its invocation completed: ignored, but not for ever.
    fn on_stray(&mut self) -> Result<(), Break> {
        self.strays += 1;
        if self.strays > STRAYS_MAX {
            let what = "it went on speaking between invocations".to_owned();
            return Err(Break::Violation(what));
        }
        Ok(())
    }

    /// Gives the worker its plugin, or a newer source or other arguments of it.
    pub(crate) async fn bind(
        &mut self,
        plugin: &Plugin,
        load_max: Duration,
        trace: &Trace,
    ) -> Result<(), InvocationError> {
        if self.bound.as_ref() == Some(&plugin.revision) && self.arguments == plugin.arguments {
            return Ok(());
        }
        let mut span = trace.child("load plugin");
        span.set("plugin", plugin.name.as_str());
        let loaded = self.load(plugin, load_max).await;
        fail(&mut span, loaded.as_ref().err());
        loaded
    }

    async fn load(&mut self, plugin: &Plugin, load_max: Duration) -> Result<(), InvocationError> {
        self.bound = None;
        self.arguments.clone_from(&plugin.arguments);
        self.send(to_worker::Message::Bind(messages::bind(plugin)));
        match timeout(load_max, self.loaded(&plugin.revision)).await {
            Ok(Ok(Ok(()))) => {
                self.bound = Some(plugin.revision.clone());
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(InvocationError::Load(failure(error))),
            Ok(Err(reason)) => Err(self.broken(reason).await),
            Err(_elapsed) => {
                let reason = ExitReason::DeadlineExceeded { timeout: load_max };
                Err(InvocationError::Worker {
                    reason,
                    stderr: self.kill().await,
                })
            }
        }
    }

    /// Waits for the answer to a bind.
    async fn loaded(&mut self, revision: &str) -> Result<Result<(), PluginError>, Break> {
        loop {
            return match self.next().await? {
                from_worker::Message::Ready(ready) if ready.revision == revision => Ok(Ok(())),
                from_worker::Message::LoadFailed(failed) if failed.revision == revision => {
                    Ok(Err(failed.error.unwrap_or_default()))
                }
                from_worker::Message::Log(_) | from_worker::Message::Lines(_) => {
                    self.on_stray()?;
                    continue;
                }
                other => Err(Break::Violation(format!(
                    "{} came instead of ready",
                    name(&other)
                ))),
            };
        }
    }

    /// Runs one invocation of the bound plugin. If the plugin completed or raised,
    /// the worker may be used again.
    pub(crate) async fn run(
        &mut self,
        registry: &Registry,
        config: &Config,
        binding: &BindingKey,
        invocation: Invocation,
    ) -> Concluded {
        let scope = Scope {
            binding: binding.clone(),
            invocation: invocation.id.clone(),
            trace: invocation.trace.clone(),
        };
        let mut span = scope.trace.child("run plugin");
        let mut running = Running {
            scope,
            allowance: Allowance::new(),
            meter: Meter::start(self.watched, &invocation.event),
        };
        let result = self
            .run_metered(registry, config, invocation, (&mut running, &span.trace()))
            .await;
        fail(&mut span, result.as_ref().err());
        let exit = self.process.exit.borrow().as_ref().map(|exit| exit.usage);
        let usage = running.meter.finish(exit, running.allowance.passed);
        Concluded { result, usage }
    }

    async fn run_metered(
        &mut self,
        registry: &Registry,
        config: &Config,
        invocation: Invocation,
        (running, trace): (&mut Running, &Trace),
    ) -> Result<Finished, InvocationError> {
        let Running {
            scope,
            allowance,
            meter,
        } = running;
        let key: InvocationKey = rand::random();
        let deadline = Instant::now() + invocation.timeout;
        let budget = config.lines_bytes_max.0;
        let message = messages::invoke(&invocation, key, budget, trace.context());
        let asked = matches!(invocation.event, Event::Request(_));
        let tables = match invocation.event {
            Event::Writes(tables) => tables,
            Event::Schedule { .. } | Event::Request(_) => Vec::new(),
        };
        let active = Arc::new(Active::new(
            key,
            self.pid(),
            (scope.clone(), trace.clone()),
            tables,
        ));
        meter.watch(active.clone());
        let admission = registry.admit(active.clone());
        self.strays = 0;
        self.send(to_worker::Message::Invoke(message));
        let mut over = self.confined.over.clone();
        let exchange = self.exchange(registry, &active, budget, asked, allowance);
        let late = ExitReason::DeadlineExceeded {
            timeout: invocation.timeout,
        };
        let outcome = tokio::select! {
            outcome = timeout_at(deadline, exchange) => outcome.map_err(|_elapsed| late),
            () = past_use(&invocation.unwanted) => Err(ExitReason::Unwanted),
            what = too_much(&mut over) => Err(ExitReason::PrivateFull(what)),
        };
        // From here on neither tickets nor writes of this invocation count.
        drop(admission);
        match outcome {
            Ok(Ok(Ok((finished, timings)))) => {
                meter.on_finished(&finished, timings);
                Ok(finished)
            }
            Ok(Ok(Err(error))) => Err(InvocationError::Plugin(failure(error))),
            Ok(Err(reason)) => {
                let error = self.broken(reason).await;
                self.log_remaining_output(registry, scope, allowance, None)
                    .await;
                Err(error)
            }
            Err(reason @ ExitReason::PrivateFull(_)) => {
                // It has no time to fill the disk.
                let stderr = self.kill().await;
                self.log_remaining_output(registry, scope, allowance, None)
                    .await;
                Err(InvocationError::Worker { reason, stderr })
            }
            Err(reason) => {
                let mut dump = self.dump_stacks(registry, scope, allowance).await;
                let said = self.stop_late(scope, config.grace).await;
                self.log_remaining_output(registry, scope, allowance, Some(&mut dump))
                    .await;
                let mut stderr = dump.lines();
                stderr.extend(without_dump(said));
                Err(InvocationError::Worker { reason, stderr })
            }
        }
    }

    /// Listens until the invocation is over.
    async fn exchange(
        &mut self,
        registry: &Registry,
        active: &Active,
        budget: usize,
        asked: bool,
        allowance: &mut Allowance,
    ) -> Result<Result<(Finished, Option<Timings>), PluginError>, Break> {
        let scope = &active.scope;
        let mut collector = Collector::new(budget);
        let mut liveness = Liveness::start(Instant::now());
        let started = self.clock.now();
        let mut refused = 0;
        loop {
            let message = tokio::select! {
                biased;
                message = next(&mut self.link) => message?,
                Some(line) = self.process.output.recv() => {
                    log_output(registry, scope, line, allowance).await;
                    continue;
                }
                // Something that the plugin started may hold the stream open.
                _ = exited(&mut self.process.exit) => {
                    timeout(LAST_MESSAGE_MAX, next(&mut self.link)).await.unwrap_or(Err(Break::Ended))?
                }
                () = sleep_until(liveness.next_look()) => {
                    self.look(registry, active, &mut liveness).await;
                    continue;
                }
            };
            check(&message, scope).map_err(Break::Violation)?;
            match message {
                from_worker::Message::Log(log) => {
                    let line = log_line(log, started, self.clock.now());
                    let passed = say(registry, scope, line, allowance).await;
                    refused += u32::from(!passed);
                    if refused > FLOOD_MAX {
                        let what = format!("it logged {FLOOD_MAX} lines more than are stored");
                        return Err(Break::Violation(what));
                    }
                }
                from_worker::Message::Lines(lines) => {
                    collector.add(lines).map_err(Break::Violation)?;
                }
                from_worker::Message::Heartbeat(heartbeat) => {
                    if !liveness.on_heartbeat(heartbeat.progress) {
                        let what = "a heartbeat that nobody asked for".to_owned();
                        return Err(Break::Violation(what));
                    }
                }
                from_worker::Message::Completed(completed) => {
                    self.log_remaining_output(registry, scope, allowance, None)
                        .await;
                    self.cached_objects = completed.cached_objects;
                    return concluded(completed, collector, asked).map_err(Break::Violation);
                }
                other => {
                    let what = format!("{} during an invocation", name(&other));
                    return Err(Break::Violation(what));
                }
            }
        }
    }

    /// Looks how the plugin gets on, says what it means, and asks it.
    async fn look(&self, registry: &Registry, active: &Active, liveness: &mut Liveness) {
        let time = self.clock.now();
        let usage = self.watched.usage();
        let (notice, ask) = liveness.look(Seen {
            now: Instant::now(),
            time,
            heard: self.link.peer.heard(),
            cpu: usage.user_cpu + usage.system_cpu,
            moved: active.moved_so_far(),
            stopped: self.watched.is_stopped(),
        });
        if let Some(notice) = notice {
            let line = LogLine {
                level: notice.level,
                text: notice.text,
                time,
            };
            // Not out of the plugin's allowance: this is our own line.
            registry.backend.log(&active.scope, line).await;
        }
        if ask {
            let invocation = active.scope.invocation.to_string();
            self.send(to_worker::Message::Probe(Probe { invocation }));
        }
    }

    /// Logs what was printed up to now, but for what belongs to a dump, and how much was not
    /// logged.
    async fn log_remaining_output(
        &mut self,
        registry: &Registry,
        scope: &Scope,
        allowance: &mut Allowance,
        mut dump: Option<&mut StackDump>,
    ) {
        while let Ok(line) = self.process.output.try_recv() {
            log_unless_dump(registry, scope, line, allowance, dump.as_deref_mut()).await;
        }
        if let Some(text) = allowance.report() {
            let line = LogLine {
                level: LogLevel::Warn,
                text,
                time: self.clock.now(),
            };
            registry.backend.log(scope, line).await;
        }
    }

    async fn next(&mut self) -> Result<from_worker::Message, Break> {
        next(&mut self.link).await
    }

    /// Sends a message. If the stream is gone, the next read says so; so does the
    /// deadline if the worker has stopped reading: nobody waits for it here.
    fn send(&self, message: to_worker::Message) {
        drop(self.link.to_worker.try_send(Ok(ToWorker {
            message: Some(message),
        })));
    }

    /// The error of an exchange that broke off; the worker is dead afterwards.
    async fn broken(&mut self, reason: Break) -> InvocationError {
        let reason = match reason {
            Break::Ended => self.last_words().await,
            Break::Violation(what) => ExitReason::ProtocolViolation(what),
        };
        if reason == ExitReason::HostLost {
            // Whatever ended the host says nothing about this plugin.
            return InvocationError::Host(reason.to_string());
        }
        InvocationError::Worker {
            reason,
            stderr: self.kill().await,
        }
    }

    /// Why a worker ended whose stream has closed.
    async fn last_words(&mut self) -> ExitReason {
        match timeout(LAST_WORDS_MAX, self.process.wait()).await {
            Ok(exit) => exit.reason,
            Err(_elapsed) => {
                ExitReason::ProtocolViolation("it closed its stream but did not end".to_owned())
            }
        }
    }

    /// Has the worker say where it is stuck: all Python stacks go to its standard error,
    /// also while C code holds the interpreter. Waits for the end of it, so that the
    /// interrupt that follows does not change it.
    async fn dump_stacks(
        &mut self,
        registry: &Registry,
        scope: &Scope,
        allowance: &mut Allowance,
    ) -> StackDump {
        let mut dump = StackDump::default();
        self.process.signal(SIGUSR1);
        let output = &mut self.process.output;
        let dumped = timeout(DUMP_MAX, async {
            while !dump.is_complete()
                && let Some(line) = output.recv().await
            {
                log_unless_dump(registry, scope, line, allowance, Some(&mut dump)).await;
            }
        });
        if dumped.await.is_err() {
            debug!(pid = self.pid(), "worker did not dump all its stacks");
        }
        dump
    }

    /// Ends a worker that missed a deadline: asks the plugin, asks the process, kills.
    async fn stop_late(&mut self, scope: &Scope, grace: Duration) -> Vec<String> {
        let invocation = scope.invocation.to_string();
        self.send(to_worker::Message::Cancel(Cancel { invocation }));
        // KeyboardInterrupt lets the plugin clean up; its result no longer counts.
        let stopped = timeout(grace, async {
            while let Ok(message) = next(&mut self.link).await {
                if matches!(message, from_worker::Message::Completed(_)) {
                    break;
                }
            }
        });
        if stopped.await.is_err() {
            debug!(
                pid = self.pid(),
                "plugin ignores the interrupt, terminating its worker"
            );
        }
        self.process.signal(SIGTERM);
        if let Ok(exit) = timeout(grace, self.process.wait()).await {
            return exit.stderr;
        }
        self.kill().await
    }

    /// Kills the process group and returns what it last printed on standard error.
    async fn kill(&mut self) -> Vec<String> {
        self.process.signal(SIGKILL);
        match timeout(LAST_WORDS_MAX, self.process.wait()).await {
            Ok(exit) => exit.stderr,
            Err(_elapsed) => {
                // Only its host can kill it; one that does not must end itself.
                self.process.abandon_host();
                Vec::new()
            }
        }
    }

    /// Ends an idle worker: it leaves once the stream has ended.
    pub(crate) async fn retire(self, grace: Duration) {
        self.send(to_worker::Message::Drain(Drain {}));
        let Self {
            mut process, link, ..
        } = self;
        let Link {
            to_worker,
            mut from_worker,
            ..
        } = link;
        drop(to_worker);
        let ended = timeout(grace, async {
            while let Ok(Some(_)) = from_worker.message().await {}
            drop(from_worker);
            process.wait().await;
        });
        if ended.await.is_err() {
            debug!(pid = process.pid, "worker ignores the drain, killing it");
        }
        // Dropping a process that still lives kills it.
    }
}

fn fail(span: &mut Span, error: Option<&InvocationError>) {
    if let Some(error) = error {
        span.fail(&Report(error));
    }
}

/// Waits until a worker's private directories hold too much.
async fn too_much(over: &mut Over) -> String {
    let told = over.wait_for(Option::is_some).await;
    let what = told.ok().and_then(|what| what.clone());
    match what {
        Some(what) => what,
        // Nobody looks any more.
        None => std::future::pending().await,
    }
}

/// Waits until an invocation that nobody wants has had its time to end by itself.
async fn past_use(unwanted: &CancellationToken) {
    unwanted.cancelled().await;
    sleep(UNWANTED_MAX).await;
}

/// What an invocation gave, or what is wrong with how it ended.
fn concluded(
    completed: Completed,
    collector: Collector,
    asked: bool,
) -> Result<Result<(Finished, Option<Timings>), PluginError>, String> {
    match completed.outcome {
        Some(completed::Outcome::Ok(ok)) => {
            let lines = collector.finish()?;
            let response = messages::response(ok.response, asked)?;
            Ok(Ok((Finished { lines, response }, completed.timings)))
        }
        Some(completed::Outcome::Error(error)) => Ok(Err(error)),
        None => Err("completed without an outcome".to_owned()),
    }
}

fn check_hello(link: &Link, pid: u32) -> Result<(), HostError> {
    let hello = &link.hello;
    if hello.protocol != PROTOCOL_VERSION {
        return Err(HostError::Protocol(format!(
            "the worker speaks version {}, this server version {PROTOCOL_VERSION}",
            hello.protocol
        )));
    }
    if hello.pid != pid || link.peer.pid != pid {
        return Err(HostError::Protocol(format!(
            "worker {pid} was expected, but {} said hello from process {}",
            hello.pid, link.peer.pid
        )));
    }
    Ok(())
}

async fn next(link: &mut Link) -> Result<from_worker::Message, Break> {
    match link.from_worker.message().await {
        Ok(Some(FromWorker {
            message: Some(message),
        })) => Ok(message),
        Ok(Some(_)) => Err(Break::Violation("an empty message".to_owned())),
        Ok(None) => Err(Break::Ended),
        Err(status) if status.code() == tonic::Code::OutOfRange => {
            Err(Break::Violation(status.message().to_owned()))
        }
        Err(_status) => Err(Break::Ended),
    }
}

/// Logs a line if the invocation may still say something; whether it may.
async fn say(registry: &Registry, scope: &Scope, line: LogLine, allowance: &mut Allowance) -> bool {
    // Not the line's time: clocks can be set.
    let now = Instant::now();
    if !allowance.takes(line.level, line.text.len(), now) {
        registry.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
        return false;
    }
    if let Some(text) = allowance.report_meanwhile(now) {
        let notice = LogLine {
            level: LogLevel::Warn,
            text,
            time: line.time,
        };
        registry.backend.log(scope, notice).await;
    }
    registry.backend.log(scope, line).await;
    true
}

/// Logs what a worker printed.
pub(crate) async fn log_output(
    registry: &Registry,
    scope: &Scope,
    line: OutputLine,
    allowance: &mut Allowance,
) {
    let OutputLine {
        stderr,
        text,
        time,
        dropped,
    } = line;
    count_dropped(registry, allowance, dropped);
    let level = if stderr {
        LogLevel::Warn
    } else {
        LogLevel::Info
    };
    say(registry, scope, LogLine { level, text, time }, allowance).await;
}

/// Logs what a worker printed, or adds it to the dump that it belongs to.
async fn log_unless_dump(
    registry: &Registry,
    scope: &Scope,
    line: OutputLine,
    allowance: &mut Allowance,
    dump: Option<&mut StackDump>,
) {
    if dump.is_some_and(|dump| line.stderr && dump.takes(&line.text)) {
        count_dropped(registry, allowance, line.dropped);
        return;
    }
    log_output(registry, scope, line, allowance).await;
}

fn count_dropped(registry: &Registry, allowance: &mut Allowance, dropped: u64) {
    allowance.dropped += dropped;
    registry
        .log_lines_dropped
        .fetch_add(dropped, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
