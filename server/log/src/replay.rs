//! How the views come back after a start: every entry behind the snapshot is applied again,
//! in order.

use std::sync::Arc;

use outrigger_model::{error::Report, ids::Sequence};
use tracing::{info, warn};

use crate::{
    LogError, View,
    entry::{DecodeError, Entry},
    store::EntryStore,
};

/// What is done with a last entry that is incomplete.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TornTail {
    /// It is put aside.
    #[default]
    SetAside,
    /// The replay fails.
    Refuse,
}

/// Applies every entry behind `after` to `view` and returns the last one's sequence; `after`
/// itself if there is none. What lies before is not looked at.
///
/// The last entry may be torn: the server died while it wrote it, so nobody was
/// told that it is there. It is put aside with a warning, or the replay fails, as `torn_tail`
/// says. Any other entry that cannot be read was acknowledged, and the replay fails; so does
/// the last one if it is whole but of another version.
///
/// After each entry, `applied` is told how large it was, and can make room.
pub async fn replay(
    store: &EntryStore,
    view: &dyn View,
    after: Sequence,
    torn_tail: TornTail,
    mut applied: impl AsyncFnMut(usize),
) -> Result<Sequence, LogError> {
    let mut sequences = store.sequences().await?;
    sequences.retain(|sequence| *sequence > after);
    let mut last = after;
    for (index, &sequence) in sequences.iter().enumerate() {
        if sequence != last.next() {
            return Err(gap(store, last.next(), sequence));
        }
        let is_last = index + 1 == sequences.len();
        let bytes = store.read_bytes(sequence).await?;
        let size = bytes.len();
        let entry = match Entry::decode(sequence, bytes) {
            Ok(entry) => entry,
            Err(source @ (DecodeError::Torn { .. } | DecodeError::Corrupt { .. }))
                if is_last && torn_tail == TornTail::Refuse =>
            {
                let object = store.object(sequence);
                return Err(LogError::TornTail { object, source });
            }
            Err(error @ (DecodeError::Torn { .. } | DecodeError::Corrupt { .. })) if is_last => {
                let aside = store.set_aside(sequence).await?;
                warn!(
                    object = store.object(sequence),
                    error = %Report(&error),
                    aside,
                    "the last log entry is incomplete, so most likely nobody was told of it: put it aside"
                );
                break;
            }
            Err(source) => {
                return Err(LogError::Corrupt {
                    object: store.object(sequence),
                    source,
                });
            }
        };
        if is_last {
            // The server may have died between writing and syncing it, and what was read
            // may be in memory only. What follows must not be more durable than it is.
            store.make_durable(sequence).await?;
        }
        view.apply(Arc::new(entry)).map_err(|reason| {
            let object = store.object(sequence);
            LogError::Apply { object, reason }
        })?;
        last = sequence;
        applied(size).await;
    }
    info!(entries = sequences.len(), last = last.0, "replayed the log");
    Ok(last)
}

