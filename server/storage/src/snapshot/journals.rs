//! Which files have the rows of the journals, and which rows a snapshot writes anew.
//!
//! A journal is only ever appended to, so a snapshot writes what is new, and joins it with
//! earlier files that are not much larger, as in a log-structured merge tree: however often
//! snapshots are made, a row is written a few times only, and a journal has few files.

use std::{collections::HashMap, ops::Range};

use crate::journal::JournalTable;

/// The journals' files, in the order of their rows.
pub(crate) type StoredJournals = HashMap<JournalTable, Vec<JournalPart>>;

/// A file with rows of a journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct JournalPart {
    /// Which rows, counted since the server has started.
    pub(crate) rows: Range<u64>,
    pub(crate) path: String,
}

/// What becomes of a journal's files when it has these rows: which of them stay, and which
/// rows need a new one behind them.
pub(crate) fn plan(parts: &[JournalPart], rows: &Range<u64>) -> (Vec<JournalPart>, Range<u64>) {
    let remembered = parts.iter().filter(|part| part.rows.end > rows.start);
    let mut kept: Vec<JournalPart> = remembered.cloned().collect();
    let mut new = kept.last().map_or(rows.start, |part| part.rows.end)..rows.end;
    if new.is_empty() {
        return (kept, new);
    }
    while let Some(small) = kept.pop_if(|part| count(&part.rows) <= 2 * count(&new)) {
        new.start = small.rows.start.max(rows.start);
    }
    (kept, new)
}

fn count(rows: &Range<u64>) -> u64 {
    rows.end - rows.start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_has_few_files_and_rows_are_written_few_times() {
        const SNAPSHOTS: u64 = 2_000;
        const KEPT: u64 = 5_000;
        let (mut parts, mut written) = (Vec::new(), 0);
        for snapshot in 1..=SNAPSHOTS {
            let rows = (snapshot * 7).saturating_sub(KEPT)..snapshot * 7;
            let (kept, new) = plan(&parts, &rows);
            written += count(&new);
            parts = kept;
            parts.push(JournalPart {
                path: snapshot.to_string(),
                rows: new,
            });
            let gaps = parts
                .windows(2)
                .any(|two| two[0].rows.end != two[1].rows.start);
            assert!(!gaps, "{parts:?}");
            let (first, last) = (&parts[0].rows, &parts[parts.len() - 1].rows);
            assert!(first.start <= rows.start && last.end == rows.end);
            assert!(first.end > rows.start, "a file of forgotten rows stays");
            assert!(parts.len() < 14, "{} files", parts.len());
        }
        assert!(written < SNAPSHOTS * 7 * 12, "{written} rows");
    }

    #[test]
    fn without_new_rows_no_file_is_made() {
        let part = JournalPart {
            rows: 0..5,
            path: "p".to_owned(),
        };
        let parts = std::slice::from_ref(&part);
        assert_eq!(plan(parts, &(0..5)), (vec![part.clone()], 5..5));
        assert_eq!(plan(&[], &(0..0)), (vec![], 0..0));
        assert_eq!(plan(&[part], &(5..7)), (vec![], 5..7));
    }
}
