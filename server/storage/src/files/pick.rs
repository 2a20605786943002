//! Which files of a table are joined next.
//!
//! Files of one window of time are joined first, then those of whole hours, days and months of
//! 30 days, as long as they are small: so a table has few files however long it lives, and a
//! file that is large already stays what it is. Nothing is written again for little gain.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use outrigger_model::clock::Timestamp;

use super::ParquetFile;

/// So many files are joined at once.
const FILES_MAX: usize = 64;
/// So many are joined in any case, however unequal they are.
const FILES_MANY: usize = 8;

/// What is joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The span of time of a file as snapshots make it.
    pub(crate) window: Duration,
    /// How long rows are kept: files that span much of it would stay too long.
    pub(crate) retention: Option<Duration>,
    /// So many bytes at once.
    pub(crate) bytes_max: u64,
}

impl Bounds {
    /// The spans of time within which files are joined, the shortest first.
    fn spans(&self) -> impl Iterator<Item = Duration> {
        let (window, longest) = (self.window, self.retention.map(|kept| kept / 4));
        let longer = [1, 24, 30 * 24].map(Duration::from_hours).into_iter();
        let longer = longer
            .filter(move |span| *span > window && longest.is_none_or(|longest| *span <= longest));
        std::iter::once(window).chain(longer)
    }
}

/// Files that are to be joined, the oldest first; `None` if there is nothing to do.
pub(crate) fn pick(
    files: &[Arc<ParquetFile>],
    bounds: &Bounds,
    now: Timestamp,
) -> Option<Vec<Arc<ParquetFile>>> {
    let (window, bytes_max) = (nanos(bounds.window), bounds.bytes_max);
    for span in bounds.spans().map(nanos) {
        let mut groups: BTreeMap<i64, Vec<&Arc<ParquetFile>>> = BTreeMap::new();
        for file in files {
            let group = file.min_time.div_euclid(span);
            if group == file.max_time.div_euclid(span) {
                groups.entry(group).or_default().push(file);
            }
        }
        for (group, mut members) in groups {
            let end = (group + 1).saturating_mul(span);
            let has_passed = end.saturating_add(window) <= now.0;
            if members.len() < 2 || !has_passed && span > window {
                continue;
            }
            members.sort_by_key(|file| file.sequence);
            let found = runs(&members, bytes_max)
                .find(|run| is_worth_it(run, has_passed) && is_closed(run, files));
            if let Some(run) = found {
                return Some(run.iter().map(|file| Arc::clone(file)).collect());
            }
        }
    }
    None
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX).max(1)
}

/// From each file on, as many as may be joined at once; those of one snapshot stay together.
fn runs<'a>(
    members: &'a [&'a Arc<ParquetFile>],
    bytes_max: u64,
) -> impl Iterator<Item = &'a [&'a Arc<ParquetFile>]> {
    let is_start = |start: &usize| {
        let file = members.get(*start);
        let before = start.checked_sub(1).and_then(|before| members.get(before));
        file.map(|file| file.sequence) != before.map(|before| before.sequence)
    };
    (0..members.len())
        .filter(is_start)
        .map(move |start| run_from(&members[start..], bytes_max))
}