fn gap(store: &EntryStore, missing: Sequence, next: Sequence) -> LogError {
    LogError::Gap {
        missing,
        next,
        object: store.object(missing),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use parking_lot::Mutex;

    use super::*;
    use crate::store::Durability;

    #[derive(Default)]
    struct Seen(Mutex<Vec<u64>>);

    impl View for Seen {
        fn apply(&self, entry: Arc<Entry>) -> Result<(), String> {
            self.0.lock().push(entry.sequence.0);
            Ok(())
        }
    }

    async fn replay_all(
        store: &EntryStore,
        seen: &Seen,
        after: Sequence,
    ) -> Result<Sequence, LogError> {
        replay(store, seen, after, TornTail::SetAside, async |_| {}).await
    }

    #[tokio::test]
    async fn a_torn_tail_is_refused_if_it_is_wished_so() {
        let (store, seen) = (with_entries(2).await, Seen::default());
        store.create(Sequence(3), torn(3)).await.unwrap();
        let mut sizes = Vec::new();
        let note = async |size| sizes.push(size);
        let refused = replay(&store, &seen, Sequence(0), TornTail::Refuse, note).await;
        assert!(
            matches!(refused, Err(LogError::TornTail { .. })),
            "{refused:?}"
        );
        assert_eq!(sizes, [encoded(1).len(); 2]);
        assert_eq!(store.sequences().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_torn_tail_is_dropped_and_its_number_used_again() {
        let (store, seen) = (with_entries(3).await, Seen::default());
        store.create(Sequence(4), torn(4)).await.unwrap();
        let replayed = replay_all(&store, &seen, Sequence(0)).await;
        assert_eq!(replayed.unwrap(), Sequence(3));
        assert_eq!(*seen.0.lock(), [1, 2, 3]);
        assert_eq!(store.sequences().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn what_a_snapshot_covers_is_not_looked_at() {
        let (store, seen) = (with_entries(4).await, Seen::default());
        store.remove(Sequence(1)).await.unwrap();
        store.remove(Sequence(1)).await.unwrap();
        let replayed = replay_all(&store, &seen, Sequence(2)).await;
        assert_eq!(replayed.unwrap(), Sequence(4));
        assert_eq!(*seen.0.lock(), [3, 4]);
        let nothing = replay_all(&store, &seen, Sequence(7)).await;
        assert_eq!(nothing.unwrap(), Sequence(7));
        let gap = replay_all(&store, &seen, Sequence(0)).await;
        assert!(matches!(gap, Err(LogError::Gap { .. })), "{gap:?}");
    }

    #[tokio::test]
    async fn corruption_before_the_tail_stops_the_replay_and_names_the_object() {
        let store = with_entries(1).await;
        store.create(Sequence(2), torn(2)).await.unwrap();
        store.create(Sequence(3), encoded(3)).await.unwrap();
        let error = replay_all(&store, &Seen::default(), Sequence(0))
            .await
            .unwrap_err();
        let text = Report(&error).to_string();
        assert!(text.contains("n/log/00000000000000000002.entry"), "{text}");
        assert!(text.contains("byte"), "{text}");
    }

    #[tokio::test]
    async fn a_last_entry_of_a_newer_server_stops_the_replay() {
        let store = with_entries(1).await;
        let mut newer = encoded(2).to_vec();
        newer[8] = 2;
        let checksum = crc32fast::hash(&newer[..24]);
        newer[24..28].copy_from_slice(&checksum.to_le_bytes());
        store.create(Sequence(2), newer.into()).await.unwrap();
        let error = replay_all(&store, &Seen::default(), Sequence(0))
            .await
            .unwrap_err();
        let version = DecodeError::Version { version: 2 };
        assert!(matches!(error, LogError::Corrupt { source, .. } if source == version));
        assert_eq!(
            store.sequences().await.unwrap().len(),
            2,
            "nothing was put aside"
        );
    }

    #[tokio::test]
    async fn a_missing_entry_stops_the_replay() {
        let store = with_entries(1).await;
        store.create(Sequence(3), encoded(3)).await.unwrap();
        let error = replay_all(&store, &Seen::default(), Sequence(0))
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            LogError::Gap {
                missing: Sequence(2),
                ..
            }
        ));
    }

    fn encoded(sequence: u64) -> bytes::Bytes {
        Entry {
            sequence: Sequence(sequence),
            records: vec![],
        }
        .encode()
    }

    fn torn(sequence: u64) -> bytes::Bytes {
        encoded(sequence).slice(..10)
    }

    async fn with_entries(count: u64) -> EntryStore {
        let store = EntryStore::new(Arc::new(InMemory::new()), "n", Durability::Store);
        for sequence in 1..=count {
            store
                .create(Sequence(sequence), encoded(sequence))
                .await
                .unwrap();
        }
        store
    }
}
