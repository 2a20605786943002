use std::collections::BTreeSet;

use super::*;

fn limits(workers_max: usize, spares: usize) -> PoolLimits {
    PoolLimits {
        workers_max,
        spares,
        idle_max: Duration::from_mins(5),
        invocations_max: None,
        age_max: None,
        memory_bytes_max: None,
        fair_turn: Duration::from_secs(5),
    }
}

fn key(name: &str) -> BindingKey {
    BindingKey(name.into())
}

fn forked(seat: Seat) -> Event {
    Event::Forked {
        seat,
        jitter: 1.0,
        foundations: 0,
    }
}

fn wanted(ticket: u64, binding: &str, workers_max: usize) -> Wanted {
    Wanted {
        ticket: Ticket(ticket),
        binding: key(binding),
        pin: None,
        workers_max,
    }
}

/// A pool, and what an owner would know of it: checks everything that must always hold.
#[derive(Clone, Debug)]
struct Model {
    pool: Pool,
    now: Instant,
    forking: BTreeSet<Seat>,
    idle: BTreeSet<Seat>,
    busy: BTreeMap<Seat, (Ticket, BindingKey)>,
    draining: BTreeSet<Seat>,
    waiting: BTreeMap<Ticket, BindingKey>,
    submitted: u64,
    answered: BTreeSet<Ticket>,
}

/// Something that the world may do next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Submit(&'static str, usize),
    Fork(bool),
    Return,
    Die,
    DieIdle,
    Drained,
    Release(&'static str),
    Tick,
}

impl Model {
    fn new(workers_max: usize, spares: usize) -> Self {
        Self {
            pool: Pool::new(limits(workers_max, spares)),
            now: Instant::now(),
            forking: BTreeSet::new(),
            idle: BTreeSet::new(),
            busy: BTreeMap::new(),
            draining: BTreeSet::new(),
            waiting: BTreeMap::new(),
            submitted: 0,
            answered: BTreeSet::new(),
        }
    }

    /// Whether the move can happen now; the event it is.
    fn event(&mut self, step: Move) -> Option<Event> {
        Some(match step {
            Move::Submit(binding, workers_max) => {
                self.submitted += 1;
                let wanted = wanted(self.submitted, binding, workers_max);
                self.waiting.insert(wanted.ticket, wanted.binding.clone());
                Event::Submitted(wanted)
            }
            Move::Fork(true) => {
                let seat = self.forking.pop_first()?;
                self.idle.insert(seat);
                forked(seat)
            }
            Move::Fork(false) => Event::NotForked {
                seat: self.forking.pop_first()?,
            },
            Move::Return => {
                let (seat, (ticket, _)) = self.busy.pop_first()?;
                self.idle.insert(seat);
                self.answer(ticket);
                Event::Returned {
                    seat,
                    cached_objects: 0,
                    memory_bytes: 0,
                }
            }
            Move::Die => {
                let (seat, (ticket, _)) = self.busy.pop_last()?;
                self.answer(ticket);
                let why = Some("SIGSEGV".to_owned());
                Event::Ended { seat, why }
            }
            Move::DieIdle => {
                let seat = self.idle.pop_first()?;
                Event::Ended { seat, why: None }
            }
            Move::Drained => {
                let seat = self.draining.pop_first()?;
                Event::Ended { seat, why: None }
            }
            Move::Release(binding) => Event::Released(key(binding)),
            Move::Tick => {
                self.now += Duration::from_secs(2);
                Event::Tick
            }
        })
    }

