//! Which files a query reads of a table, and why it leaves the others out: what `EXPLAIN`
//! says of it.

use std::{fmt, sync::Arc};

use outrigger_storage::ParquetFile;
use parking_lot::Mutex;

/// So many files of a table are named.
const NAMED_MAX: usize = 200;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// All of it is older than the database keeps rows.
    Retention,
    /// It has no rows of the wanted time.
    Time,
    /// Others have enough rows.
    Limit,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Time => "time",
            Self::Limit => "limit",
        }
    }
}

/// What one scan of a table reads.
#[derive(Debug)]
pub(crate) struct Choice {
    table: String,
    rows_in_memory: usize,
    read: Vec<Arc<ParquetFile>>,
    left_out: Vec<(Reason, Arc<ParquetFile>)>,
}

impl Choice {
    pub(super) fn of(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            rows_in_memory: 0,
            read: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// So many of the rows in memory are read.
    pub(super) fn count_rows(&mut self, rows: usize) {
        self.rows_in_memory += rows;
    }

    /// These files are read.
    pub(super) fn read(&mut self, files: &[Arc<ParquetFile>]) {
        self.read.extend(files.iter().cloned());
    }

    /// This file is not.
    pub(super) fn leave_out(&mut self, reason: Reason, file: Arc<ParquetFile>) {
        self.left_out.push((reason, file));
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, left_out) = (self.read.len(), self.left_out.len());
        write!(
            f,
            "{}: {read} of {} files read, {} rows in memory",
            self.table,
            read + left_out,
            self.rows_in_memory
        )?;
        for file in self.read.iter().take(NAMED_MAX) {
            write!(f, "\n  read: {}", file.path)?;
        }
        if read > NAMED_MAX {
            write!(f, "\n  and {} more", read - NAMED_MAX)?;
        }
        for (reason, file) in self.left_out.iter().take(NAMED_MAX) {
            write!(f, "\n  left out by {}: {}", reason.as_str(), file.path)?;
        }
        if left_out > NAMED_MAX {
            write!(f, "\n  and {} more left out", left_out - NAMED_MAX)?;
        }
        Ok(())
    }
}

/// What all scans of a query read. It travels in the session's settings.
#[derive(Debug, Default)]
pub(crate) struct Choices(Mutex<Vec<Choice>>);

impl Choices {
    pub(super) fn add(&self, choice: Choice) {
        self.0.lock().push(choice);
    }

    /// All of it as text; `None` if no table was looked at.
    pub(crate) fn text(&self) -> Option<String> {
        let choices = self.0.lock();
        let lines: Vec<String> = choices.iter().map(Choice::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}
