//! How far a trigger has dealt with the log: everything up to its cursor, and ranges
//! beyond it where its invocations overlap.

use std::collections::BTreeMap;

use outrigger_model::ids::Sequence;

/// Consecutive log entries: those behind `after`, up to `through`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EntryRange {
    /// The entry before the first.
    pub after: Sequence,
    /// The last entry.
    pub through: Sequence,
}

/// Which log entries a trigger has dealt with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    cursor: Sequence,
    /// Ranges behind the cursor's next entry: `after` to `through`; they neither overlap
    /// nor touch.
    beyond: BTreeMap<Sequence, Sequence>,
}

impl Progress {
    /// Everything up to `cursor`.
    pub fn up_to(cursor: Sequence) -> Self {
        Self {
            cursor,
            beyond: BTreeMap::new(),
        }
    }

    /// The ranges beyond the cursor that are dealt with.
    pub fn beyond(&self) -> impl Iterator<Item = EntryRange> {
        let range = |(after, through): (&Sequence, &Sequence)| EntryRange {
            after: *after,
            through: *through,
        };
        self.beyond.iter().map(range)
    }

    /// Every entry up to this one is dealt with. Moves only forward.
    pub fn cursor(&self) -> Sequence {
        self.cursor
    }

    /// How many entries beyond the cursor are dealt with.
    pub fn entries_beyond(&self) -> u64 {
        let lengths = self
            .beyond
            .iter()
            .map(|(after, through)| through.0 - after.0);
        lengths.sum()
    }

    /// Whether the entry is dealt with.
    pub fn includes(&self, entry: Sequence) -> bool {
        let before = || self.beyond.range(..entry).next_back();
        entry <= self.cursor || before().is_some_and(|(_, through)| entry <= *through)
    }

    /// The range is dealt with.
    pub fn complete(&mut self, range: EntryRange) {
        let EntryRange {
            mut after,
            mut through,
        } = range;
        // Ranges that overlap it or touch it become one with it.
        let near: Vec<(Sequence, Sequence)> = self
            .beyond
            .range(..=through)
            .map(|(after, through)| (*after, *through))
            .filter(|(_, other_through)| *other_through >= after)
            .collect();
        for (other_after, other_through) in near {
            self.beyond.remove(&other_after);
            after = after.min(other_after);
            through = through.max(other_through);
        }
        if after <= self.cursor {
            self.cursor = self.cursor.max(through);
        } else if after < through {
            self.beyond.insert(after, through);
        }
    }

    /// The first entries at or behind `from` that are not dealt with: the entry before the
    /// first of them, and the last one, if a range that is dealt with follows.
    pub fn gap(&self, from: Sequence) -> (Sequence, Option<Sequence>) {
        let mut start = from.max(self.cursor);
        for (after, through) in &self.beyond {
            if *after > start {
                return (start, Some(*after));
            }
            start = start.max(*through);
        }
        (start, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(after: u64, through: u64) -> EntryRange {
        EntryRange {
            after: Sequence(after),
            through: Sequence(through),
        }
    }

    #[test]
    fn the_cursor_moves_when_the_ranges_before_it_are_complete() {
        let mut progress = Progress::up_to(Sequence(10));
        for (after, through, cursor) in [
            (12, 14, 10),
            (16, 18, 10),
            (14, 16, 10),
            (10, 12, 18),
            (18, 19, 19),
        ] {
            progress.complete(range(after, through));
            assert_eq!(progress.cursor(), Sequence(cursor), "{progress:?}");
        }
        assert_eq!(progress, Progress::up_to(Sequence(19)));
    }

    #[test]
    fn the_cursor_never_moves_back() {
        let mut progress = Progress::up_to(Sequence(10));
        progress.complete(range(0, 5));
        assert_eq!(progress, Progress::up_to(Sequence(10)));
        // A cursor in the old form: everything up to it.
        progress.complete(range(20, 25));
        progress.complete(range(0, 22));
        assert_eq!(progress, Progress::up_to(Sequence(25)));
    }

    #[test]
    fn gaps_lie_between_the_ranges() {
        let mut progress = Progress::up_to(Sequence(10));
        progress.complete(range(12, 14));
        progress.complete(range(20, 21));
        let gap = |from| progress.gap(Sequence(from));
        assert_eq!(gap(0), (Sequence(10), Some(Sequence(12))));
        assert_eq!(gap(11), (Sequence(11), Some(Sequence(12))));
        assert_eq!(gap(12), (Sequence(14), Some(Sequence(20))));
        assert_eq!(gap(20), (Sequence(21), None));
        assert_eq!(gap(30), (Sequence(30), None));
        assert_eq!(progress.entries_beyond(), 3);
        let included = (8..=22).filter(|entry| progress.includes(Sequence(*entry)));
        assert_eq!(included.collect::<Vec<_>>(), [8, 9, 10, 13, 14, 21]);
    }

    #[test]
    fn any_order_of_ranges_ends_the_same() {
        use rand::{SeedableRng as _, seq::SliceRandom as _};
        for seed in 0..200 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let mut ranges: Vec<_> = (0..20).map(|n| range(n * 3, n * 3 + 3)).collect();
            ranges.shuffle(&mut random);
            let mut progress = Progress::default();
            for range in ranges {
                progress.complete(range);
            }
            assert_eq!(progress, Progress::up_to(Sequence(60)));
        }
    }
}
