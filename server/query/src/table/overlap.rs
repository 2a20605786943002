//! Which files may have the same points: those whose spans of time overlap.

use std::sync::Arc;

use outrigger_storage::ParquetFile;

/// Files that have to be merged, in the order in which they were made; one alone has not.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) files: Vec<Arc<ParquetFile>>,
    min: i64,
    max: i64,
}

impl Group {
    /// The first and the last time in them.
    pub(super) fn span(&self) -> (i64, i64) {
        (self.min, self.max)
    }
}

/// Divides files into groups whose spans of time don't overlap, in the order of time.
pub(super) fn overlapping(mut files: Vec<Arc<ParquetFile>>) -> Vec<Group> {
    files.sort_by_key(|file| file.min_time);
    let mut groups: Vec<Group> = Vec::new();
    for file in files {
        match groups.last_mut() {
            Some(group) if file.min_time <= group.max => {
                group.max = group.max.max(file.max_time);
                group.files.push(file);
            }
            _ => groups.push(Group {
                min: file.min_time,
                max: file.max_time,
                files: vec![file],
            }),
        }
    }
    for group in &mut groups {
        group.files.sort_by_key(|file| file.sequence);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_are_one_group() {
        let file = |min_time, max_time, sequence| {
            Arc::new(ParquetFile {
                path: String::new(),
                size_bytes: 0,
                row_count: 0,
                min_time,
                max_time,
                sequence,
            })
        };
        let files = [
            file(20, 30, 1),
            file(0, 10, 4),
            file(8, 9, 2),
            file(10, 12, 3),
            file(31, 31, 5),
        ];
        let groups = overlapping(files.to_vec());
        let shown: Vec<_> = groups
            .iter()
            .map(|group| {
                let order: Vec<_> = group.files.iter().map(|file| file.sequence).collect();
                (group.span(), order)
            })
            .collect();
        let expected = [
            ((0, 12), vec![2, 3, 4]),
            ((20, 30), vec![1]),
            ((31, 31), vec![5]),
        ];
        assert_eq!(shown, expected);
    }
}
