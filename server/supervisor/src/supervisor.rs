//! The supervisor itself: starts the socket, the host and the pool, and is how the
//! server talks to them.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use outrigger_model::shutdown::Gate;
use outrigger_sandbox::Launcher;
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use crate::{
    backend::Backend,
    config::Config,
    confinement::{Confiner, of_workers},
    environment::VirtualEnvironment,
    error::{InvocationError, SupervisorError},
    host::HostTask,
    invocation::{BindingKey, Concluded, Invocation, Plugin, Usage},
    pool::{Job, Message, PoolHandle, PoolTask},
    registry::Registry,
    service,
    status::PoolStatus,
};

/// Runs plugins. Clones are handles to the same supervisor.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pool: PoolHandle,
    virtual_environment: VirtualEnvironment,
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
        let (arrivals, entrance) = service::listen(&config.socket())?;
        let workers_max = config.pool.workers_max;
        let served = service::serve(arrivals, registry.clone(), workers_max, gate.clone());
        gate.tasks().spawn(served);
        let user = of_workers(&config);
        let tasks = gate.tasks().clone();
        let (host, task) = HostTask::new(config.clone(), launcher, tasks, user.clone());
        gate.tasks().spawn(task.run(gate.token().clone()));
        let virtual_environment = config.virtual_environment.clone();
        let confiner = confiner(&config, entrance, &user)?;
        let run = confiner.clone().run(gate.token().clone());
        gate.tasks().spawn(run);
        let (pool, task) = PoolTask::new(config, host, registry, confiner, gate.clone());
        gate.tasks().spawn(task.run());
        Ok(Self {
            pool,
            virtual_environment,
        })
    }

    /// How often something was installed that plugins can import: what failed for want of
    /// a package is worth another try.
    pub fn installations(&self) -> u64 {
        self.virtual_environment.installations()
    }

    /// Says that a binding will have invocations, so that a warm worker waits for the first.
    pub fn prepare(&self, key: BindingKey) {
        self.pool.tell(Message::Prepare(key));
    }

    /// Runs `invocation` on a worker of `plugin`'s binding; waits behind earlier
    /// invocations of the binding, and for a worker.
    pub async fn invoke(&self, plugin: Arc<Plugin>, invocation: Invocation) -> Concluded {
        let submitted = Instant::now();
        let (reply, concluded) = oneshot::channel();
        let job = Job {
            plugin,
            waiting: invocation.trace.child("wait for a worker"),
            invocation,
            submitted,
            reply,
        };
        self.pool.tell(Message::Submit(job));
        // A job is only dropped unanswered when the pool has ended.
        concluded
            .await
            .unwrap_or_else(|_closed| stopped(submitted.elapsed()))
    }

    /// Ends the binding's workers once they are idle; what waits for one is refused.
    pub fn release(&self, key: &BindingKey) {
        self.pool.tell(Message::Release(key.clone()));
    }

    /// Removes what a released binding has kept, once its workers have ended: it is gone for good.
    pub fn forget(&self, key: BindingKey) {
        self.pool.tell(Message::Forget(key));
    }

    /// Removes what bindings have kept that are not among these: they are gone for good.
    pub fn forget_others(&self, keep: BTreeSet<BindingKey>) {
        self.pool.tell(Message::ForgetOthers(keep));
    }

    /// Ends the pause of a binding whose workers died too often.
    pub fn resume(&self, key: &BindingKey) {
        self.pool.tell(Message::Resume(key.clone()));
    }

    /// What the pool does now.
    pub async fn status(&self) -> PoolStatus {
        let (reply, status) = oneshot::channel();
        self.pool.tell(Message::Describe(reply));
        status.await.unwrap_or_default()
    }
}

fn confiner(
    config: &Config,
    entrance: service::Entrance,
    user: &Result<u32, String>,
) -> Result<Arc<Confiner>, SupervisorError> {
    if user.is_ok() {
        // Workers go through it to their own directories; nothing else in it is open to them.
        let passable = Permissions::from_mode(0o711);
        let passed = fs::set_permissions(&config.run_directory, passable);
        passed.map_err(|source| SupervisorError::Private {
            kept: config.run_directory.clone(),
            source,
        })?;
    }
    let confiner = Confiner::new(
        config.confinement.clone(),
        config.socket(),
        config.directory.clone(),
        &config.temporary(),
        entrance,
        user.as_ref().ok().copied(),
    );
    let kept = &config.confinement.kept;
    let confiner = confiner.map_err(|source| SupervisorError::Private {
        kept: kept.clone(),
        source,
    })?;
    Ok(Arc::new(confiner))
}

fn stopped(queued: Duration) -> Concluded {
    let usage = Usage {
        queued,
        ..Usage::default()
    };
    Concluded {
        result: Err(InvocationError::Host(
            "the server is shutting down".to_owned(),
        )),
        usage,
    }
}
