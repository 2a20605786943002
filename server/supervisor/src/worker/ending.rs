//! How does a worker end that must, and what does it say last?

use outrigger_model::clock::Clock;
use outrigger_proto::v1::{Cancel, Drain, from_worker, to_worker};
use tokio::time::{Duration, timeout};
use tracing::debug;

use super::{
    Break, LAST_WORDS_MAX, Worker,
    call::{Call, Stop},
    messages::{check, log_line},
    next,
    output::{log_unless_dump, say},
    silence::why_silent,
    stacks::{StackDump, without_dump},
};
use crate::{
    backend::{LogLevel, LogLine, Scope},
    error::{ExitReason, InvocationError},
    host::SIGKILL,
    registry::{Link, Registry},
    usage::ProcessUsage,
};

/// How long the dump of a late worker's stacks may take.
const DUMP_MAX: Duration = Duration::from_secs(1);
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;

impl Worker {
    /// The error of a call that has no answer; the worker is dead afterwards. `named` is what
    /// runs, as the worker calls it.
    pub(super) async fn stopped(
        &mut self,
        call: &Call<'_>,
        named: &str,
        stop: Stop,
    ) -> InvocationError {
        let (reason, stderr, mut dump) = match stop {
            Stop::Broken(reason) => {
                let reason = match reason {
                    Break::Ended => self.last_words().await,
                    Break::Violation(what) => ExitReason::ProtocolViolation(what),
                };
                (reason, self.kill().await, None)
            }
            // It has no time to fill the disk, or to take more of what others need.
            Stop::Due(reason @ (ExitReason::PrivateFull(_) | ExitReason::TooMuchOpen(_))) => {
                (reason, self.kill().await, None)
            }
            Stop::Due(reason) => {
                let (dump, silence) = self.dump_stacks(call).await;
                let said = without_dump(self.stop_late(call, named).await);
                (reason, [silence, said].concat(), Some(dump))
            }
        };
        self.log_remaining_output(call.registry, &call.scope, dump.as_mut())
            .await;
        if reason == ExitReason::HostLost {
            // Whatever ended the host says nothing about this plugin.
            return InvocationError::HostLost;
        }
        let mut lines = dump.map(|dump| dump.lines()).unwrap_or_default();
        lines.extend(stderr);
        InvocationError::Worker {
            reason,
            stderr: lines,
        }
    }

    /// Ends what is left of an idle worker, and logs what it has said last and how it ended.
    pub(crate) async fn bury(&mut self, registry: &Registry, scope: &Scope, reason: &ExitReason) {
        let said = self.kill().await;
        self.log_remaining_output(registry, scope, None).await;
        let first = format!("the plugin's worker ended between two runs: {reason}");
        let line = LogLine {
            level: if reason.is_the_plugins() {
                LogLevel::Error
            } else {
                LogLevel::Warn
            },
            text: [vec![first], said].concat().join("\n"),
            time: self.clock.now(),
        };
        registry.backend.log(scope, line).await;
    }

    /// What its process had used when it ended, if it has; as last seen, if nobody knows it.
    pub(super) fn used_in_all(&self) -> Option<ProcessUsage> {
        let exit = self.process.exit.borrow();
        let used = exit.as_ref()?.usage;
        let is_known = used != ProcessUsage::default();
        Some(if is_known { used } else { self.seen })
    }

    /// Why a worker ended whose stream has closed.
    pub(super) async fn last_words(&mut self) -> ExitReason {
        match timeout(LAST_WORDS_MAX, self.process.wait()).await {
            Ok(exit) => exit.reason,
            // The host may have been stopped.
            Err(_elapsed) if self.watched.has_ended() => ExitReason::Unreported,
            Err(_elapsed) => {
                let what =
                    format!("it closed its stream and did not end within {LAST_WORDS_MAX:?}");
                ExitReason::ProtocolViolation(what)
            }
        }
    }

    /// Has the worker say where it is stuck: all Python stacks go to its standard error,
    /// also while C code holds the interpreter. Waits for the end of it, so that the
    /// interrupt that follows does not change it. What else is to be said about that.
    async fn dump_stacks(&mut self, call: &Call<'_>) -> (StackDump, Vec<String>) {
        let mut dump = StackDump::default();
        let mut remarks = Vec::new();
        if self.watched.is_stopped() {
            let text = "a signal had stopped the worker's process; it was continued for this";
            remarks.push(text.to_owned());
        }
        self.process.signal_main_thread(SIGUSR1);
        // A stopped thread takes what waits for it before it goes on.
        self.process.signal(SIGCONT);
        let (output, allowance) = (&mut self.process.output, &mut self.allowance);
        let (registry, scope) = (call.registry, &call.scope);
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
        if dump.is_empty() {
            let why = why_silent(self.pid());
            remarks.push(format!("where the plugin was is not known: {why}"));
        }
        (dump, remarks)
    }

    /// Ends a worker that missed a deadline: asks the plugin, asks the process, kills.
    async fn stop_late(&mut self, call: &Call<'_>, named: &str) -> Vec<String> {
        let (invocation, grace) = (named.to_owned(), call.limits.grace);
        self.send(to_worker::Message::Cancel(Cancel { invocation }));
        // KeyboardInterrupt lets the plugin clean up; its result no longer counts.
        if timeout(grace, self.cleaned_up(call)).await.is_err() {
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

    /// Waits until an interrupted plugin has ended, and logs what it says meanwhile.
    async fn cleaned_up(&mut self, call: &Call<'_>) {
        while let Ok(message) = next(&mut self.link).await {
            let is_its_own = check(&message, &call.scope).is_ok();
            match message {
                from_worker::Message::Completed(_)
                | from_worker::Message::Ready(_)
                | from_worker::Message::LoadFailed(_) => return,
                from_worker::Message::Log(log) if is_its_own => {
                    let line = log_line(log, call.started, self.clock.now());
                    say(call.registry, &call.scope, line, &mut self.allowance).await;
                }
                // Nothing of it counts any more.
                _ => {}
            }
        }
    }

    /// Kills the process group and returns what it last printed on standard error.
    pub(super) async fn kill(&mut self) -> Vec<String> {
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