    /// Makes the move if it can happen; `false` otherwise.
    fn make(&mut self, step: Move) -> bool {
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
            Action::Fork(seat) => assert!(self.forking.insert(seat), "{seat:?} forked twice"),
            Action::Grant { ticket, seat } => {
                let binding = self.waiting.remove(&ticket);
                let binding = binding.expect("a ticket is granted once, while it waits");
                assert!(self.idle.remove(&seat), "{seat:?} is not idle");
                self.busy.insert(seat, (ticket, binding));
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
        assert_eq!(of(|s| matches!(s, WorkerState::Forking)), self.forking);
        assert_eq!(of(|s| matches!(s, WorkerState::Draining)), self.draining);
        let idle = of(|s| matches!(s, WorkerState::Idle | WorkerState::Bound { .. }));
        assert_eq!(idle, self.idle);
        let busy = of(|s| matches!(s, WorkerState::Busy { .. }));
        assert_eq!(busy, self.busy.keys().copied().collect());
        let queued: BTreeSet<Ticket> = pool
            .bindings
            .values()
            .flat_map(|binding| binding.queue.iter().map(|waiting| waiting.wanted.ticket))
            .collect();
        assert_eq!(queued, self.waiting.keys().copied().collect());
        for (key, binding) in &pool.bindings {
            assert_eq!(binding.queue.is_empty(), !pool.waiting.contains(key));
            for seat in &binding.workers {
                assert_eq!(pool.members[seat].binding.as_ref(), Some(key));
            }
        }
    }

    /// Lets everything go well until nothing waits.
    fn settle(&mut self) {
        for _ in 0..200 {
            if self.waiting.is_empty() && self.busy.is_empty() {
                assert_eq!(self.answered.len() as u64, self.submitted);
                return;
            }
            let moved = [Move::Fork(true), Move::Drained, Move::Return]
                .into_iter()
                .any(|step| self.make(step));
            if !moved {
                self.make(Move::Tick);
            }
        }
        panic!("something waits for ever: {self:?}");
    }
}

const MOVES: [Move; 10] = [
    Move::Submit("a", 1),
    Move::Submit("b", 2),
    Move::Fork(true),
    Move::Fork(false),
    Move::Return,
    Move::Die,
    Move::DieIdle,
    Move::Drained,
    Move::Release("b"),
    Move::Tick,
];

/// All orders of up to six moves, each of them possible at its time, and then everything
/// must come to its end: no invocation is lost, granted twice or answered twice.
#[test]
fn no_order_of_events_loses_or_doubles_a_grant() {
    fn explore(model: &Model, depth: usize, tried: &mut u64) {
        for step in MOVES {
            let mut next = model.clone();
            if !next.make(step) {
                continue;
            }
            *tried += 1;
            if depth > 1 {
                explore(&next, depth - 1, tried);
            } else {
                next.settle();
            }
        }
    }
    let mut tried = 0;
    for (workers_max, spares) in [(1, 0), (2, 1)] {
        explore(&Model::new(workers_max, spares), 5, &mut tried);
    }
    assert!(tried > 5_000, "{tried} orders were tried");
}

#[test]
fn long_random_orders_keep_what_must_hold() {
    use rand::{RngExt as _, SeedableRng as _};
    for seed in 0..200 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut model = Model::new(random.random_range(1..6), random.random_range(0..3));
        for _ in 0..300 {
            model.make(MOVES[random.random_range(0..MOVES.len())]);
        }
        model.settle();
    }
}

#[test]
fn a_synchronous_plugin_has_one_worker_and_keeps_it() {
    let mut model = Model::new(8, 0);
    for _ in 0..3 {
        model.make(Move::Submit("a", 1));
    }
    model.settle();
    assert_eq!(model.pool.members.len(), 1);
    assert_eq!(model.answered.len(), 3);
}

#[test]
fn an_asynchronous_plugin_gets_as_many_as_it_may_have() {
    let mut model = Model::new(8, 0);
    for _ in 0..5 {
        model.make(Move::Submit("b", 2));
    }
    while model.make(Move::Fork(true)) {}
    assert_eq!(model.busy.len(), 2);
    model.settle();
}

#[test]
fn a_spare_is_granted_at_once_and_replaced() {
    let mut pool = Pool::new(limits(8, 1));
    let now = Instant::now();
    let actions = pool.step(Event::Prepared(key("a")), now);
    assert_eq!(actions, [Action::Fork(Seat(1))]);
    let seat = Seat(1);
    assert_eq!(pool.step(forked(seat), now), []);
    let ticket = Ticket(1);
    let actions = pool.step(Event::Submitted(wanted(1, "a", 1)), now);
    let grant = Action::Grant { ticket, seat };
    assert_eq!(actions, [grant, Action::Fork(Seat(2))]);
}

#[test]
fn spares_that_cannot_be_forked_are_tried_less_and_less() {
    let mut pool = Pool::new(limits(8, 1));
    let start = Instant::now();
    pool.step(Event::Prepared(key("a")), start);
    let mut forks = Vec::new();
    let mut forking = Some(Seat(1));
    for second in 1..=300 {
        let now = start + Duration::from_secs(second);
        let mut actions = match forking.take() {
            Some(seat) => pool.step(Event::NotForked { seat }, now),
            None => Vec::new(),
        };
        actions.extend(pool.step(Event::Tick, now));
        for action in actions {
            let Action::Fork(seat) = action else { continue };
            forks.push(second);
            forking = Some(seat);
        }
    }
    assert!((6..12).contains(&forks.len()), "{forks:?}");
    // Somebody who waits does not wait for that.
    let now = start + Duration::from_secs(302);
    let wants = pool.step(Event::Submitted(wanted(1, "a", 1)), now);
    assert!(
        forking.is_some() || matches!(wants[..], [Action::Fork(_)]),
        "{wants:?}"
    );
}

