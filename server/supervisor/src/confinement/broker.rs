//! Who makes a worker's connections? The server does, after looking at the address: here what
//! the sandbox's broker does meets the worker's log and the workers' socket.

use std::os::fd::OwnedFd;

use outrigger_model::{
    clock::{Clock, SystemClock},
    error::Report,
};
use outrigger_sandbox::{Broker, BrokerEvent, ConnectRules, Refusal, RefusalReason};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{host::OutputLine, service::Entrance};

/// What a broker needs.
#[derive(Debug)]
pub(crate) struct Brokerage {
    /// What the worker may connect to.
    pub(crate) rules: ConnectRules,
    /// Where connections to the server itself go.
    pub(crate) entrance: Entrance,
    /// The worker's output, among which refusals stand.
    pub(crate) output: mpsc::WeakSender<OutputLine>,
}

impl Brokerage {
    /// Makes the connections of the worker with this process id until it has ended.
    pub(crate) async fn run(self, pid: u32, listener: OwnedFd) {
        let Self {
            rules,
            entrance,
            output,
        } = self;
        let clock = SystemClock::default();
        let served = match Broker::new(listener, rules) {
            Ok(broker) => {
                let on = |event| match event {
                    BrokerEvent::Own { process, stream } => entrance.admit(process, stream),
                    BrokerEvent::Refused(refusal) => tell(&output, &refusal, clock),
                };
                broker.serve(on).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            // From here on the worker's connections fail.
            warn!(pid, error = %Report(&error), "a worker's connections cannot be made");
        }
    }
}

/// Logs a refusal as if the worker had said it: its log has the bounds that this needs, too.
fn tell(output: &mpsc::WeakSender<OutputLine>, refusal: &Refusal, clock: SystemClock) {
    // Without the other end the worker has ended.
    let Some(output) = output.upgrade() else {
        return;
    };
    let line = OutputLine {
        stderr: true,
        text: format!("the connection to {refusal}{}", remedy(refusal)),
        time: clock.now(),
        dropped: 0,
    };
    // Where so much waits to be logged already, a refusal more or less tells nothing new.
    drop(output.try_send(line));
}

fn remedy(refusal: &Refusal) -> String {
    let target = refusal.target.strip_prefix("tcp ");
    match (refusal.reason, target) {
        (RefusalReason::UnixSocket, _) => String::new(),
        (RefusalReason::LinkLocal | RefusalReason::NotListed, Some(target)) => {
            format!("; to grant it, add {target} to the trigger's --network")
        }
        (RefusalReason::NoNetwork, Some(target)) => {
            format!(
                "; to grant it, create the trigger with --network outbound or --network {target}"
            )
        }
        (_, None) => "; to grant it, add it with its port to the trigger's --network".to_owned(),
    }
}
