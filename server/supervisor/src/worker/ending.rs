//! How does a worker end that must, and what does it say last?

use outrigger_proto::v1::{Cancel, Drain, from_worker, to_worker};
use tokio::time::{Duration, timeout};
use tracing::debug;

use super::{
    Break, LAST_WORDS_MAX, Worker, allowance::Allowance, next, output::log_unless_dump,
    stacks::StackDump,
};
use crate::{
    backend::Scope,
    error::{ExitReason, InvocationError},
    host::SIGKILL,
    registry::{Link, Registry},
};

/// How long the dump of a late worker's stacks may take.
const DUMP_MAX: Duration = Duration::from_secs(1);
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;

impl Worker {
    /// The error of an exchange that broke off; the worker is dead afterwards.
    pub(super) async fn broken(&mut self, reason: Break) -> InvocationError {
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
    /// interrupt that follows does not change it.
    pub(super) async fn dump_stacks(
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
    pub(super) async fn stop_late(&mut self, scope: &Scope, grace: Duration) -> Vec<String> {
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
