//! What do plugins share with each other? The global cache: opaque bytes by name, until they
//! expire or the server ends.
//!
//! Deliberately knows neither what the bytes mean nor who put them: every plugin may read,
//! replace and delete every entry.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use outrigger_model::bytes::ByteSize;
use tokio::time::Instant;

/// What an entry costs beside its name and its value, in bytes; rounded up.
const ENTRY_BYTES: usize = 128;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest name.
    pub(crate) name: ByteSize,
    /// The largest value.
    pub(crate) value: ByteSize,
    /// How many entries.
    pub(crate) entries: usize,
    /// All names and values together, and what it costs to keep them.
    pub(crate) total: ByteSize,
}

/// The limits of a server. The Python side knows the first two as well, so that a plugin's
/// author hears of them before anything is sent.
pub(crate) const LIMITS: Limits = Limits {
    name: ByteSize::kib(1),
    value: ByteSize::mib(8),
    entries: 10_000,
    total: ByteSize::mib(128),
};

/// Why nothing was stored. What was there before is still there.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("its key has {0} bytes, the limit is {1}")]
    NameTooLong(usize, ByteSize),
    #[error("its value has {0} bytes, the limit is {1}")]
    ValueTooLarge(usize, ByteSize),
    #[error(
        "the global cache holds {0} entries, which is its limit; delete some, or put them with a ttl"
    )]
    TooManyEntries(usize),
    #[error(
        "the global cache is full: it holds {held} of {limit} bytes and the value needs {needed}; delete some, or put them with a ttl"
    )]
    Full {
        held: usize,
        limit: usize,
        needed: usize,
    },
    #[error("its ttl is not a finite number of seconds from 0 on: {0}")]
    BadTtl(f64),
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    /// `None` for never.
    expires: Option<Instant>,
}

impl Entry {
    fn is_alive(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The cache. Its time is told by its caller, and does not jump when the wall clock is set.
#[derive(Debug)]
pub(crate) struct GlobalCache {
    limits: Limits,
    entries: HashMap<String, Entry>,
    /// The cost of all entries.
    held: usize,
}

impl GlobalCache {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            held: 0,
        }
    }

    pub(crate) fn get(&mut self, name: &str, now: Instant) -> Option<Bytes> {
        let entry = self.entries.get(name)?;
        if entry.is_alive(now) {
            return Some(entry.value.clone());
        }
        self.remove(name);
        None
    }

    /// Keeps `value`, and forgets what was under that name.
    pub(crate) fn put(
        &mut self,
        name: String,
        value: Bytes,
        ttl_s: Option<f64>,
        now: Instant,
    ) -> Result<(), CacheError> {
        let expires = match ttl_s {
            None => None,
            Some(ttl) => expiry(ttl, now)?,
        };
        if name.len() > self.limits.name.0 {
            return Err(CacheError::NameTooLong(name.len(), self.limits.name));
        }
        if value.len() > self.limits.value.0 {
            return Err(CacheError::ValueTooLarge(value.len(), self.limits.value));
        }
        let needed = cost(&name, &value);
        if self.check_room(&name, needed).is_err() {
            self.drop_expired(now);
            self.check_room(&name, needed)?;
        }
        self.remove(&name);
        self.held += needed;
        self.entries.insert(name, Entry { value, expires });
        Ok(())
    }

    /// Whether there was something.
    pub(crate) fn delete(&mut self, name: &str, now: Instant) -> bool {
        self.remove(name).is_some_and(|entry| entry.is_alive(now))
    }

    /// Whether an entry of this cost would fit in the place of the one that has the name.
    fn check_room(&self, name: &str, needed: usize) -> Result<(), CacheError> {
        let replaced = self.entries.get(name);
        if replaced.is_none() && self.entries.len() >= self.limits.entries {
            return Err(CacheError::TooManyEntries(self.entries.len()));
        }
        let held = self.held - replaced.map_or(0, |entry| cost(name, &entry.value));
        if held + needed > self.limits.total.0 {
            return Err(CacheError::Full {
                held,
                limit: self.limits.total.0,
                needed,
            });
        }
        Ok(())
    }

    fn drop_expired(&mut self, now: Instant) {
        let held = &mut self.held;
        self.entries.retain(|name, entry| {
            let alive = entry.is_alive(now);
            if !alive {
                *held -= cost(name, &entry.value);
            }
            alive
        });
    }

    fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.held -= cost(name, &entry.value);
        Some(entry)
    }
}

fn cost(name: &str, value: &Bytes) -> usize {
    ENTRY_BYTES + name.len() + value.len()
}

