//! Collects the lines that an invocation buffers, within its budget.

use std::collections::BTreeMap;

use outrigger_proto::v1::Lines;

/// Lines by target; `None` is the plugin's own.
pub(crate) type Collected = BTreeMap<Option<String>, String>;

/// How many lines there are; empty ones and comments, which begin with `#`, don't count.
pub(crate) fn count_lines(text: &str) -> u64 {
    let counts = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines().filter(counts).count() as u64
}

/// The longest name of a target, in bytes.
const TARGET_BYTES_MAX: usize = 1024;
/// The most targets of one invocation.
const TARGETS_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Collector {
    budget: usize,
    chunks: BTreeMap<Option<String>, Vec<u8>>,
}

impl Collector {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            budget,
            chunks: BTreeMap::new(),
        }
    }

    /// Takes a chunk in, or says what is wrong with it.
    pub(super) fn add(&mut self, lines: Lines) -> Result<(), String> {
        // Costs nothing of the budget, so there could be any number of them.
        if lines.text.is_empty() {
            return Err("lines without text".to_owned());
        }
        self.budget = self
            .budget
            .checked_sub(lines.text.len())
            .ok_or("it buffered more bytes of lines than the limit of an invocation")?;
        if lines.target.len() > TARGET_BYTES_MAX {
            return Err("lines for a target with an over-long name".to_owned());
        }
        let target = (!lines.target.is_empty()).then_some(lines.target);
        // The names are not counted in the budget either.
        if self.chunks.len() >= TARGETS_MAX && !self.chunks.contains_key(&target) {
            return Err("lines for more targets than there can be".to_owned());
        }
        let text = self.chunks.entry(target).or_default();
        if !text.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(&lines.text);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Collected, String> {
        self.chunks
            .into_iter()
            .map(|(target, text)| {
                let text =
                    String::from_utf8(text).map_err(|_invalid| "lines that are not UTF-8")?;
                Ok((target, text))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(target: &str, text: &str) -> Lines {
        Lines {
            invocation: String::new(),
            target: target.to_owned(),
            text: text.into(),
        }
    }

    #[test]
    fn chunks_are_joined_by_target() {
        let mut collector = Collector::new(1000);
        for (target, text) in [("", "a f=1"), ("x", "b f=1"), ("", "a f=2")] {
            collector.add(lines(target, text)).unwrap();
        }
        let collected = collector.finish().unwrap();
        assert_eq!(collected[&None], "a f=1\na f=2");
        assert_eq!(collected[&Some("x".to_owned())], "b f=1");
    }

    #[test]
    fn neither_nothing_nor_endless_targets_are_taken() {
        let mut collector = Collector::new(1 << 20);
        assert!(collector.add(lines("", "")).is_err());
        let taken =
            (0..2 * TARGETS_MAX).filter(|n| collector.add(lines(&n.to_string(), "x")).is_ok());
        assert_eq!(taken.count(), TARGETS_MAX);
    }

    #[test]
    fn the_budget_holds() {
        let mut collector = Collector::new(9);
        collector.add(lines("", "12345")).unwrap();
        assert!(collector.add(lines("", "12345")).is_err());
    }
}
