//! What do a worker and the server say to each other while an invocation runs, and how does that
//! end?

use std::sync::Arc;

use outrigger_model::{clock::Clock, trace::Trace};
use outrigger_proto::v1::{
    Completed, PluginError, Probe, Timings, completed, from_worker, to_worker,
};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Break, Worker,
    allowance::Allowance,
    collect::Collector,
    fail,
    liveness::{Liveness, Seen},
    messages::{self, check, failure, log_line, name},
    meter::Meter,
    next,
    output::{log_output, say},
    stacks::without_dump,
    too_much,
};
use crate::{
    backend::{LogLine, Scope},
    config::Config,
    error::{ExitReason, InvocationError},
    host::exited,
    invocation::{BindingKey, Concluded, Event, Finished, Invocation},
    registry::{Active, InvocationKey, Registry},
};

/// How long the last message of an ended process may take.
const LAST_MESSAGE_MAX: Duration = Duration::from_secs(1);
/// How long an invocation goes on that nobody wants any more.
const UNWANTED_MAX: Duration = Duration::from_secs(5);
/// How many messages of an invocation may log more than is stored: a plugin that says a word for
/// each of its rows is only cut short, one that says nothing else is ended.
pub(super) const FLOOD_MAX: u32 = 1_000_000;

/// An invocation that runs, and what is kept of it meanwhile.
#[derive(Debug)]
struct Running {
    scope: Scope,
    allowance: Allowance,
    meter: Meter,
}

impl Worker {
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
    pub(super) async fn exchange(
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
