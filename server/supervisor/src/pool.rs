//! Who owns all workers: carries out what the pool's [`state`] decides.

mod intensity;
mod member;
mod spare;
mod state;

pub(crate) use self::state::WorkerState;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use outrigger_model::{error::Report, shutdown::Gate, trace::Span};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use self::{
    member::{Order, Post},
    spare::SpareTask,
    state::{Action, Event, Pool, Refusal, Retirement, Seat, Ticket, Wanted},
};
use crate::{
    config::Config,
    confinement::Confiner,
    error::{ExitReason, HostError, InvocationError},
    host::HostHandle,
    invocation::{BindingKey, Concluded, Invocation, InvocationId, Plugin, Source, Usage},
    registry::Registry,
    status::{BindingStatus, Deaths, PauseStatus, PoolStatus, RunningStatus, WorkerStatus},
    worker::Spare,
};

/// How often is looked at what becomes due with time: retirement, forks after a failure.
const TICK: Duration = Duration::from_secs(1);

/// An invocation that waits for its turn.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) invocation: Invocation,
    pub(crate) submitted: Instant,
    /// Ends when a worker has it.
    pub(crate) waiting: Span,
    pub(crate) reply: oneshot::Sender<Concluded>,
}

impl Job {
    fn wanted(&self, ticket: Ticket) -> Wanted {
        let pin = match self.plugin.source {
            Source::SingleFile(_) => None,
            Source::Package(_) => Some(self.plugin.revision.as_str().into()),
        };
        Wanted {
            ticket,
            binding: self.plugin.binding.clone(),
            pin,
            workers_max: self.plugin.workers_max.max(1),
            since: self.submitted,
        }
    }

    /// Answers that the plugin did not run.
    fn fail(self, error: InvocationError) {
        let usage = Usage {
            queued: self.submitted.elapsed(),
            ..Usage::default()
        };
        let result = Err(error);
        // Whoever no longer waits has given the result up.
        drop(self.reply.send(Concluded { result, usage }));
    }
}

/// What the pool is told.
#[derive(Debug)]
pub(crate) enum Message {
    Prepare(BindingKey),
    Submit(Job),
    Release(BindingKey),
    Resume(BindingKey),
    Describe(oneshot::Sender<PoolStatus>),
    Forked(Seat, Result<Box<Spare>, HostError>),
    Returned {
        seat: Seat,
        cached_objects: u64,
        memory_bytes: u64,
        loaded: bool,
    },
    /// A worker has ended; `reason` if it was not asked to.
    Ended {
        seat: Seat,
        reason: Option<ExitReason>,
    },
    /// A worker ends, or has ended, and did not begin this.
    Bounced(Seat, Job),
    /// A worker is confined; what became of each layer.
    Confined(Seat, Arc<str>),
    /// A binding is gone for good, and so is what it keeps.
    Forget(BindingKey),
    /// Its private directory was made ahead, or could not be.
    DirectoryMade(BindingKey),
    /// These keep something, all others that do are gone for good.
    ForgetOthers(BTreeSet<BindingKey>),
}

/// Talks to the pool. Each message is somebody waiting, or the end of something that
/// the pool began, so the channel needs no bound.
#[derive(Clone, Debug)]
pub(crate) struct PoolHandle(mpsc::UnboundedSender<Message>);

impl PoolHandle {
    /// Tells the pool; `false` once it has ended.
    pub(crate) fn tell(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }
}

/// Owns the pool.
#[derive(Debug)]
pub(crate) struct PoolTask {
    config: Config,
    host: HostHandle,
    registry: Arc<Registry>,
    confiner: Arc<Confiner>,
    gate: Gate,
    handle: PoolHandle,
    inbox: mpsc::UnboundedReceiver<Message>,
    pool: Pool,
    jobs: HashMap<Ticket, Job>,
    seated: HashMap<Seat, Seated>,
    last_ticket: u64,
    deaths: Deaths,
    forks: u64,
    /// How often something had been installed when this last looked.
    installations: u64,
    /// Whose private directories are being made.
    making: BTreeSet<BindingKey>,
    /// Whose files are to be removed once no worker of theirs is left.
    forgotten: BTreeSet<BindingKey>,
}

/// A worker's task, seen from the pool.
#[derive(Debug)]
struct Seated {
    pid: u32,
    orders: mpsc::Sender<Order>,
    /// What became of each layer of its confinement; `None` while it has none.
    enforcement: Option<Arc<str>>,
    /// What it runs, and since when.
    running: Option<(InvocationId, Instant)>,
}

