//! What is written, as lines and as a plain map.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, rngs::StdRng};

const SECOND: i64 = 1_000_000_000;
const WINDOW: i64 = 600 * SECOND;

/// What a field holds, shown as queries show it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Float(f64),
    Int(i64),
    Text(String),
    Bool(bool),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Float,
    Int,
    Text,
    Bool,
}

impl Value {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Float(_) => Kind::Float,
            Self::Int(_) => Kind::Int,
            Self::Text(_) => Kind::Text,
            Self::Bool(_) => Kind::Bool,
        }
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::Float(value) => format!("{value:?}"),
            Self::Int(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::Bool(value) => value.to_string(),
        }
    }

    fn in_line(&self) -> String {
        match self {
            Self::Float(value) => format!("{value:?}"),
            Self::Int(value) => format!("{value}i"),
            Self::Text(value) => format!("\"{value}\""),
            Self::Bool(value) => value.to_string(),
        }
    }
}

/// A point's tags, without those it does not have, and its time.
pub(super) type Key = (BTreeMap<&'static str, String>, i64);
pub(super) type Fields = BTreeMap<String, Value>;

/// A table as it must be.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) tags: BTreeSet<&'static str>,
    pub(super) fields: BTreeMap<String, Kind>,
    pub(super) points: BTreeMap<Key, Fields>,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) table: &'static str,
    pub(super) key: Key,
    pub(super) fields: Fields,
}

pub(super) const TABLES: [&str; 2] = ["m", "n"];
const TAGS: [&str; 3] = ["t", "u", "v"];

impl Line {
    /// A line whose times are around `now`.
    pub(super) fn random(random: &mut StdRng, now: i64) -> Self {
        let mut tags = BTreeMap::new();
        for (tag, absent) in TAGS.into_iter().zip([8, 3, 2]) {
            if random.random_range(0..absent) != 0 {
                tags.insert(tag, format!("{tag}{}", random.random_range(0..3)));
            }
        }
        // Two hours ago, or half an hour, so that a retention of one hour parts them.
        let hours = [2 * 3600, 1800][random.random_range(0..2)];
        let time = now - hours * SECOND
            + random.random_range(0..2) * WINDOW
            + random.random_range(0..4) * SECOND;
        let mut fields = Fields::new();
        for _ in 0..random.random_range(1..4) {
            let (name, value) = field(random);
            fields.insert(name, value);
        }
        Self {
            table: TABLES[random.random_range(0..TABLES.len())],
            key: (tags, time),
            fields,
        }
    }

    pub(super) fn text(&self) -> String {
        let (tags, time) = &self.key;
        let tags = tags
            .iter()
            .flat_map(|(name, value)| [",", name, "=", value]);
        let tags: String = tags.collect();
        let fields = self.fields.iter();
        let fields: Vec<String> = fields
            .map(|(name, value)| format!("{name}={}", value.in_line()))
            .collect();
        format!("{}{tags} {} {time}", self.table, fields.join(","))
    }
}

/// Mostly a column that there is, of the type it has; seldom a new one, or of another type.
fn field(random: &mut StdRng) -> (String, Value) {
    let number = random.random_range(0..20);
    match random.random_range(0..24) {
        0..7 => ("f".to_owned(), Value::Float(f64::from(number) / 2.0)),
        7..14 => ("i".to_owned(), Value::Int(i64::from(number))),
        14..17 => ("s".to_owned(), Value::Text(format!("text {number}"))),
        17..20 => ("b".to_owned(), Value::Bool(number > 9)),
        20..22 => (format!("x{}", number % 4), Value::Int(i64::from(number))),
        22 => ("either".to_owned(), Value::Text(number.to_string())),
        _ => ("either".to_owned(), Value::Int(i64::from(number))),
    }
}

impl Table {
    pub(super) fn without_points(&self) -> Self {
        Self {
            tags: self.tags.clone(),
            fields: self.fields.clone(),
            points: BTreeMap::new(),
        }
    }

    /// Takes the line in, unless a field has another type.
    pub(super) fn take(&mut self, line: &Line) -> bool {
        let conflicts = |(name, value): (&String, &Value)| {
            let known = self.fields.get(name);
            known.is_some_and(|kind| *kind != value.kind())
        };
        if line.fields.iter().any(conflicts) {
            return false;
        }
        self.tags.extend(line.key.0.keys().copied());
        let kinds = line.fields.iter();
        let kinds = kinds.map(|(name, value)| (name.clone(), value.kind()));
        self.fields.extend(kinds);
        let point = self.points.entry(line.key.clone()).or_default();
        point.extend(line.fields.clone());
        true
    }
}
