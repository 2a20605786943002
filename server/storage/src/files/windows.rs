//! Which rows lie in one file: those of one window of time.

use std::{collections::BTreeMap, time::Duration};

/// The most files that one snapshot makes of one table: a write that spans years would make
/// very many otherwise. Beyond that, neighbouring windows share a file.
const FILES_MAX: usize = 64;

/// The rows of each file, in the order of time; within a file, in their own order.
pub(super) fn split(times: &[i64], window: Duration) -> Vec<Vec<u32>> {
    let nanos = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX).max(1);
    let mut windows: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, time) in (0..).zip(times) {
        windows.entry(time.div_euclid(nanos)).or_default().push(row);
    }
    if windows.len() <= FILES_MAX {
        return windows.into_values().collect();
    }
    let rows_per_file = times.len().div_ceil(FILES_MAX);
    let mut files: Vec<Vec<u32>> = Vec::new();
    for rows in windows.into_values() {
        match files.last_mut() {
            Some(last)
                if last.len() + rows.len() <= rows_per_file * 2 && last.len() < rows_per_file =>
            {
                last.extend(rows);
            }
            _ => files.push(rows),
        }
    }
    for file in &mut files {
        file.sort_unstable();
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_its_own_rows() {
        let split = split(&[5, 12, 3, -1, 10], Duration::from_nanos(10));
        assert_eq!(split, [vec![3], vec![0, 2], vec![1, 4]]);
    }

    #[test]
    fn very_many_windows_share_files() {
        let times: Vec<i64> = (0..10_000).rev().map(|n| n * 1_000).collect();
        let files = split(&times, Duration::from_nanos(10));
        assert!(files.len() <= 2 * FILES_MAX, "{}", files.len());
        assert_eq!(files.iter().map(Vec::len).sum::<usize>(), 10_000);
        let span = |rows: &Vec<u32>| {
            let times = rows.iter().map(|&row| times[row as usize]);
            (times.clone().min().unwrap(), times.max().unwrap())
        };
        let spans: Vec<_> = files.iter().map(span).collect();
        assert!(spans.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!(files.iter().all(|rows| rows.is_sorted()));
    }
}
