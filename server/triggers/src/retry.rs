//! How long to wait before trying again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_mins(1);

/// The pause after failed attempt `attempt` (1 is the first): doubles from a second to a
/// minute, and is shortened by up to a half at random, so that triggers that failed
/// together don't come back together.
pub(crate) fn pause(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let full = FIRST.saturating_mul(1 << doublings).min(MOST);
    full.mul_f64(1.0 - 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        for (attempt, seconds) in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (u32::MAX, 60.0)] {
            let pause = pause(attempt).as_secs_f64();
            assert!(
                (seconds / 2.0..=seconds).contains(&pause),
                "{attempt}: {pause}"
            );
        }
    }
}
