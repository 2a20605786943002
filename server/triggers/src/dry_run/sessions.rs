//! Which workers of dry runs stay, so that a plugin's cache outlives one dry run: one for
//! each plugin, database and cache name, until it has not been used for a while.

use std::{collections::HashMap, time::Duration};

use outrigger_supervisor::BindingKey;
use tokio::time::Instant;

/// What the bindings of dry runs begin with.
const PREFIX: &str = "dry-run-";

/// How long a worker stays after its last dry run.
const UNUSED_MAX: Duration = Duration::from_mins(30);
/// How many workers stay; more than dry runs can go on at a time.
pub(super) const SESSIONS_MAX: usize = 16;

/// Whether a worker belongs to dry runs.
pub(crate) fn is_dry_run(binding: &BindingKey) -> bool {
    binding.0.starts_with(PREFIX)
}

/// Dry runs that agree in this share a worker.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct SessionKey {
    pub(super) database: String,
    pub(super) plugin: String,
    pub(super) cache_name: String,
}

#[derive(Debug)]
struct Session {
    binding: BindingKey,
    users: usize,
    last_used: Instant,
}

/// The sessions that there are.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<SessionKey, Session>,
    /// Counts all that there were, so that no two have the same binding.
    started: u64,
}

impl Sessions {
    /// The binding for a dry run, and one to release that has to make room for it.
    pub(super) fn join(
        &mut self,
        key: SessionKey,
        now: Instant,
    ) -> (BindingKey, Option<BindingKey>) {
        let mut released = None;
        if !self.sessions.contains_key(&key) && self.sessions.len() >= SESSIONS_MAX {
            let unused = self
                .sessions
                .iter()
                .filter(|(_, session)| session.users == 0);
            let oldest = unused.min_by_key(|(_, session)| session.last_used);
            let oldest = oldest.map(|(key, _)| key.clone());
            released = oldest.and_then(|key| self.sessions.remove(&key));
        }
        let started = &mut self.started;
        let session = self.sessions.entry(key).or_insert_with(|| {
            *started += 1;
            Session {
                binding: BindingKey(format!("{PREFIX}{started}").into()),
                users: 0,
                last_used: now,
            }
        });
        session.users += 1;
        let released = released.map(|session| session.binding);
        (session.binding.clone(), released)
    }

    /// A dry run is over.
    pub(super) fn leave(&mut self, key: &SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.users = session.users.saturating_sub(1);
            session.last_used = now;
        }
    }

    /// Forgets what was not used for long, and returns the bindings to release.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<BindingKey> {
        let expired = |_: &SessionKey, session: &mut Session| {
            session.users == 0 && now.duration_since(session.last_used) >= UNUSED_MAX
        };
        let expired = self.sessions.extract_if(expired);
        expired.map(|(_, session)| session.binding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(plugin: &str) -> SessionKey {
        SessionKey {
            database: "db".to_owned(),
            plugin: plugin.to_owned(),
            cache_name: "_shared_test".to_owned(),
        }
    }

    #[test]
    fn a_session_is_shared_until_it_was_not_used_for_long() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let (first, _) = sessions.join(key("a.py"), start);
        assert!(is_dry_run(&first));
        let (second, _) = sessions.join(key("a.py"), start);
        assert_eq!(first, second);
        sessions.leave(&key("a.py"), start);
        // One still goes on.
        assert!(sessions.expire(start + UNUSED_MAX).is_empty());
        sessions.leave(&key("a.py"), start + UNUSED_MAX);
        assert!(sessions.expire(start + UNUSED_MAX).is_empty());
        let expired = sessions.expire(start + UNUSED_MAX * 2);
        assert_eq!(expired, std::slice::from_ref(&first));
        let (third, _) = sessions.join(key("a.py"), start + UNUSED_MAX * 2);
        assert_ne!(first, third);
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let mut bindings = Vec::new();
        for number in 0..SESSIONS_MAX {
            let key = key(&format!("{number}.py"));
            let (binding, released) = sessions.join(key.clone(), start);
            assert_eq!(released, None);
            bindings.push(binding);
            if number > 0 {
                let after = Duration::from_secs(100 - number as u64);
                sessions.leave(&key, start + after);
            }
        }
        // The first is in use, the last one has ended first.
        let (_, released) = sessions.join(key("more.py"), start);
        assert_eq!(released.as_ref(), bindings.last());
    }
}
