//! The layers as messages: what a worker is told to apply, and what it says came of it.

use std::os::unix::ffi::OsStrExt;

use outrigger_proto::v1::{
    Confinement, Landlock, LayerReport as Told, PathRule, PortRule, ResourceLimit, SeccompProgram,
    layer_report,
};
use outrigger_sandbox::{LandlockRules, Layer, LayerReport, State, WorkerLayers};

/// How long a reason may be.
const REASON_CHARS_MAX: usize = 200;

/// What the worker is told.
pub(super) fn message(layers: &WorkerLayers) -> Confinement {
    let limit = |(resource, soft, hard): &(u32, u64, u64)| ResourceLimit {
        resource: *resource,
        soft: *soft,
        hard: *hard,
    };
    let seccomp = layers.seccomp.iter().map(|program| SeccompProgram {
        layer: program.layer.name().to_owned(),
        filter: program.filter.clone(),
        flags: program.flags,
        listener: program.has_listener(),
    });
    let required = layers.required.iter().map(|layer| layer.name().to_owned());
    Confinement {
        limits: layers.limits.iter().map(limit).collect(),
        no_new_privileges: layers.no_new_privileges,
        landlock: layers.landlock.as_ref().map(landlock),
        seccomp: seccomp.collect(),
        required: required.collect(),
    }
}

fn landlock(rules: &LandlockRules) -> Landlock {
    let path = |(path, access): &(std::path::PathBuf, u64)| PathRule {
        path: path.as_os_str().as_bytes().to_vec(),
        access: *access,
    };
    let port = |(port, access): &(u16, u64)| PortRule {
        port: (*port).into(),
        access: *access,
    };
    Landlock {
        handled_fs: rules.handled_fs,
        handled_net: rules.handled_net,
        scoped: rules.scoped,
        paths: rules.paths.iter().map(path).collect(),
        ports: rules.ports.iter().map(port).collect(),
    }
}

/// One report for each layer: what the server knew, and what the worker says. What holds in
/// part according to one of them holds in part.
pub(super) fn merge(known: Vec<LayerReport>, told: Vec<Told>) -> Result<Vec<LayerReport>, String> {
    let mut merged = known;
    for report in told {
        let layer = Layer::from_name(&report.name)
            .ok_or_else(|| format!("a report on a layer {:?}", report.name))?;
        let state = match layer_report::State::try_from(report.state) {
            Ok(layer_report::State::Off) => State::Off,
            Ok(layer_report::State::Enforced) => State::Enforced,
            Ok(layer_report::State::Degraded) => State::Degraded(plain(&report.reason)),
            Err(unknown) => return Err(format!("a layer's state {}", unknown.0)),
        };
        match merged.iter_mut().find(|report| report.layer == layer) {
            Some(present) if matches!(state, State::Degraded(_)) => present.state = state,
            Some(_) => {}
            None => merged.push(LayerReport { layer, state }),
        }
    }
    merged.sort_by_key(|report| report.layer);
    Ok(merged)
}

/// What a worker has from its host, and does not report itself.
pub(super) fn inherited(born: &[LayerReport]) -> impl Iterator<Item = LayerReport> {
    let its = Layer::User..=Layer::NetworkNamespace;
    let inherited = move |report: &&LayerReport| its.contains(&report.layer);
    born.iter().filter(inherited).cloned()
}

/// Text that stays on its line.
fn plain(text: &str) -> String {
    let letters = text.chars().take(REASON_CHARS_MAX);
    letters
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use outrigger_sandbox::{Machine, Mode, Policy};

    use super::*;

    fn told(name: &str, state: layer_report::State, reason: &str) -> Told {
        Told {
            name: name.to_owned(),
            state: state.into(),
            reason: reason.to_owned(),
        }
    }

    fn words(reports: &[LayerReport]) -> Vec<String> {
        reports.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_either_side_knows_to_be_missing_is_missing() {
        let known = vec![
            LayerReport::degraded(Layer::Landlock, "version 3"),
            LayerReport::off(Layer::Broker),
        ];
        let told = vec![
            told("seccomp", layer_report::State::Degraded, "a\nb"),
            told("landlock", layer_report::State::Enforced, ""),
            told("limits", layer_report::State::Enforced, ""),
        ];
        let expected = [
            "limits=enforced",
            "landlock=degraded(version 3)",
            "seccomp=degraded(a b)",
            "broker=off",
        ];
        assert_eq!(words(&merge(known, told).unwrap()), expected);
    }

    #[test]
    fn a_layer_that_nobody_knows_is_no_layer() {
        let unknown = told("walls", layer_report::State::Enforced, "");
        assert!(merge(Vec::new(), vec![unknown]).is_err());
        let mut odd = told("landlock", layer_report::State::Enforced, "");
        odd.state = 9;
        assert!(merge(Vec::new(), vec![odd]).is_err());
    }

    #[test]
    fn a_machine_without_anything_still_has_limits() {
        let layers = WorkerLayers::new(&Policy::default(), &Machine::bare(), Mode::Auto);
        let message = message(&layers);
        assert!(message.landlock.is_none() && message.seccomp.is_empty());
        assert!(!message.limits.is_empty() && message.required.is_empty());
        let strict = WorkerLayers::new(&Policy::default(), &Machine::bare(), Mode::Strict);
        assert!(
            super::message(&strict)
                .required
                .contains(&"landlock".to_owned())
        );
    }
}