#[test]
fn a_busy_plugin_yields_to_one_without_a_worker() {
    let mut model = Model::new(1, 0);
    model.make(Move::Submit("a", 1));
    model.make(Move::Fork(true));
    model.make(Move::Submit("a", 1));
    model.make(Move::Submit("b", 1));
    // Not before its fair turn is over.
    model.make(Move::Return);
    assert_eq!(model.busy.values().next().unwrap().1, key("a"));
    for _ in 0..3 {
        model.make(Move::Submit("a", 1));
        model.make(Move::Tick);
    }
    model.make(Move::Return);
    assert_eq!(model.draining.len(), 1);
    model.make(Move::Drained);
    model.make(Move::Fork(true));
    assert_eq!(model.busy.values().next().unwrap().1, key("b"));
    model.settle();
}

#[test]
fn another_revision_of_a_package_gets_another_worker() {
    let mut pool = Pool::new(limits(8, 0));
    let now = Instant::now();
    let package = |ticket, revision: &str| {
        let mut wanted = wanted(ticket, "a", 1);
        wanted.pin = Some(revision.into());
        Event::Submitted(wanted)
    };
    pool.step(package(1, "old"), now);
    let seat = Seat(1);
    pool.step(forked(seat), now);
    let returned = Event::Returned {
        seat,
        cached_objects: 0,
        memory_bytes: 0,
    };
    pool.step(returned, now);
    let why = Retirement::SourceChanged;
    let retire = Action::Retire { seat, why };
    assert_eq!(
        pool.step(package(2, "new"), now),
        [retire, Action::Fork(Seat(2))]
    );
}

#[test]
fn a_crash_loop_pauses_its_plugin_and_no_other() {
    let mut model = Model::new(4, 0);
    for _ in 0..6 {
        model.make(Move::Submit("a", 1));
        model.make(Move::Fork(true));
        model.make(Move::Die);
    }
    let refused = model
        .pool
        .step(Event::Submitted(wanted(99, "a", 1)), model.now);
    assert!(
        matches!(&refused[..], [Action::Refuse { why: Refusal::Paused(pause), .. }] if pause.why == "SIGSEGV"),
        "{refused:?}"
    );
    model.make(Move::Submit("b", 1));
    model.make(Move::Fork(true));
    assert_eq!(model.busy.len(), 1);
    model.pool.step(Event::Resumed(key("a")), model.now);
    model.make(Move::Submit("a", 1));
    model.settle();
}

#[test]
fn an_installation_renews_spares_and_what_stands_on_other_foundations() {
    let retired = |seat| Action::Retire {
        seat,
        why: Retirement::Installed,
    };
    let mut pool = Pool::new(limits(8, 1));
    let now = Instant::now();
    pool.step(Event::Submitted(wanted(1, "a", 1)), now);
    pool.step(forked(Seat(1)), now);
    pool.step(forked(Seat(2)), now);
    let installed = |foundations| Event::Installed { foundations };
    // The spare, which is replaced; the busy one stays.
    let actions = pool.step(installed(0), now);
    assert_eq!(actions, [retired(Seat(2)), Action::Fork(Seat(3))]);
    assert_eq!(pool.step(installed(1), now), []);
    let returned = Event::Returned {
        seat: Seat(1),
        cached_objects: 1,
        memory_bytes: 0,
    };
    assert_eq!(pool.step(returned, now), [retired(Seat(1))]);
    // It was begun before the installation.
    let actions = pool.step(forked(Seat(3)), now);
    assert_eq!(actions, [retired(Seat(3)), Action::Fork(Seat(4))]);
}

#[test]
fn an_idle_worker_ends_unless_it_keeps_objects() {
    for (cached_objects, ends) in [(0, true), (1, false)] {
        let mut pool = Pool::new(limits(8, 0));
        let (now, seat) = (Instant::now(), Seat(1));
        pool.step(Event::Submitted(wanted(1, "a", 1)), now);
        pool.step(forked(seat), now);
        let returned = Event::Returned {
            seat,
            cached_objects,
            memory_bytes: 0,
        };
        pool.step(returned, now);
        assert_eq!(pool.step(Event::Tick, now + Duration::from_secs(299)), []);
        let actions = pool.step(Event::Tick, now + Duration::from_secs(301));
        let why = Retirement::Idle;
        let retire = Action::Retire { seat, why };
        assert_eq!(actions, if ends { vec![retire] } else { vec![] });
    }
}

#[test]
fn a_worker_retires_after_enough_invocations_or_memory() {
    for (memory_bytes, why) in [(0, Retirement::Invocations), (1 << 30, Retirement::Memory)] {
        let mut limits = limits(8, 0);
        limits.invocations_max = Some(1);
        limits.memory_bytes_max = Some(1 << 20);
        let (mut pool, now, seat) = (Pool::new(limits), Instant::now(), Seat(1));
        pool.step(Event::Submitted(wanted(1, "a", 1)), now);
        pool.step(forked(seat), now);
        let returned = Event::Returned {
            seat,
            cached_objects: 1,
            memory_bytes,
        };
        assert_eq!(pool.step(returned, now), [Action::Retire { seat, why }]);
    }
}