fn run_from<'a>(members: &'a [&'a Arc<ParquetFile>], bytes_max: u64) -> &'a [&'a Arc<ParquetFile>] {
    let (mut end, mut count, mut bytes) = (0, 0, 0);
    for snapshot in members.chunk_by(|one, two| one.sequence == two.sequence) {
        count += snapshot.len();
        bytes += snapshot.iter().map(|file| file.size_bytes).sum::<u64>();
        if count > FILES_MAX || bytes > bytes_max {
            break;
        }
        end = count;
    }
    &members[..end]
}

/// Whether the files are many, or of similar sizes: a large file is not written again for each
/// small one that comes.
fn is_worth_it(run: &[&Arc<ParquetFile>], has_passed: bool) -> bool {
    let sizes = || run.iter().map(|file| file.size_bytes);
    let (all, largest) = (sizes().sum::<u64>(), sizes().max().unwrap_or(0));
    let are_similar = largest <= 2 * (all - largest);
    run.len() >= FILES_MANY || run.len() >= 2 && has_passed && are_similar
}

/// Whether each other file that may have the same points is older than all of the run, or newer
/// than all of it: else no order of files would say which value is the last.
fn is_closed(run: &[&Arc<ParquetFile>], files: &[Arc<ParquetFile>]) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return false;
    };
    let min = run
        .iter()
        .map(|file| file.min_time)
        .min()
        .unwrap_or_default();
    let max = run
        .iter()
        .map(|file| file.max_time)
        .max()
        .unwrap_or_default();
    let disturbs = |file: &Arc<ParquetFile>| {
        file.min_time <= max
            && min <= file.max_time
            && first.sequence <= file.sequence
            && file.sequence <= last.sequence
            && !run.iter().any(|member| Arc::ptr_eq(member, file))
    };
    !files.iter().any(disturbs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        window: Duration::from_mins(10),
        retention: None,
        bytes_max: 1000,
    };
    const MINUTE: i64 = 60_000_000_000;
    const LATER: Timestamp = Timestamp(1000 * 24 * 60 * MINUTE);

    fn file(from: i64, to: i64, sequence: u64, size_bytes: u64) -> Arc<ParquetFile> {
        Arc::new(ParquetFile {
            path: format!("{from}-{to}-{sequence}"),
            size_bytes,
            row_count: 1,
            min_time: from * MINUTE,
            max_time: to * MINUTE,
            sequence,
        })
    }

    #[track_caller]
    fn check(files: &[Arc<ParquetFile>], now: Timestamp, expected: Option<&[u64]>) {
        check_bounds(files, &BOUNDS, now, expected);
    }

    #[track_caller]
    fn check_bounds(
        files: &[Arc<ParquetFile>],
        bounds: &Bounds,
        now: Timestamp,
        expected: Option<&[u64]>,
    ) {
        let picked = pick(files, bounds, now);
        let picked = picked.map(|files| {
            let sequences = files.iter().map(|file| file.sequence);
            sequences.collect::<Vec<_>>()
        });
        assert_eq!(picked.as_deref(), expected);
    }

    #[test]
    fn small_files_of_a_window_that_has_passed_are_joined() {
        let files = [file(0, 5, 1, 10), file(2, 9, 3, 10), file(10, 12, 2, 10)];
        check(&files, LATER, Some(&[1, 3]));
        // A window in which much is still written has to have many.
        let soon = Timestamp(12 * MINUTE);
        check(&files, soon, None);
        let many: Vec<_> = (0..8).map(|n| file(0, 9, n, 10)).collect();
        check(&many, soon, Some(&[0, 1, 2, 3, 4, 5, 6, 7]));
        check(&many[1..], soon, None);
    }

    #[test]
    fn hours_and_days_are_joined_as_long_as_they_are_small() {
        let windows: Vec<_> = (0..6)
            .map(|n| file(n * 10, n * 10 + 9, n.unsigned_abs(), 100))
            .collect();
        check(&windows, LATER, Some(&[0, 1, 2, 3, 4, 5]));
        check(&windows, Timestamp(65 * MINUTE), None);
        let large = [file(0, 9, 1, 600), file(10, 19, 2, 600)];
        check(&large, LATER, None);
        let hours = [
            file(0, 50, 1, 100),
            file(60, 100, 2, 100),
            file(2000, 2050, 3, 90),
        ];
        check(&hours, LATER, Some(&[1, 2]));
        let months = [file(0, 1000, 1, 100), file(2000, 2100, 2, 100)];
        check(&months, LATER, Some(&[1, 2]));
        let bounds = Bounds {
            retention: Some(Duration::from_hours(30)),
            ..BOUNDS
        };
        check_bounds(&months, &bounds, LATER, None);
        check_bounds(&windows, &bounds, LATER, Some(&[0, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn a_large_file_waits_for_many_small_ones() {
        let mut files = vec![file(0, 9, 1, 500)];
        for sequence in 2..8 {
            files.push(file(0, 9, sequence, 1));
            if sequence == 2 {
                check(&files, LATER, None);
            }
        }
        // The small ones are joined with each other.
        check(&files, LATER, Some(&[2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn a_file_between_is_never_passed_over() {
        // The middle one spans more than any group.
        let span = 40 * 24 * 60;
        let files = [
            file(0, 9, 1, 10),
            file(-span, span, 2, 10),
            file(0, 9, 3, 10),
        ];
        check(&files, LATER, None);
        let older = [
            file(0, 9, 2, 10),
            file(-span, span, 1, 10),
            file(0, 9, 3, 10),
        ];
        check(&older, LATER, Some(&[2, 3]));
    }

    /// What each file has: minutes, and which file wrote them.
    type Contents = Vec<(Arc<ParquetFile>, BTreeMap<i64, u64>)>;

    /// A snapshot: files that don't overlap.
    fn write(contents: &mut Contents, random: &mut StdRng, sequence: u64) -> BTreeMap<i64, u64> {
        let minutes = (0..random.random_range(1..6)).map(|_| random.random_range(0..5000));
        let minutes: BTreeMap<i64, u64> = minutes.map(|minute| (minute, sequence)).collect();
        let mut first = minutes.clone();
        let second = first.split_off(&random.random_range(0..5000));
        for part in [first, second] {
            if let (Some((from, _)), Some((to, _))) =
                (part.first_key_value(), part.last_key_value())
            {
                let file = file(*from, *to, sequence, random.random_range(1..300));
                contents.push((file, part));
            }
        }
        minutes
    }

    /// Joins what is to be joined next, if anything is.
    fn join(contents: &mut Contents) -> bool {
        let files: Vec<_> = contents.iter().map(|(file, _)| file.clone()).collect();
        let Some(picked) = pick(&files, &BOUNDS, LATER) else {
            return false;
        };
        let mut joined = BTreeMap::new();
        for file in &picked {
            let found = contents
                .iter()
                .position(|(other, _)| Arc::ptr_eq(other, file));
            joined.extend(contents.remove(found.unwrap()).1);
        }
        let size = picked.iter().map(|file| file.size_bytes).sum();
        assert!(size <= 1000 && picked.len() >= 2);
        let (from, to) = (joined.first_key_value(), joined.last_key_value());
        let last = picked.iter().map(|file| file.sequence).max().unwrap();
        let new = file(*from.unwrap().0, *to.unwrap().0, last, size);
        contents.push((new, joined));
        true
    }

    /// Each file writes some minutes; the newest that has written a minute wins.
    #[test]
    fn whatever_is_joined_the_newest_value_stays_the_newest() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut contents, mut model) = (Contents::new(), BTreeMap::new());
            for sequence in 1..40 {
                model.extend(write(&mut contents, &mut random, sequence));
                let joins = (0..100).take_while(|_| join(&mut contents)).count();
                assert!(joins < 100, "seed {seed}: it does not end");
                contents.sort_by_key(|(file, _)| file.sequence);
                let found = contents.iter().flat_map(|(_, content)| content.clone());
                assert_eq!(found.collect::<BTreeMap<_, _>>(), model, "seed {seed}");
            }
        }
    }
}
