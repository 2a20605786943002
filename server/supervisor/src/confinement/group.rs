//! Into which control group does a worker come, and what becomes of that?

use outrigger_model::error::Report;
use outrigger_sandbox::{GroupError, Layer, LayerReport, Mode};
use tracing::{debug, warn};

use super::Confiner;
use crate::{host::Place, usage::Watched};

impl Confiner {
    /// Gives a worker a group of its own, if that can be had; blocks. All that it starts
    /// afterwards is in it.
    pub(crate) fn enter_group(&self, place: &Place) -> LayerReport {
        let settings = &self.settings;
        if settings.mode == Mode::Off {
            return LayerReport::off(Layer::Cgroup);
        }
        let Place { pid, keeper, group } = place;
        match settings.groups.enter(*pid, *keeper, settings.group_limits) {
            Ok(Some(entered)) => {
                // It is assigned once.
                drop(group.set(entered));
                settings.groups.report()
            }
            Ok(None) => settings.groups.report(),
            Err(error) if Watched::new(*pid).has_ended() => {
                debug!(pid, error = %Report(&error), "a worker has ended before it had a control group");
                LayerReport::degraded(Layer::Cgroup, "it has ended")
            }
            Err(error) => {
                warn!(pid, error = %Report(&error), "a worker gets no control group");
                // The same words for all: each new answer is logged.
                let why = match error {
                    GroupError::Foreign { .. } => "the host does not say which process it is",
                    GroupError::Refused { .. } => "it could not be made; see the server's log",
                };
                LayerReport::degraded(Layer::Cgroup, why)
            }
        }
    }
}

/// Ends what is left in a worker's group, and removes it; blocks.
pub(super) fn end(place: &Place) {
    let Some(group) = place.group.get() else {
        return;
    };
    match group.remove() {
        Ok(()) => debug!(pid = place.pid, "removed a worker's control group"),
        Err(error) => warn!(
            pid = place.pid,
            error = %Report(&error),
            "a worker's control group cannot be removed"
        ),
    }
}
