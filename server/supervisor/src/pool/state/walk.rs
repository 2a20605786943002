//! Whatever happens, in whatever order: is an invocation lost, or granted or answered twice?

use std::collections::{BTreeMap, BTreeSet};

use super::{
    tests::{key, limits, wanted},
    *,
};

/// A pool, and what an owner would know of it: checks everything that must always hold.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) pool: Pool,
    pub(super) now: Instant,
    /// What is installed.
    foundations: u64,
    /// What each was begun with.
    forking: BTreeMap<Seat, u64>,
    idle: BTreeSet<Seat>,
    pub(super) busy: BTreeMap<Seat, Wanted>,
    pub(super) draining: BTreeSet<Seat>,
    /// What a worker had not begun that has ended; the pool does not know it yet.
    flying: Vec<(Seat, Wanted)>,
    waiting: BTreeMap<Ticket, Wanted>,
    submitted: u64,
    pub(super) answered: BTreeSet<Ticket>,
}

/// Something that the world may do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Submit(&'static str, usize),
    /// A package's revision.
    SubmitPinned(&'static str, &'static str),
    Prepare(&'static str),
    Fork(bool),
    Return(Returned),
    Die,
    /// Whether that is held against its plugin.
    DieIdle(bool),
    /// A worker that is ending gives back what it was granted.
    Bounce,
    /// A worker ends that has not begun what it was granted.
    EndBefore,
    /// What it was granted comes back after that.
    Land,
    /// Whether it had died by itself.
    Drained(bool),
    Release(&'static str),
    Resume(&'static str),
    Install,
    Tick,
}

/// How a worker returns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Returned {
    Plain,
    Caching,
    /// With more memory than it may have.
    Full,
    /// Without its plugin, which does not load.
    Broken,
}

impl Returned {
    fn event(self, seat: Seat) -> Event {
        Event::Returned {
            seat,
            cached_objects: matches!(self, Self::Caching).into(),
            memory_bytes: if matches!(self, Self::Full) { 1000 } else { 0 },
            loaded: !matches!(self, Self::Broken),
        }
    }
}

impl Model {
    pub(super) fn new(workers_max: usize, spares: usize) -> Self {
        let mut limits = limits(workers_max, spares);
        limits.memory_bytes_max = Some(100);
        limits.idle_max = Duration::from_secs(3);
        Self {
            pool: Pool::new(limits),
            now: Instant::now(),
            foundations: 0,
            forking: BTreeMap::new(),
            idle: BTreeSet::new(),
            busy: BTreeMap::new(),
            draining: BTreeSet::new(),
            flying: Vec::new(),
            waiting: BTreeMap::new(),
            submitted: 0,
            answered: BTreeSet::new(),
        }
    }

    /// One whose "a" may not die once more.
    fn on_the_brink(workers_max: usize, spares: usize) -> Self {
        let mut model = Self::new(workers_max, spares);
        for _ in 0..5 {
            model.make(Move::Submit("a", 1));
            while model.busy.is_empty() {
                assert!(model.make(Move::Fork(true)));
            }
            model.make(Move::Die);
        }
        model
    }

    fn submit(&mut self, binding: &str, workers_max: usize, pin: Pin) -> Event {
        self.submitted += 1;
        let wanted = Wanted {
            pin,
            since: self.now,
            ..wanted(self.submitted, binding, workers_max)
        };
        self.waiting.insert(wanted.ticket, wanted.clone());
        Event::Submitted(wanted)
    }

    /// Whether the move can happen now; the event it is.
    fn event(&mut self, step: Move) -> Option<Event> {
        let dead = || Some("SIGSEGV".to_owned());
        Some(match step {
            Move::Submit(binding, workers_max) => self.submit(binding, workers_max, None),
            Move::SubmitPinned(binding, pin) => self.submit(binding, 1, Some(pin.into())),
            Move::Prepare(binding) => Event::Prepared(key(binding)),
            Move::Fork(true) => {
                let (seat, foundations) = self.forking.pop_first()?;
                self.idle.insert(seat);
                Event::Forked {
                    seat,
                    jitter: 1.0,
                    foundations,
                }
            }
            Move::Fork(false) => Event::NotForked {
                seat: self.forking.pop_first()?.0,
            },
            Move::Return(returned) => {
                let (seat, Wanted { ticket, .. }) = self.busy.pop_first()?;
                self.idle.insert(seat);
                self.answer(ticket);
                returned.event(seat)
            }
            Move::Die => {
                let (seat, Wanted { ticket, .. }) = self.busy.pop_last()?;
                self.answer(ticket);
                Event::Ended { seat, why: dead() }
            }
            Move::DieIdle(held) => Event::Ended {
                seat: self.idle.pop_first()?,
                why: dead().filter(|_| held),
            },
            Move::Bounce => {
                let (seat, wanted) = self.busy.pop_first()?;
                self.draining.insert(seat);
                self.waiting.insert(wanted.ticket, wanted.clone());
                Event::Bounced { seat, wanted }
            }
            Move::EndBefore => {
                let (seat, wanted) = self.busy.pop_first()?;
                self.flying.push((seat, wanted));
                Event::Ended { seat, why: dead() }
            }
            Move::Land => {
                let (seat, wanted) = self.flying.pop()?;
                self.waiting.insert(wanted.ticket, wanted.clone());
                Event::Bounced { seat, wanted }
            }
            Move::Drained(died) => Event::Ended {
                seat: self.draining.pop_first()?,
                why: dead().filter(|_| died),
            },
            Move::Release(binding) => Event::Released(key(binding)),
            Move::Resume(binding) => Event::Resumed(key(binding)),
            Move::Install => {
                self.foundations += 1;
                let foundations = self.foundations;
                Event::Installed { foundations }
            }
            Move::Tick => {
                self.now += Duration::from_secs(2);
                Event::Tick
            }
        })
    }

    /// Makes the move if it can happen; `false` otherwise.
    pub(super) fn make(&mut self, step: Move) -> bool {
        let Some(event) = self.event(step) else {
            return false;
        };
        for action in self.pool.step(event, self.now) {
            self.on_action(action);
        }
        self.check();
        true
    }

    fn on_action(&mut self, action: Action) {
        match action {
            Action::Fork(seat) => {
                let other = self.forking.insert(seat, self.foundations);
                assert_eq!(other, None, "{seat:?} forked twice");
            }
            Action::Grant { ticket, seat } => {
                let wanted = self.waiting.remove(&ticket);
                let wanted = wanted.expect("a ticket is granted once, while it waits");
                assert!(self.idle.remove(&seat), "{seat:?} is not idle");
                let member = &self.pool.members[&seat];
                assert_eq!(member.binding.as_ref(), Some(&wanted.binding));
                assert_eq!(member.pin, wanted.pin, "it has another source");
                assert_eq!(member.foundations, self.foundations, "it is outdated");
                self.busy.insert(seat, wanted);
            }
            Action::Retire { seat, .. } => {
                assert!(self.idle.remove(&seat), "{seat:?} is not idle");
                self.draining.insert(seat);
            }
            Action::Refuse { ticket, .. } => {
                assert!(self.waiting.remove(&ticket).is_some(), "{ticket:?}");
                self.answer(ticket);
            }
        }
    }

    fn answer(&mut self, ticket: Ticket) {
        assert!(self.answered.insert(ticket), "{ticket:?} answered twice");
    }

    fn check(&self) {
        let pool = &self.pool;
        assert!(pool.members.len() <= pool.limits.workers_max);
        let of = |state: fn(&WorkerState) -> bool| -> BTreeSet<Seat> {
            let members = pool.members.iter();
            let found = members.filter(|(_, member)| state(&member.state));
            found.map(|(seat, _)| *seat).collect()
        };
        let forking = self.forking.keys().copied().collect();
        assert_eq!(of(|s| matches!(s, WorkerState::Forking)), forking);
        assert_eq!(of(|s| matches!(s, WorkerState::Draining)), self.draining);
        let idle = of(|s| matches!(s, WorkerState::Idle | WorkerState::Bound { .. }));
        assert_eq!(idle, self.idle);
        let busy = of(|s| matches!(s, WorkerState::Busy { .. }));
        assert_eq!(busy, self.busy.keys().copied().collect());
        let queues = pool.bindings.values().map(|binding| &binding.queue);
        let queued: BTreeSet<Ticket> = queues.flatten().map(|wanted| wanted.ticket).collect();
        assert_eq!(queued, self.waiting.keys().copied().collect());
        for (key, binding) in &pool.bindings {
            let queue = &binding.queue;
            assert_eq!(queue.is_empty(), !pool.waiting.contains(key));
            assert!(queue.iter().is_sorted_by_key(|wanted| wanted.since));
            let is_paused = binding.intensity.pause(self.now).is_some();
            assert!(queue.is_empty() || !is_paused, "{key} pauses");
            for seat in &binding.workers {
                assert_eq!(pool.members[seat].binding.as_ref(), Some(key));
            }
            // Those of before a release do not count.
            let busy = |seat: &&Seat| self.busy.contains_key(seat);
            let busy = binding.workers.iter().filter(busy);
            let most = if *key == tests::key("b") { 2 } else { 1 };
            assert!(busy.count() <= most, "{key} has more than its share");
        }
    }

    /// Lets everything go well until nothing waits.
    pub(super) fn settle(&mut self) {
        for _ in 0..2000 {
            if self.waiting.is_empty() && self.busy.is_empty() && self.flying.is_empty() {
                assert_eq!(self.answered.len() as u64, self.submitted);
                return;
            }
            let moved = [
                Move::Fork(true),
                Move::Drained(false),
                Move::Return(Returned::Plain),
                Move::Land,
            ]
            .into_iter()
            .any(|step| self.make(step));
            if !moved {
                self.make(Move::Tick);
            }
        }
        panic!("something waits for ever: {self:?}");
    }
}

/// What happens to leases.
const LEASES: [Move; 13] = [
    Move::Submit("a", 1),
    Move::Submit("b", 2),
    Move::Fork(true),
    Move::Fork(false),
    Move::Return(Returned::Plain),
    Move::Die,
    Move::DieIdle(false),
    Move::Bounce,
    Move::EndBefore,
    Move::Land,
    Move::Drained(false),
    Move::Release("b"),
    Move::Tick,
];

/// What else happens.
const REST: [Move; 11] = [
    Move::SubmitPinned("p", "1"),
    Move::SubmitPinned("p", "2"),
    Move::Prepare("c"),
    Move::Return(Returned::Caching),
    Move::Return(Returned::Full),
    Move::Return(Returned::Broken),
    Move::DieIdle(true),
    Move::Drained(true),
    Move::Release("a"),
    Move::Resume("a"),
    Move::Install,
];

/// Tries all orders of so many of these moves, each of them possible at its time. Then
/// everything must come to its end.
fn explore(model: &Model, moves: &[Move], length: usize, tried: &mut u64) {
    for step in moves {
        let mut next = model.clone();
        if !next.make(*step) {
            continue;
        }
        *tried += 1;
        if length > 1 {
            explore(&next, moves, length - 1, tried);
        } else {
            next.settle();
        }
    }
}

const LIMITS: [(usize, usize); 2] = [(1, 0), (2, 1)];

#[test]
fn no_order_of_events_loses_or_doubles_a_grant() {
    let mut tried = 0;
    for (workers_max, spares) in LIMITS {
        explore(&Model::new(workers_max, spares), &LEASES, 6, &mut tried);
    }
    assert!(tried > 30_000, "{tried} orders were tried");
}

#[test]
fn no_order_of_all_events_does_either() {
    let all = [&LEASES[..], &REST].concat();
    let mut tried = 0;
    for (workers_max, spares) in LIMITS {
        explore(&Model::new(workers_max, spares), &all, 4, &mut tried);
        let brink = Model::on_the_brink(workers_max, spares);
        explore(&brink, &all, 4, &mut tried);
    }
    assert!(tried > 50_000, "{tried} orders were tried");
}

#[test]
fn long_random_orders_keep_what_must_hold() {
    use rand::{RngExt as _, SeedableRng as _};
    let all = [&LEASES[..], &REST].concat();
    for seed in 0..300 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut model = Model::new(random.random_range(1..6), random.random_range(0..3));
        for _ in 0..300 {
            model.make(all[random.random_range(0..all.len())]);
        }
        model.settle();
    }
}