/// When something expires that lives for `ttl_s` from now on; `None` if that is beyond all time.
fn expiry(ttl_s: f64, now: Instant) -> Result<Option<Instant>, CacheError> {
    if !ttl_s.is_finite() || ttl_s < 0.0 {
        return Err(CacheError::BadTtl(ttl_s));
    }
    let ttl = Duration::try_from_secs_f64(ttl_s).unwrap_or(Duration::MAX);
    Ok(now.checked_add(ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        name: ByteSize(8),
        value: ByteSize(100),
        entries: 3,
        total: ByteSize(3 * ENTRY_BYTES + 200),
    };

    struct Cache {
        cache: GlobalCache,
        now: Instant,
    }

    impl Cache {
        fn new() -> Self {
            Self {
                cache: GlobalCache::new(SMALL),
                now: Instant::now(),
            }
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        fn put(&mut self, name: &str, size: usize, ttl: Option<f64>) -> Result<(), CacheError> {
            let value = Bytes::from(vec![b'x'; size]);
            self.cache.put(name.to_owned(), value, ttl, self.now)
        }

        /// The size of a value.
        fn get(&mut self, name: &str) -> Option<usize> {
            self.cache.get(name, self.now).map(|value| value.len())
        }

        fn delete(&mut self, name: &str) -> bool {
            self.cache.delete(name, self.now)
        }

        /// Fails unless the books are right.
        #[track_caller]
        fn check_held(&self) {
            let costs = self.cache.entries.iter();
            let sum: usize = costs.map(|(name, entry)| cost(name, &entry.value)).sum();
            assert_eq!(self.cache.held, sum);
        }
    }

    #[test]
    fn what_was_put_is_there_until_it_is_deleted() {
        let mut cache = Cache::new();
        cache.put("a", 5, None).unwrap();
        cache.put("a", 7, None).unwrap();
        assert_eq!(cache.get("a"), Some(7));
        assert_eq!(cache.get("b"), None);
        assert!(cache.delete("a"));
        assert!(!cache.delete("a"));
        assert_eq!(cache.get("a"), None);
        assert_eq!(cache.cache.held, 0);
    }

    #[test]
    fn a_ttl_ends_and_is_replaced_with_the_value() {
        let mut cache = Cache::new();
        cache.put("a", 1, Some(5.0)).unwrap();
        cache.wait(4);
        assert_eq!(cache.get("a"), Some(1));
        cache.wait(1);
        assert!(!cache.delete("a"));
        cache.put("a", 1, Some(5.0)).unwrap();
        cache.put("a", 2, None).unwrap();
        cache.wait(100);
        assert_eq!(cache.get("a"), Some(2));
        cache.put("a", 3, Some(0.0)).unwrap();
        assert_eq!(cache.get("a"), None);
        cache.check_held();
    }

    #[test]
    fn a_ttl_must_be_a_time() {
        let mut cache = Cache::new();
        for bad in [-1.0, -f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
            let error = cache.put("a", 1, Some(bad)).unwrap_err();
            assert!(matches!(error, CacheError::BadTtl(_)), "{bad}: {error}");
        }
        cache.put("a", 1, Some(f64::MAX)).unwrap();
        assert_eq!(cache.get("a"), Some(1));
    }

    #[test]
    fn what_is_too_large_is_refused_and_changes_nothing() {
        let mut cache = Cache::new();
        cache.put("a", 100, None).unwrap();
        let refused = [
            (cache.put("123456789", 1, None), "its key has 9 bytes"),
            (cache.put("a", 101, None), "its value has 101 bytes"),
        ];
        for (result, part) in refused {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(cache.get("a"), Some(100));
    }

    #[test]
    fn the_number_of_entries_is_limited_and_expired_ones_go_first() {
        let mut cache = Cache::new();
        for name in ["a", "b"] {
            cache.put(name, 1, None).unwrap();
        }
        cache.put("c", 1, Some(1.0)).unwrap();
        let full = cache.put("d", 1, None);
        assert_eq!(full, Err(CacheError::TooManyEntries(3)));
        cache.put("a", 2, None).expect("replacing needs no room");
        cache.wait(1);
        cache.put("d", 1, None).unwrap();
        assert_eq!(cache.get("c"), None);
        cache.check_held();
    }

    #[test]
    fn the_sum_of_bytes_is_limited_and_expired_ones_go_first() {
        let mut cache = Cache::new();
        cache.put("a", 100, Some(1.0)).unwrap();
        cache.put("b", 90, None).unwrap();
        let full = cache.put("c", 50, None).unwrap_err();
        assert!(matches!(full, CacheError::Full { .. }), "{full}");
        cache.put("b", 95, None).expect("the old one makes room");
        let full = cache.put("a", 100, None);
        full.expect("as large as what it replaces");
        cache.wait(1);
        assert_eq!(cache.get("a"), Some(100), "it has no ttl any more");
        cache.put("a", 100, Some(1.0)).unwrap();
        cache.wait(1);
        cache.put("c", 50, None).unwrap();
        assert_eq!((cache.get("a"), cache.get("b")), (None, Some(95)));
        cache.check_held();
    }
}
