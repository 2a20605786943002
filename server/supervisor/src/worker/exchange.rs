//! What do a worker and the server say to each other while an invocation runs, and how does that
//! end?

use std::sync::Arc;

use outrigger_model::{clock::Clock, trace::Trace};
use outrigger_proto::v1::{
    Completed, Heartbeat, PluginError, Probe, Timings, completed, from_worker, to_worker,
};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::{
    Break, Worker,
    call::{Call, Stop},
    collect::Collector,
    fail,
    intervals::READ_MAX,
    liveness::{Liveness, Seen},
    messages::{self, check, failure, log_line, name},
    meter::Meter,
    next,
    output::{log_output, say},
    reading::Reading,
};
use crate::{
    backend::LogLine,
    config::Config,
    error::{ExitReason, InvocationError},
    host::exited,
    invocation::{Concluded, Event, Finished, Invocation, Plugin},
    registry::{Active, InvocationKey, Registry},
};

/// How long the last message of an ended process may take.
const LAST_MESSAGE_MAX: Duration = Duration::from_secs(1);
/// How long a line that a run has begun to print may stay without its end.
const UNFINISHED_MAX: Duration = Duration::from_secs(1);
/// How many messages of an invocation may log more than is stored: a plugin that says a word for
/// each of its rows is only cut short, one that says nothing else is ended.
pub(super) const FLOOD_MAX: u32 = 1_000_000;

/// How the plugin gets on while its worker is listened to.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    liveness: Liveness,
    reading: Reading,
    /// What it is called in questions.
    named: &'a str,
    /// What makes its calls.
    active: Option<&'a Active>,
}

impl<'a> Watch<'a> {
    pub(super) fn start(named: &'a str, active: Option<&'a Active>) -> Self {
        Self {
            liveness: Liveness::start(Instant::now()),
            reading: Reading::default(),
            named,
            active,
        }
    }

    pub(super) fn on_heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), Break> {
        if self.liveness.on_heartbeat(heartbeat.progress) {
            return Ok(());
        }
        let what = "a heartbeat that nobody asked for".to_owned();
        Err(Break::Violation(what))
    }
}

impl Worker {
    /// Gives the worker the plugin if it has another source of it, and runs one invocation. If
    /// the plugin completed, raised or does not load, the worker may be used again. It has the
    /// invocation since `granted`.
    pub(crate) async fn serve(
        &mut self,
        server: (&Registry, &Config),
        plugin: &Plugin,
        invocation: Invocation,
        granted: Instant,
    ) -> Concluded {
        self.allowance.begin();
        let call = Call::new(server, &plugin.binding, &invocation, self.clock.now());
        let unloaded = if self.has(plugin) {
            None
        } else {
            self.bind(&call, plugin, &invocation.event).await
        };
        let bound = granted.elapsed();
        let mut concluded = match unloaded {
            Some(concluded) => concluded,
            None => self.run(&call, invocation).await,
        };
        concluded.usage.bound = bound;
        self.unfinished = Some(Instant::now() + UNFINISHED_MAX);
        concluded
    }

    async fn run(&mut self, call: &Call<'_>, invocation: Invocation) -> Concluded {
        let mut span = call.scope.trace.child("run plugin");
        let mut meter = Meter::start(self.watched, &invocation.event).await;
        let result = self
            .run_metered(call, invocation, (&mut meter, &span.trace()))
            .await;
        fail(&mut span, result.as_ref().err());
        let usage = meter.finish(self.used_in_all(), self.allowance.passed);
        Concluded { result, usage }
    }

    async fn run_metered(
        &mut self,
        call: &Call<'_>,
        invocation: Invocation,
        (meter, trace): (&mut Meter, &Trace),
    ) -> Result<Finished, InvocationError> {
        let key: InvocationKey = rand::random();
        let (limits, left) = (call.limits, call.left());
        let message = messages::invoke(&invocation, key, (limits, left), trace.context());
        let asked = matches!(invocation.event, Event::Request(_));
        let active = Arc::new(Active::new(
            key,
            self.pid(),
            (call.scope.clone(), trace.clone()),
            invocation.event.into(),
        ));
        meter.watch(active.clone());
        let admission = call.registry.admit(active.clone());
        self.strays = 0;
        self.send(to_worker::Message::Invoke(message));
        let over = self.confined.over.clone();
        let answer = tokio::select! {
            biased;
            answer = self.exchange(call, &active, asked) => answer,
            reason = call.due(limits.timeout, over) => Err(Stop::Due(reason)),
        };
        // From here on neither tickets nor writes of this invocation count.
        drop(admission);
        match answer {
            Ok(Ok((finished, timings))) => {
                meter.on_finished(&finished, timings);
                Ok(finished)
            }
            Ok(Err(error)) => Err(InvocationError::Plugin(failure(error))),
            Err(stop) => Err(self.stopped(call, &call.scope.invocation.0, stop).await),
        }
    }

