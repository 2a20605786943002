//! What the pool does in single cases.

use super::{
    walk::{Model, Move, Returned},
    *,
};

pub(super) fn limits(workers_max: usize, spares: usize) -> PoolLimits {
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

pub(super) fn key(name: &str) -> BindingKey {
    BindingKey(name.into())
}

fn forked(seat: Seat) -> Event {
    Event::Forked {
        seat,
        jitter: 1.0,
        foundations: 0,
    }
}

pub(super) fn wanted(ticket: u64, binding: &str, workers_max: usize) -> Wanted {
    Wanted {
        ticket: Ticket(ticket),
        binding: key(binding),
        pin: None,
        workers_max,
        since: Instant::now(),
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
    model.make(Move::Return(Returned::Plain));
    assert_eq!(model.busy.values().next().unwrap().binding, key("a"));
    for _ in 0..3 {
        model.make(Move::Submit("a", 1));
        model.make(Move::Tick);
    }
    model.make(Move::Return(Returned::Plain));
    assert_eq!(model.draining.len(), 1);
    model.make(Move::Drained(false));
    model.make(Move::Fork(true));
    assert_eq!(model.busy.values().next().unwrap().binding, key("b"));
    model.settle();
}

fn package(ticket: u64, revision: &str) -> Event {
    let mut wanted = wanted(ticket, "a", 1);
    wanted.pin = Some(revision.into());
    Event::Submitted(wanted)
}

fn not_loaded(seat: Seat) -> Event {
    Event::Returned {
        seat,
        cached_objects: 0,
        memory_bytes: 0,
        loaded: false,
    }
}

fn source_changed(seat: Seat) -> Action {
    let why = Retirement::SourceChanged;
    Action::Retire { seat, why }
}

/// A pool whose worker 1 has run a package's earlier revision, and worker 2 has just got the new
/// one.
fn with_a_new_revision(now: Instant) -> Pool {
    let mut pool = Pool::new(limits(8, 0));
    pool.step(package(1, "old"), now);
    pool.step(forked(Seat(1)), now);
    pool.step(returned(Seat(1), 7), now);
    let actions = pool.step(package(2, "new"), now);
    assert_eq!(actions, [Action::Fork(Seat(2))], "the old one stays");
    let (ticket, seat) = (Ticket(2), Seat(2));
    let actions = pool.step(forked(seat), now);
    assert_eq!(actions, [Action::Grant { ticket, seat }]);
    pool
}

#[test]
fn a_packages_worker_ends_once_another_has_loaded_the_new_revision() {
    let now = Instant::now();
    let mut pool = with_a_new_revision(now);
    let actions = pool.step(returned(Seat(2), 0), now);
    assert_eq!(actions, [source_changed(Seat(1))]);
}

#[test]
fn a_packages_worker_goes_on_where_the_new_revision_does_not_load() {
    let now = Instant::now();
    let mut pool = with_a_new_revision(now);
    assert_eq!(pool.step(not_loaded(Seat(2)), now), []);
    let (ticket, seat) = (Ticket(3), Seat(1));
    let actions = pool.step(package(3, "old"), now);
    assert_eq!(actions, [Action::Grant { ticket, seat }]);
    let actions = pool.step(returned(seat, 8), now);
    assert_eq!(actions, [source_changed(Seat(2))]);
}

#[test]
fn a_packages_worker_outlives_the_death_of_the_next() {
    let now = Instant::now();
    let mut pool = with_a_new_revision(now);
    let (seat, why) = (Seat(2), Some("SIGSEGV".to_owned()));
    assert_eq!(pool.step(Event::Ended { seat, why }, now), []);
    let (ticket, seat) = (Ticket(3), Seat(1));
    let actions = pool.step(package(3, "old"), now);
    assert_eq!(actions, [Action::Grant { ticket, seat }]);
}

#[test]
fn of_workers_that_have_never_loaded_one_is_left() {
    let (mut pool, now) = (Pool::new(limits(8, 0)), Instant::now());
    for (n, revision) in [(1, "first"), (2, "second"), (3, "third")] {
        let (ticket, seat) = (Ticket(n), Seat(n));
        assert_eq!(pool.step(package(n, revision), now), [Action::Fork(seat)]);
        let granted = Action::Grant { ticket, seat };
        assert_eq!(pool.step(forked(seat), now), [granted]);
        let earlier = (n > 1).then(|| source_changed(Seat(n - 1)));
        let actions = pool.step(not_loaded(seat), now);
        assert_eq!(actions, Vec::from_iter(earlier));
    }
}

#[test]
fn a_run_of_an_earlier_revision_that_ends_late_is_its_workers_last() {
    let (mut pool, now) = (Pool::new(limits(8, 0)), Instant::now());
    for (n, revision) in [(1, "old"), (2, "new")] {
        let Event::Submitted(mut wanted) = package(n, revision) else {
            unreachable!("it submits");
        };
        wanted.workers_max = 2;
        pool.step(Event::Submitted(wanted), now);
        pool.step(forked(Seat(n)), now);
    }
    assert_eq!(pool.step(returned(Seat(2), 0), now), []);
    let actions = pool.step(returned(Seat(1), 9), now);
    assert_eq!(actions, [source_changed(Seat(1))]);
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
        loaded: true,
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
            loaded: true,
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
            loaded: true,
        };
        assert_eq!(pool.step(returned, now), [Action::Retire { seat, why }]);
    }
}

