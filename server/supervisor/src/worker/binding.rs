//! How does a worker get its plugin, or a newer source of it?

use outrigger_model::trace::Trace;
use outrigger_proto::v1::{PluginError, from_worker, to_worker};
use tokio::time::{Duration, timeout};

use super::{
    Break, Worker, fail,
    messages::{self, failure, name},
};
use crate::{
    error::{ExitReason, InvocationError},
    invocation::Plugin,
};

impl Worker {
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
}
