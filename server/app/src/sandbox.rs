//! Does the sandbox hold on this machine as it must?

use std::io;

use outrigger_sandbox::{Machine, Mode, NotStrict, Tier, Trial};
use tracing::{info, warn};

/// Why plugins may not run here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// The process that tries it out has failed.
    #[error("try out what would confine plugins; --sandbox off runs them unconfined")]
    Trial(#[source] io::Error),
    /// A layer does not hold.
    #[error(transparent)]
    NotStrict(#[from] NotStrict),
}

/// Tries it out, and says what holds. Blocks for some milliseconds.
///
/// # Errors
/// In strict mode, if what must hold does not.
pub(crate) fn check(mode: Mode, machine: &Machine) -> Result<(), SandboxError> {
    if mode == Mode::Off {
        warn!(
            "plugins are not confined (--sandbox off): they may do whatever this server's user may"
        );
        return Ok(());
    }
    let trial = match (Trial::run(machine), mode) {
        (Ok(trial), _) => trial,
        (Err(error), Mode::Strict) => return Err(SandboxError::Trial(error)),
        (Err(error), _) => {
            warn!(%error, "what confines plugins could not be tried out");
            return Ok(());
        }
    };
    let tier = trial.tier().name();
    if mode == Mode::Strict {
        trial.strict()?;
    }
    if trial.tier() >= Tier::STRICT {
        info!(tier, "plugins are confined");
        return Ok(());
    }
    let broken = trial.attempts.iter().find(|attempt| !attempt.holds());
    let first = broken.map_or("", |attempt| attempt.what.as_str());
    warn!(
        tier,
        first, "plugins are confined in part: `influxdb3 show sandbox` says what does not hold"
    );
    Ok(())
}