    /// Listens until the invocation is over.
    pub(super) async fn exchange(
        &mut self,
        call: &Call<'_>,
        active: &Active,
        asked: bool,
    ) -> Result<Result<(Finished, Option<Timings>), PluginError>, Stop> {
        let scope = &call.scope;
        let mut collector = Collector::new(call.limits.lines_bytes_max);
        let mut watch = Watch::start(&scope.invocation.0, Some(active));
        let mut refused = 0;
        loop {
            let message = self.hear(call, &mut watch).await?;
            check(&message, scope).map_err(Break::Violation)?;
            match message {
                from_worker::Message::Log(log) => {
                    let line = log_line(log, call.started, self.clock.now());
                    let passed = say(call.registry, scope, line, &mut self.allowance).await;
                    refused += u32::from(!passed);
                    if refused > FLOOD_MAX {
                        let what = format!("it logged {FLOOD_MAX} lines more than are stored");
                        return Err(Break::Violation(what).into());
                    }
                }
                from_worker::Message::Lines(lines) => {
                    collector.add(lines).map_err(Break::Violation)?;
                }
                from_worker::Message::Heartbeat(heartbeat) => watch.on_heartbeat(&heartbeat)?,
                from_worker::Message::Completed(completed) => {
                    self.log_remaining_output(call.registry, scope, None).await;
                    self.cached_objects = completed.cached_objects;
                    let concluded = concluded(completed, collector, asked);
                    return Ok(concluded.map_err(Break::Violation)?);
                }
                other => {
                    let what = format!("{} during an invocation", name(&other));
                    return Err(Break::Violation(what).into());
                }
            }
        }
    }

    /// Waits for the worker's next message; logs meanwhile what it prints, and how its plugin
    /// gets on.
    pub(super) async fn hear(
        &mut self,
        call: &Call<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<from_worker::Message, Stop> {
        loop {
            tokio::select! {
                biased;
                message = next(&mut self.link) => return Ok(message?),
                Some(line) = self.process.output.recv() => {
                    log_output(call.registry, &call.scope, line, &mut self.allowance).await;
                }
                // Something that the plugin started may hold the stream open.
                _ = exited(&mut self.process.exit) => {
                    let last = timeout(LAST_MESSAGE_MAX, next(&mut self.link)).await;
                    return Ok(last.unwrap_or(Err(Break::Ended))?);
                }
                () = sleep_until(watch.liveness.next_look()) => {
                    self.look(call, watch).await.map_err(Stop::Due)?;
                }
            }
        }
    }

    /// Looks how the plugin gets on, says what it means, and asks it. Fails with the reason why
    /// the worker must end.
    async fn look(&mut self, call: &Call<'_>, watch: &mut Watch<'_>) -> Result<(), ExitReason> {
        let stopped = self.watched.is_stopped();
        let time = self.clock.now();
        self.seen = self.watched.usage();
        let (notice, ask) = watch.liveness.look(Seen {
            now: Instant::now(),
            time,
            heard: self.link.peer.heard(),
            cpu: self.seen.user_cpu + self.seen.system_cpu,
            moved: watch.active.map_or(Some(0), Active::moved_so_far),
            stopped,
        });
        if let Some(notice) = notice {
            let line = LogLine {
                level: notice.level,
                text: notice.text,
                time,
            };
            // Not out of the plugin's allowance: this is our own line.
            call.registry.backend.log(&call.scope, line).await;
        }
        if ask {
            let invocation = watch.named.to_owned();
            self.send(to_worker::Message::Probe(Probe { invocation }));
        }
        let oldest = watch.active.and_then(|active| active.offers.oldest());
        // It is asked again once it has answered.
        let can_read = ask && !stopped;
        if watch.reading.look(oldest, can_read) {
            return Err(ExitReason::SlowReader { waited: READ_MAX });
        }
        Ok(())
    }
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