/// A worker of "a" that was made at this time, lives a hundred seconds, and has run once.
fn aging(jitter: f64, start: Instant) -> (Pool, Seat) {
    let mut limits = limits(8, 0);
    limits.age_max = Some(Duration::from_secs(100));
    let (mut pool, seat) = (Pool::new(limits), Seat(1));
    pool.step(Event::Submitted(wanted(1, "a", 1)), start);
    let forked = Event::Forked {
        seat,
        jitter,
        foundations: 0,
    };
    pool.step(forked, start);
    (pool, seat)
}

fn returned(seat: Seat, cached_objects: u64) -> Event {
    Event::Returned {
        seat,
        cached_objects,
        memory_bytes: 0,
        loaded: true,
    }
}

#[test]
fn an_old_worker_retires_when_it_is_idle_and_never_before() {
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    for (jitter, age) in [(0.9, 90), (1.0, 100), (1.1, 110)] {
        let (mut pool, seat) = aging(jitter, start);
        let retire = Action::Retire {
            seat,
            why: Retirement::Age,
        };
        // Not even what it keeps for its plugin saves it.
        assert_eq!(pool.step(returned(seat, 7), start), []);
        let due = start + age * second;
        assert_eq!(pool.step(Event::Tick, due - second), [], "{jitter}");
        assert_eq!(pool.step(Event::Tick, due + second), [retire], "{jitter}");
    }
}

#[test]
fn an_old_worker_that_is_busy_retires_when_it_returns() {
    let start = Instant::now();
    let (mut pool, seat) = aging(1.0, start);
    let late = start + Duration::from_mins(5);
    assert_eq!(pool.step(Event::Tick, late), []);
    // Who waits for it gets a new one.
    assert_eq!(
        pool.step(Event::Submitted(wanted(2, "a", 1)), late),
        [] as [Action; 0]
    );
    let why = Retirement::Age;
    assert_eq!(
        pool.step(returned(seat, 0), late),
        [Action::Retire { seat, why }, Action::Fork(Seat(2))]
    );
}

