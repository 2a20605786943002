//! Thousands of random operations on several databases, and what SQL says of them, against plain
//! maps: writes that replace parts of points, new columns, conflicts of types, deletions, retention,
//! restarts in order and by a kill, while snapshots are made and files are joined.
//!
//! Each run tries the same seeds; `MODEL_SEED=17` begins with another one, `MODEL_OPERATIONS=1000`
//! makes each longer or shorter.

mod lines;
mod questions;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use self::world::World;

/// Each seed is a life of a server.
const SEEDS: u64 = 8;
const OPERATIONS: usize = 1260;

#[expect(
    clippy::disallowed_methods,
    reason = "how to repeat a failure is not the server's configuration"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_every_query_answers_as_plain_maps_would() {
    let first = setting("MODEL_SEED").unwrap_or(0);
    let operations = setting("MODEL_OPERATIONS").and_then(|number| usize::try_from(number).ok());
    let operations = operations.unwrap_or(OPERATIONS);
    let (next, done, compared) = (
        AtomicU64::new(first),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let threads = thread::available_parallelism().map_or(1, |count| count.get().min(4));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let seeds = || Some(next.fetch_add(1, Ordering::Relaxed));
                for seed in std::iter::from_fn(seeds).take_while(|seed| *seed < first + SEEDS) {
                    let world = live(seed, operations);
                    done.fetch_add(world.operations, Ordering::Relaxed);
                    compared.fetch_add(world.comparisons, Ordering::Relaxed);
                }
            });
        }
    });
    let (done, compared) = (done.into_inner(), compared.into_inner());
    println!("{done} operations, {compared} comparisons");
    assert!(
        compared > done / 8,
        "{compared} comparisons of {done} operations"
    );
}

/// One life; a failure names its seed.
fn live(seed: u64, operations: usize) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(seed).await;
            for _ in 0..operations {
                world.step().await;
            }
            world.end().await;
            world
        })
    }));
    lived.unwrap_or_else(|panic| {
        println!("the same again: MODEL_SEED={seed} MODEL_OPERATIONS={operations}");
        resume_unwind(panic)
    })
}
