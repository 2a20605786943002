//! What processes print: bytes in, bounded lines out.

use std::collections::VecDeque;

/// A longer line is cut.
pub(crate) const LINE_BYTES_MAX: usize = 8 * 1024;
/// How many last lines of standard error explain a death.
const TAIL_LINES_MAX: usize = 40;

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
    cut: bool,
}

impl LineSplitter {
    /// The lines that `data` completes.
    pub(crate) fn push(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.cut |= text.len() > room;
            self.partial
                .extend_from_slice(&text[..text.len().min(room)]);
            if complete {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// What is left at the end.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let mut line = String::from_utf8_lossy(&self.partial).into_owned();
        if std::mem::take(&mut self.cut) {
            line.push_str(" … (cut)");
        }
        self.partial.clear();
        (!line.is_empty()).then_some(line)
    }
}

/// The last lines of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(VecDeque<String>);

impl Tail {
    pub(crate) fn push(&mut self, line: String) {
        if self.0.len() == TAIL_LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_across_reads() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.push(b"on"), Vec::<String>::new());
        assert_eq!(splitter.push(b"e\n\ntwo\nthr"), ["one", "two"]);
        assert_eq!(splitter.finish().as_deref(), Some("thr"));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn an_endless_line_is_cut_and_does_not_swallow_the_next() {
        let mut splitter = LineSplitter::default();
        for _ in 0..100 {
            assert!(splitter.push(&[b'x'; 1000]).is_empty());
        }
        let lines = splitter.push(b"\nnext\n");
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() < LINE_BYTES_MAX + 20);
        assert_eq!(lines[1], "next");
    }
}
