//! The supervisor itself: starts the socket and the host, and hands invocations
//! to their bindings.

use std::{collections::HashMap, sync::Arc};

use outrigger_model::shutdown::Gate;
use outrigger_sandbox::Launcher;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{
    backend::Backend,
    binding::{BindingTask, Job},
    config::Config,
    error::{InvocationError, SupervisorError},
    host::{HostHandle, HostTask},
    invocation::{BindingKey, Finished, Invocation, Plugin},
    registry::Registry,
    service,
    worker::Allowance,
};

/// Runs plugins. Clones are handles to the same supervisor.
#[derive(Clone, Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    registry: Arc<Registry>,
    host: HostHandle,
    bindings: Mutex<HashMap<BindingKey, mpsc::Sender<Job>>>,
    gate: Gate,
}

impl Supervisor {
    /// Opens the workers' socket. All tasks run on `gate` and end when it closes.
    pub fn start(
        config: Config,
        backend: Arc<dyn Backend>,
        launcher: Launcher,
        gate: Gate,
    ) -> Result<Self, SupervisorError> {
        let registry = Arc::new(Registry::new(backend));
        let path = config.run_directory.join("supervisor.sock");
        let listener = service::listen(&path)?;
        gate.tasks()
            .spawn(service::serve(listener, registry.clone(), gate.clone()));
        let socket = path.display().to_string();
        let (host, task) = HostTask::new(config.clone(), socket, launcher, gate.tasks().clone());
        gate.tasks().spawn(task.run(gate.token().clone()));
        let bindings = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                registry,
                host,
                bindings,
                gate,
            }),
        })
    }

    /// Runs `invocation` on the worker that `plugin` is bound to; waits behind
    /// earlier invocations of the same binding.
    pub async fn invoke(
        &self,
        plugin: Arc<Plugin>,
        invocation: Invocation,
    ) -> Result<Finished, InvocationError> {
        if self.shared.gate.token().is_cancelled() {
            return Err(InvocationError::Host(
                "the server is shutting down".to_owned(),
            ));
        }
        let (reply, result) = oneshot::channel();
        let key = plugin.binding.clone();
        let sent = self
            .binding(&key)
            .send(Job {
                plugin,
                invocation,
                reply,
            })
            .await;
        let lost = || InvocationError::Host("the binding's task has ended".to_owned());
        let result = match sent {
            Ok(()) => result.await.unwrap_or_else(|_closed| Err(lost())),
            Err(_closed) => Err(lost()),
        };
        if let Err(InvocationError::Host(_)) = &result {
            self.forget_ended(&key);
        }
        result
    }

    /// Lets the next invocation make a new task where the last one has ended.
    fn forget_ended(&self, key: &BindingKey) {
        let mut bindings = self.shared.bindings.lock();
        if bindings.get(key).is_some_and(mpsc::Sender::is_closed) {
            bindings.remove(key);
        }
    }

    /// How often something was installed that plugins can import: what failed for want of
    /// a package is worth another try.
    pub fn installations(&self) -> u64 {
        self.shared.config.virtual_environment.installations()
    }

    /// Ends the binding's worker once it is idle.
    pub fn release(&self, key: &BindingKey) {
        self.shared.bindings.lock().remove(key);
    }

    fn binding(&self, key: &BindingKey) -> mpsc::Sender<Job> {
        let shared = &self.shared;
        let mut bindings = shared.bindings.lock();
        if let Some(binding) = bindings.get(key) {
            return binding.clone();
        }
        let (sender, inbox) = mpsc::channel(1);
        let task = BindingTask {
            key: key.clone(),
            host: shared.host.clone(),
            registry: shared.registry.clone(),
            config: shared.config.clone(),
            inbox,
            worker: None,
            last: None,
            allowance: Allowance::new(),
        };
        shared
            .gate
            .tasks()
            .spawn(task.run(shared.gate.token().clone()));
        bindings.insert(key.clone(), sender.clone());
        sender
    }
}
