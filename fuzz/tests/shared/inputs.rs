//! Which inputs a target is tried with: the same ones in every `cargo test`, so that it fails today
//! if it fails tomorrow; others, for as long as is asked for, in `make fuzz`.

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use bolero::{
    TypeGenerator,
    generator::bolero_generator::driver::{ByteSliceDriver, Options},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What `make fuzz` sets, and bolero reads.
const OPEN_ENDED: &str = "BOLERO_RANDOM_TEST_TIME_MS";

/// From so many random bytes an input is made.
const BYTES: usize = 4096;

pub(crate) fn is_open_ended() -> bool {
    std::env::var_os(OPEN_ENDED).is_some()
}

/// Tries a target with the same inputs each time.
#[expect(
    clippy::print_stdout,
    reason = "the test runner shows it with the failure"
)]
pub(crate) fn try_the_same<T: TypeGenerator + Debug>(count: u64, target: impl Fn(&T)) {
    let options = Options::default();
    for seed in 0..count {
        let mut bytes = vec![0; BYTES];
        StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
        let mut driver = ByteSliceDriver::new(&bytes, &options);
        let Some(input) = T::generate(&mut driver) else {
            continue;
        };
        let tried = catch_unwind(AssertUnwindSafe(|| target(&input)));
        if let Err(panic) = tried {
            println!("the input of seed {seed} was: {input:?}");
            resume_unwind(panic);
        }
    }
}

/// Tries a target: under `cargo test` with so many inputs of a type.
macro_rules! try_inputs {
    ($count:expr, $type:ty, $target:expr) => {
        if crate::inputs::is_open_ended() {
            bolero::check!().with_type::<$type>().for_each($target);
        } else {
            crate::inputs::try_the_same::<$type>($count, $target);
        }
    };
}

pub(crate) use try_inputs;
