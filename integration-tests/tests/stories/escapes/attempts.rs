//! The attempts: what their headers say.

use std::{collections::BTreeMap, fs, path::Path};

/// Where they are, one plugin per file.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/escapes");

/// They go on until their deadline.
const ENDLESS: [&str; 3] = ["033", "035", "059"];

/// How an attempt must end where the sandbox holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    /// It is refused, and says so.
    Blocked,
    /// It may do what it does, to itself; also end its own worker.
    Contained,
    /// A limit ends it.
    Limit,
    /// It gets what it wants, which is known and harmless.
    Tolerated,
}

/// One plugin that tries to get out.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The file's name without `.py`.
    pub(super) name: String,
    pub(super) source: String,
    headers: BTreeMap<String, String>,
}

impl Attempt {
    /// All of them, in the order of their numbers.
    pub(super) fn all() -> Vec<Self> {
        let directory = fs::read_dir(DIRECTORY).expect("it is part of the repository");
        let paths = directory.map(|entry| entry.expect("it can be listed").path());
        let plugins = paths.filter(|path| path.extension().is_some_and(|end| end == "py"));
        let mut attempts: Vec<_> = plugins.map(|path| Self::read(&path)).collect();
        attempts.sort_by(|a, b| a.name.cmp(&b.name));
        attempts
    }

    fn read(path: &Path) -> Self {
        let source = fs::read_to_string(path).expect("it is part of the repository");
        let name = path.file_stem().expect("it has a name").to_string_lossy();
        let lines = source.lines().take_while(|line| line.starts_with("# "));
        let headers = lines.filter_map(|line| {
            let (key, value) = line[2..].split_once(": ")?;
            Some((key.to_owned(), value.to_owned()))
        });
        Self {
            name: name.into_owned(),
            headers: headers.collect(),
            source,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn expected(&self) -> Expected {
        match self.header("expect") {
            Some("blocked") => Expected::Blocked,
            Some("contained") => Expected::Contained,
            Some("limit") => Expected::Limit,
            Some("tolerated") => Expected::Tolerated,
            other => panic!("{}: expect: {other:?}", self.name),
        }
    }

    pub(super) fn is_tolerated(&self) -> bool {
        self.expected() == Expected::Tolerated
    }

    /// How often it runs, each time as another trigger.
    pub(super) fn turns(&self) -> u32 {
        if let Some(turns) = self.header("turns") {
            return turns.parse().expect("turns: a number");
        }
        let twice = self.header("twice").is_some() || self.name.starts_with("025");
        if twice { 2 } else { 1 }
    }

    /// What it may connect to: nothing, unless it needs more.
    pub(super) fn network(&self) -> &str {
        self.header("network").unwrap_or("none")
    }

    pub(super) fn may_start_processes(&self) -> bool {
        self.header("subprocess") == Some("yes")
    }

    /// Whether it is about what only a server of root can enforce.
    pub(super) fn needs_root(&self) -> bool {
        self.header("as") == Some("root")
    }

    /// How long it gets; those that only their deadline ends get little.
    pub(super) fn timeout(&self) -> &'static str {
        let is_endless = ENDLESS.iter().any(|number| self.name.starts_with(number));
        match self.header("timeout") {
            Some(_) => "50s",
            None if is_endless => "3s",
            None => "20s",
        }
    }
}
