//! How often a plugin's workers may die before it has to pause: restart intensity and
//! back-off, after Erlang/OTP's supervisors.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How many deaths within [`WINDOW`] are too many: one more than this.
const DEATHS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_mins(1);
/// The first pause; every further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Why, since when and until when a plugin is not run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Pause {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
    /// What ended the last worker.
    pub(crate) why: String,
}

/// The recent deaths of one plugin's workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intensity {
    deaths: VecDeque<Instant>,
    /// How many pauses there were since it last did well.
    pauses: u32,
    pause: Option<Pause>,
}

impl Intensity {
    /// A worker died. More deaths than are allowed begin a pause, and after a pause
    /// the first one does.
    pub(crate) fn on_death(&mut self, now: Instant, why: String) {
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|death| now.duration_since(*death) > WINDOW)
        {
            self.deaths.pop_front();
        }
        if self.deaths.len() <= DEATHS_MAX && self.pauses == 0 {
            return;
        }
        let length = PAUSE_FIRST
            .saturating_mul(1 << self.pauses.min(16))
            .min(PAUSE_MAX);
        self.pauses += 1;
        self.deaths.clear();
        self.pause = Some(Pause {
            since: now,
            until: now + length,
            why,
        });
    }

    /// An invocation left its worker alive.
    pub(crate) fn on_survival(&mut self) {
        self.pauses = 0;
    }

    /// The pause that holds now.
    pub(crate) fn pause(&self, now: Instant) -> Option<&Pause> {
        self.pause.as_ref().filter(|pause| now < pause.until)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_deaths_begin_pauses_that_grow() {
        let (mut intensity, start) = (Intensity::default(), Instant::now());
        for death in 0..5 {
            intensity.on_death(start + Duration::from_secs(death), String::new());
        }
        let now = start + Duration::from_secs(5);
        assert_eq!(intensity.pause(now), None);
        intensity.on_death(now, "SIGSEGV".to_owned());
        let pause = intensity.pause(now).unwrap().clone();
        assert_eq!((pause.since, pause.until), (now, now + PAUSE_FIRST));
        assert_eq!(pause.why, "SIGSEGV");
        assert_eq!(intensity.pause(pause.until), None);

        // The first death after it is enough for the next one.
        intensity.on_death(pause.until, String::new());
        let next = intensity.pause(pause.until).unwrap().clone();
        assert_eq!(next.until - next.since, 2 * PAUSE_FIRST);

        intensity.on_survival();
        intensity.on_death(next.until, String::new());
        assert_eq!(intensity.pause(next.until), None);
    }

    #[test]
    fn rare_deaths_are_borne() {
        let (mut intensity, start) = (Intensity::default(), Instant::now());
        for death in 0..100 {
            let now = start + Duration::from_secs(13 * death);
            intensity.on_death(now, String::new());
            assert_eq!(intensity.pause(now), None);
        }
    }

    #[test]
    fn pauses_have_a_limit_and_can_be_ended() {
        let (mut intensity, mut now) = (Intensity::default(), Instant::now());
        for _ in 0..100 {
            intensity.on_death(now, String::new());
            now = intensity.pause(now).map_or(now, |pause| pause.until);
        }
        intensity.on_death(now, String::new());
        assert_eq!(intensity.pause(now).unwrap().until, now + PAUSE_MAX);
        intensity.clear();
        assert_eq!(intensity.pause(now), None);
    }
}