impl PoolTask {
    pub(crate) fn new(
        config: Config,
        host: HostHandle,
        registry: Arc<Registry>,
        confiner: Arc<Confiner>,
        gate: Gate,
    ) -> (PoolHandle, Self) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let handle = PoolHandle(sender);
        let pool = Pool::new(config.pool.clone());
        let task = Self {
            config,
            host,
            registry,
            confiner,
            gate,
            handle: handle.clone(),
            inbox,
            pool,
            jobs: HashMap::new(),
            seated: HashMap::new(),
            last_ticket: 0,
            deaths: Deaths::default(),
            forks: 0,
            installations: 0,
            making: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        };
        (handle, task)
    }

    /// Runs until the gate closes. The workers' tasks end by themselves then.
    pub(crate) async fn run(mut self) {
        let shutdown = self.gate.token().clone();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(message) = self.inbox.recv() => self.on_message(message),
                _ = ticks.tick() => self.step(Event::Tick),
                () = shutdown.cancelled() => break,
            }
        }
        let stopping = || InvocationError::Host("the server is shutting down".to_owned());
        self.inbox.close();
        while let Some(message) = self.inbox.recv().await {
            if let Message::Submit(job) | Message::Bounced(_, job) = message {
                job.fail(stopping());
            }
        }
        self.jobs.into_values().for_each(|job| job.fail(stopping()));
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Prepare(key) => {
                self.make_directory(key.clone());
                self.step(Event::Prepared(key));
            }
            Message::DirectoryMade(key) => drop(self.making.remove(&key)),
            Message::Submit(job) => {
                let wanted = self.keep(job);
                self.step(Event::Submitted(wanted));
            }
            Message::Release(key) => self.step(Event::Released(key)),
            Message::Resume(key) => self.step(Event::Resumed(key)),
            Message::Describe(reply) => drop(reply.send(self.describe())),
            Message::Forked(seat, Ok(spare)) => self.on_forked(seat, *spare),
            Message::Forked(seat, Err(error)) => self.on_not_forked(seat, &error),
            Message::Returned {
                seat,
                cached_objects,
                memory_bytes,
                loaded,
            } => {
                if let Some(seated) = self.seated.get_mut(&seat) {
                    seated.running = None;
                }
                self.step(Event::Returned {
                    seat,
                    cached_objects,
                    memory_bytes,
                    loaded,
                });
            }
            Message::Ended { seat, reason } => self.on_ended(seat, reason),
            Message::Bounced(seat, job) => {
                if let Some(seated) = self.seated.get_mut(&seat) {
                    seated.running = None;
                }
                let wanted = self.keep(job);
                self.step(Event::Bounced { seat, wanted });
            }
            Message::Confined(seat, enforcement) => {
                if let Some(seated) = self.seated.get_mut(&seat) {
                    seated.enforcement = Some(enforcement);
                }
            }
            Message::Forget(key) => {
                self.forgotten.insert(key);
            }
            Message::ForgetOthers(keep) => {
                let confiner = self.confiner.clone();
                self.in_background(move || confiner.forget_others(&keep));
            }
        }
        self.forget();
    }

    /// Removes the files of bindings that are gone, and whose workers are.
    fn forget(&mut self) {
        if self.forgotten.is_empty() {
            return;
        }
        let owners: BTreeSet<_> = self
            .pool
            .members()
            .filter_map(|(_, member)| member.owner.as_ref())
            .collect();
        let ready: Vec<_> = self
            .forgotten
            .extract_if(.., |key| {
                !owners.contains(key) && !self.making.contains(key)
            })
            .collect();
        for key in ready {
            let confiner = self.confiner.clone();
            self.in_background(move || confiner.forget(&key));
        }
    }

    /// Makes what the binding's first worker would have to wait for.
    fn make_directory(&mut self, key: BindingKey) {
        let (confiner, pool) = (self.confiner.clone(), self.handle.clone());
        if !self.making.insert(key.clone()) {
            return;
        }
        self.in_background(move || {
            confiner.make_kept(&key);
            pool.tell(Message::DirectoryMade(key));
        });
    }

    /// Does something with files.
    fn in_background(&self, work: impl FnOnce() + Send + 'static) {
        self.gate.tasks().spawn_blocking(work);
    }

    fn keep(&mut self, job: Job) -> Wanted {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let wanted = job.wanted(ticket);
        self.jobs.insert(ticket, job);
        wanted
    }

    fn on_forked(&mut self, seat: Seat, spare: Spare) {
        let (orders, inbox) = mpsc::channel(1);
        let (pid, foundations) = (spare.pid(), spare.foundations());
        self.forks += 1;
        let seated = Seated {
            pid,
            orders,
            enforcement: None,
            running: None,
        };
        self.seated.insert(seat, seated);
        let post = Post {
            seat,
            inbox,
            pool: self.handle.clone(),
            registry: self.registry.clone(),
            confiner: self.confiner.clone(),
            config: self.config.clone(),
            tasks: self.gate.tasks().clone(),
        };
        let task = SpareTask { post, spare };
        let shutdown = self.gate.token().clone();
        self.gate.tasks().spawn(task.run(shutdown));
        // A tenth up or down, so that workers that began together don't end together.
        let jitter = rand::random_range(0.9..1.1);
        self.step(Event::Forked {
            seat,
            jitter,
            foundations,
        });
    }

    fn on_not_forked(&mut self, seat: Seat, error: &HostError) {
        let error = Report(error).to_string();
        warn!(error, "cannot start a worker");
        self.deaths.last_fork_error = Some(error);
        self.step(Event::NotForked { seat });
    }

    fn on_ended(&mut self, seat: Seat, reason: Option<ExitReason>) {
        self.seated.remove(&seat);
        if let Some(reason) = &reason {
            self.deaths.count(reason);
        }
        // Whatever ended the host says nothing about the plugin.
        let held_against = reason.filter(ExitReason::is_the_plugins);
        let why = held_against.map(|reason| reason.to_string());
        self.step(Event::Ended { seat, why });
    }

    fn step(&mut self, event: Event) {
        self.look_at_installations();
        for action in self.pool.step(event, Instant::now()) {
            self.carry_out(action);
        }
    }

    fn look_at_installations(&mut self) {
        let installations = self.config.virtual_environment.installations();
        if self.installations == installations {
            return;
        }
        self.installations = installations;
        let foundations = self.config.virtual_environment.foundations();
        let installed = Event::Installed { foundations };
        for action in self.pool.step(installed, Instant::now()) {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Fork(seat) => self.fork(seat),
            Action::Grant { ticket, seat } => self.grant(ticket, seat),
            Action::Retire { seat, why } => self.retire(seat, why),
            Action::Refuse { ticket, why } => self.refuse(ticket, why),
        }
    }

    fn fork(&self, seat: Seat) {
        let (host, config) = (self.host.clone(), self.config.clone());
        let (pool, confiner) = (self.handle.clone(), self.confiner.clone());
        let (shutdown, tasks) = (self.gate.token().clone(), self.gate.tasks().clone());
        self.gate.tasks().spawn(async move {
            let forked = Spare::start(&host, &config, &confiner, &tasks);
            if let Some(result) = shutdown.run_until_cancelled(forked).await {
                // A pool that has ended drops the worker, which kills it.
                pool.tell(Message::Forked(seat, result.map(Box::new)));
            }
        });
    }

    fn grant(&mut self, ticket: Ticket, seat: Seat) {
        let Some(job) = self.jobs.remove(&ticket) else {
            return;
        };
        let running = (job.invocation.id.clone(), Instant::now());
        let order = Order::Run(Box::new(job));
        let sent = match self.seated.get_mut(&seat) {
            Some(seated) => {
                seated.running = Some(running);
                seated.orders.try_send(order)
            }
            None => Err(mpsc::error::TrySendError::Closed(order)),
        };
        // It has just ended; that news is on its way.
        if let Err(error) = sent
            && let Order::Run(job) = error.into_inner()
        {
            self.handle.tell(Message::Bounced(seat, *job));
        }
    }

    fn retire(&self, seat: Seat, why: Retirement) {
        if let Some(seated) = self.seated.get(&seat) {
            let (pid, reason) = (seated.pid, why.to_string());
            info!(pid, reason, "worker retires");
            // One that has ended meanwhile says so itself.
            drop(seated.orders.try_send(Order::Retire));
        }
    }

    fn refuse(&mut self, ticket: Ticket, why: Refusal) {
        let Some(job) = self.jobs.remove(&ticket) else {
            return;
        };
        debug!(binding = %job.plugin.binding, ?why, "an invocation gets no worker");
        job.fail(match why {
            Refusal::Paused(pause) => InvocationError::Paused {
                why: pause.why,
                left: pause.until.saturating_duration_since(Instant::now()),
            },
            Refusal::NotForked => {
                InvocationError::Host(self.deaths.last_fork_error.clone().unwrap_or_default())
            }
            Refusal::Released => InvocationError::Released,
        });
    }

    fn describe(&self) -> PoolStatus {
        let now = Instant::now();
        let running = |seat| {
            let (invocation, since) = self.seated.get(&seat)?.running.clone()?;
            let ago = now.duration_since(since);
            Some(RunningStatus { invocation, ago })
        };
        let workers = self.pool.members().map(|(seat, member)| WorkerStatus {
            pid: self.seated.get(&seat).map_or(0, |seated| seated.pid),
            binding: member.owner.clone(),
            running: running(seat),
            enforcement: self
                .seated
                .get(&seat)
                .and_then(|seated| seated.enforcement.clone()),
            state: (&member.state).into(),
            age: now.duration_since(member.since),
            invocations: member.invocations,
            cached_objects: member.cached_objects,
            memory_bytes: member.memory_bytes,
        });
        let bindings = self.pool.bindings(now).map(|(key, waiting, pause)| {
            let pause = pause.map(|pause| PauseStatus {
                ago: now.duration_since(pause.since),
                left: pause.until.duration_since(now),
                why: pause.why.clone(),
            });
            (key.clone(), BindingStatus { waiting, pause })
        });
        PoolStatus {
            workers: workers.collect(),
            bindings: bindings.collect(),
            deaths: self.deaths.clone(),
            forks: self.forks,
            log_lines_dropped: self.registry.log_lines_dropped.load(Ordering::Relaxed),
        }
    }
}
