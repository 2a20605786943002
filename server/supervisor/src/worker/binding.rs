//! How does a worker get its plugin, or a newer source of it?

use outrigger_proto::v1::{PluginError, from_worker, to_worker};

use super::{
    Break, Worker,
    call::{Call, Stop},
    exchange::Watch,
    fail,
    messages::{self, LOADING, failure, name},
    meter::Meter,
};
use crate::{
    error::InvocationError,
    invocation::{Concluded, Event, Plugin},
};

impl Worker {
    /// Whether it has this source of the plugin, and these arguments.
    pub(super) fn has(&self, plugin: &Plugin) -> bool {
        self.bound.as_ref() == Some(&plugin.revision) && self.arguments == plugin.arguments
    }

    /// Gives the worker its plugin, or a newer source or other arguments of it. What is left of
    /// the invocation if that fails.
    pub(super) async fn bind(
        &mut self,
        call: &Call<'_>,
        plugin: &Plugin,
        event: &Event,
    ) -> Option<Concluded> {
        let mut span = call.scope.trace.child("load plugin");
        span.set("plugin", plugin.name.as_str());
        let meter = Meter::start(self.watched, event);
        let loaded = self.load(call, plugin).await;
        fail(&mut span, loaded.as_ref().err());
        let error = loaded.err()?;
        Some(Concluded {
            result: Err(error),
            usage: meter.finish(self.used_in_all(), self.allowance.passed),
        })
    }

    async fn load(&mut self, call: &Call<'_>, plugin: &Plugin) -> Result<(), InvocationError> {
        self.bound = None;
        self.arguments.clone_from(&plugin.arguments);
        self.strays = 0;
        self.send(to_worker::Message::Bind(messages::bind(plugin)));
        let (limits, over) = (call.limits, self.confined.over.clone());
        let answer = tokio::select! {
            biased;
            answer = self.loaded(call, &plugin.revision) => answer,
            reason = call.due(limits.timeout.min(limits.load_max), over) => Err(Stop::Due(reason)),
        };
        match answer {
            Ok(Ok(())) => {
                self.bound = Some(plugin.revision.clone());
                Ok(())
            }
            Ok(Err(error)) => {
                self.log_remaining_output(call.registry, &call.scope, None)
                    .await;
                Err(InvocationError::Load(failure(error)))
            }
            Err(stop) => Err(self.stopped(call, LOADING, stop).await),
        }
    }

    /// Waits for the answer to a bind. A package's own code runs meanwhile.
    async fn loaded(
        &mut self,
        call: &Call<'_>,
        revision: &str,
    ) -> Result<Result<(), PluginError>, Stop> {
        let mut watch = Watch::start(LOADING, None);
        loop {
            return match self.hear(call, &mut watch).await? {
                from_worker::Message::Ready(ready) if ready.revision == revision => Ok(Ok(())),
                from_worker::Message::LoadFailed(failed) if failed.revision == revision => {
                    Ok(Err(failed.error.unwrap_or_default()))
                }
                from_worker::Message::Heartbeat(heartbeat) if heartbeat.invocation == LOADING => {
                    watch.on_heartbeat(&heartbeat)?;
                    continue;
                }
                from_worker::Message::Log(_) | from_worker::Message::Lines(_) => {
                    self.on_stray()?;
                    continue;
                }
                other => {
                    let what = format!("{} came instead of ready", name(&other));
                    Err(Break::Violation(what).into())
                }
            };
        }
    }
}