#[test]
fn workers_that_began_together_do_not_end_together() {
    let mut limits = limits(8, 0);
    limits.invocations_max = Some(10);
    for (jitter, runs) in [(0.9, 9), (1.0, 10), (1.1, 11)] {
        let (mut pool, now, seat) = (Pool::new(limits.clone()), Instant::now(), Seat(1));
        pool.step(Event::Submitted(wanted(1, "a", 1)), now);
        let forked = Event::Forked {
            seat,
            jitter,
            foundations: 0,
        };
        pool.step(forked, now);
        let mut served = 1;
        while pool.step(returned(seat, 0), now).is_empty() {
            served += 1;
            pool.step(Event::Submitted(wanted(served, "a", 1)), now);
        }
        assert_eq!(served, runs, "{jitter}");
    }
    // Likewise for those that have nothing to do.
    let idle_max = Duration::from_mins(5);
    for jitter in [0.9, 1.1] {
        let (mut pool, now, seat) = (Pool::new(self::limits(8, 0)), Instant::now(), Seat(1));
        pool.step(Event::Submitted(wanted(1, "a", 1)), now);
        let forked = Event::Forked {
            seat,
            jitter,
            foundations: 0,
        };
        pool.step(forked, now);
        pool.step(returned(seat, 0), now);
        let (due, second) = (now + idle_max.mul_f64(jitter), Duration::from_secs(1));
        assert_eq!(pool.step(Event::Tick, due - second), []);
        assert_eq!(pool.step(Event::Tick, due + second).len(), 1);
    }
}

/// A pool in which "a" has as many dead workers as it may, and one that runs something.
fn on_the_brink(start: Instant) -> (Pool, Seat) {
    let mut pool = Pool::new(limits(8, 0));
    for n in 1..=6 {
        pool.step(Event::Submitted(wanted(n, "a", 1)), start);
        pool.step(forked(Seat(n)), start);
        if n < 6 {
            let why = Some("SIGSEGV".to_owned());
            let seat = Seat(n);
            pool.step(Event::Ended { seat, why }, start);
        }
    }
    (pool, Seat(6))
}

fn refused(actions: &[Action]) -> bool {
    let why = |action: &Action| match action {
        Action::Refuse { why, .. } => Some(why.clone()),
        _ => None,
    };
    matches!(
        actions.iter().filter_map(why).collect::<Vec<_>>()[..],
        [Refusal::Paused(_)]
    )
}

#[test]
fn what_comes_back_to_a_paused_plugin_does_not_run() {
    let start = Instant::now();
    let (mut pool, seat) = on_the_brink(start);
    let why = Some("SIGSEGV".to_owned());
    pool.step(Event::Ended { seat, why }, start);
    let wanted = wanted(6, "a", 1);
    let bounced = pool.step(Event::Bounced { seat, wanted }, start);
    assert!(refused(&bounced), "{bounced:?}");
}

#[test]
fn a_death_counts_also_where_its_run_had_come_back() {
    let start = Instant::now();
    let (mut pool, seat) = on_the_brink(start);
    let wanted = wanted(6, "a", 1);
    let bounced = pool.step(Event::Bounced { seat, wanted }, start);
    assert_eq!(bounced, [Action::Fork(Seat(7))]);
    let why = Some("SIGSEGV".to_owned());
    let ended = pool.step(Event::Ended { seat, why }, start);
    assert!(refused(&ended), "{ended:?}");
}

#[test]
fn what_comes_back_keeps_its_place() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let wanted_at = |ticket, binding, since| Wanted {
        since,
        ..wanted(ticket, binding, 1)
    };
    let mut pool = Pool::new(limits(1, 0));
    pool.step(Event::Submitted(wanted_at(1, "a", start)), start);
    pool.step(forked(Seat(1)), start);
    pool.step(Event::Submitted(wanted_at(2, "b", later(1))), later(1));
    // A new ticket, but as old as it is.
    let (seat, again) = (Seat(1), wanted_at(3, "a", start));
    let bounced = Event::Bounced {
        seat,
        wanted: again,
    };
    assert_eq!(pool.step(bounced, later(2)), []);
    let ended = Event::Ended { seat, why: None };
    assert_eq!(pool.step(ended, later(2)), [Action::Fork(Seat(2))]);
    let (ticket, seat) = (Ticket(3), Seat(2));
    assert_eq!(
        pool.step(forked(seat), later(2)),
        [Action::Grant { ticket, seat }]
    );
}
