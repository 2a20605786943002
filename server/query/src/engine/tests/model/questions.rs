//! What is asked in SQL, and what plain maps answer.

use std::collections::BTreeMap;

use rand::{RngExt as _, rngs::StdRng};

use super::lines::{Fields, Key, Kind, Table, Value};

/// About so many columns are asked for at once.
const FIELDS_MAX: usize = 3;

/// What stands where there is no value.
pub(super) const NULL: &str = "-";

/// A condition on a point. What is unknown does not pass, as in SQL.
#[derive(Clone, Debug)]
enum Condition {
    Tag(&'static str, String),
    NoTag(&'static str),
    Above(String, i64),
    None(String),
    Since(i64),
    Before(i64),
    Both(Box<Self>, Box<Self>),
    Either(Box<Self>, Box<Self>),
}

impl Condition {
    fn random(random: &mut StdRng, table: &Table, depth: usize) -> Self {
        let of = |random: &mut StdRng| Box::new(Self::random(random, table, depth + 1));
        let times: Vec<i64> = table.points.keys().map(|(_, time)| *time).collect();
        let time = times.get(random.random_range(0..times.len().max(1)));
        let time = time.copied().unwrap_or_default();
        let tags: Vec<_> = table.tags.iter().copied().collect();
        let tag = tags.get(random.random_range(0..3)).copied();
        let numbers = table.fields.iter();
        let numbers = numbers.filter(|(_, kind)| matches!(kind, Kind::Float | Kind::Int));
        let numbers: Vec<&String> = numbers.map(|(name, _)| name).collect();
        let number = numbers.get(random.random_range(0..numbers.len().max(1)));
        let number = number.map(|name| (*name).clone());
        match (random.random_range(0..10), tag, number) {
            (0 | 1, Some(tag), _) => Self::Tag(tag, format!("{tag}{}", random.random_range(0..3))),
            (2, Some(tag), _) => Self::NoTag(tag),
            (3 | 4, _, Some(number)) => Self::Above(number, random.random_range(0..15)),
            (5, _, Some(number)) => Self::None(number),
            (6, ..) if depth < 2 => Self::Both(of(random), of(random)),
            (7, ..) if depth < 2 => Self::Either(of(random), of(random)),
            (8, ..) => Self::Before(time),
            _ => Self::Since(time),
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::Tag(tag, value) => format!("{tag} = '{value}'"),
            Self::NoTag(tag) => format!("{tag} IS NULL"),
            Self::Above(field, value) => format!("{field} > {value}"),
            Self::None(field) => format!("{field} IS NULL"),
            Self::Since(time) => format!("time >= to_timestamp_nanos({time})"),
            Self::Before(time) => format!("time < to_timestamp_nanos({time})"),
            Self::Both(one, other) => format!("({} AND {})", one.sql(), other.sql()),
            Self::Either(one, other) => format!("({} OR {})", one.sql(), other.sql()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    fn passes(&self, key: &Key, fields: &Fields) -> bool {
        let (tags, time) = key;
        match self {
            Self::Tag(tag, value) => tags.get(tag) == Some(value),
            Self::NoTag(tag) => !tags.contains_key(tag),
            Self::Above(field, value) => match fields.get(field) {
                Some(Value::Int(found)) => found > value,
                Some(Value::Float(found)) => *found > *value as f64,
                _ => false,
            },
            Self::None(field) => !fields.contains_key(field),
            Self::Since(least) => time >= least,
            Self::Before(end) => time < end,
            Self::Both(one, other) => one.passes(key, fields) && other.passes(key, fields),
            Self::Either(one, other) => one.passes(key, fields) || other.passes(key, fields),
        }
    }
}

/// A query, and its rows as they must be, in any order.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) sql: String,
    pub(super) rows: Vec<Vec<String>>,
}

impl Question {
    /// A question on a table, of whose points those from `oldest` on can be seen.
    pub(super) fn random(random: &mut StdRng, name: &str, table: &Table, oldest: i64) -> Self {
        let condition =
            (random.random_range(0..4) > 0).then(|| Condition::random(random, table, 0));
        let passes = |(key, fields): &(&Key, &Fields)| {
            let condition = condition.as_ref();
            key.1 >= oldest && condition.is_none_or(|condition| condition.passes(key, fields))
        };
        let points: Vec<_> = table.points.iter().filter(passes).collect();
        let condition = condition.as_ref().map(Condition::sql);
        let filter = condition.map_or_else(String::new, |sql| format!(" WHERE {sql}"));
        let chosen = some_columns(random, table);
        match random.random_range(0..8) {
            0..4 => everything(name, &chosen, &points, &filter),
            4 | 5 => sums(name, &chosen, &points, &filter),
            6 => groups(name, &chosen, &points, &filter),
            _ => limited(random, name, &points, &filter),
        }
    }
}

/// The table with some of its fields: planning takes the longer, the more there are.
fn some_columns(random: &mut StdRng, table: &Table) -> Table {
    let mut chosen = table.without_points();
    while chosen.fields.len() > FIELDS_MAX {
        let number = random.random_range(0..chosen.fields.len());
        let name = chosen.fields.keys().nth(number).cloned();
        chosen.fields.remove(&name.unwrap_or_default());
    }
    chosen
}

type Points<'a> = [(&'a Key, &'a Fields)];

fn everything(name: &str, table: &Table, points: &Points<'_>, filter: &str) -> Question {
    let fields: Vec<&String> = table.fields.keys().collect();
    let tags = table.tags.iter().map(|tag| (*tag).to_owned());
    let columns: Vec<String> = tags
        .chain(fields.iter().map(|name| (*name).clone()))
        .collect();
    let row = |((tags, time), values): &(&Key, &Fields)| {
        let tags = table.tags.iter().map(|tag| tags.get(tag).cloned());
        let values = fields
            .iter()
            .map(|name| values.get(*name).map(Value::shown));
        let shown = tags.chain(values);
        let mut row: Vec<String> = shown
            .map(|value| value.unwrap_or_else(|| NULL.to_owned()))
            .collect();
        row.push(time.to_string());
        row
    };
    Question {
        sql: format!(
            "SELECT {}, CAST(time AS BIGINT) FROM {name}{filter}",
            columns.join(", ")
        ),
        rows: points.iter().map(row).collect(),
    }
}

fn sums(name: &str, table: &Table, points: &Points<'_>, filter: &str) -> Question {
    let mut columns = vec!["count(*)".to_owned()];
    let mut row = vec![points.len().to_string()];
    for (field, kind) in &table.fields {
        let values: Vec<&Value> = points
            .iter()
            .filter_map(|(_, fields)| fields.get(field))
            .collect();
        columns.push(format!("count({field})"));
        row.push(values.len().to_string());
        let sum = match kind {
            Kind::Int => {
                let ints = values.iter().filter_map(|value| match value {
                    Value::Int(value) => Some(value),
                    _ => None,
                });
                Value::Int(ints.sum()).shown()
            }
            Kind::Float => {
                // Halves, so that the order of summing does not matter.
                let floats = values.iter().filter_map(|value| match value {
                    Value::Float(value) => Some(value),
                    _ => None,
                });
                Value::Float(floats.fold(0.0, |sum, value| sum + value)).shown()
            }
            Kind::Text | Kind::Bool => continue,
        };
        columns.push(format!("coalesce(sum({field}), 0)"));
        row.push(sum);
    }
    Question {
        sql: format!("SELECT {} FROM {name}{filter}", columns.join(", ")),
        rows: vec![row],
    }
}

fn groups(name: &str, table: &Table, points: &Points<'_>, filter: &str) -> Question {
    let Some(tag) = table.tags.first().copied() else {
        return sums(name, table, points, filter);
    };
    let mut found: BTreeMap<String, (usize, i64, i64)> = BTreeMap::new();
    for ((tags, time), _) in points {
        let group = tags.get(tag).cloned().unwrap_or_else(|| NULL.to_owned());
        let group = found.entry(group).or_insert((0, *time, *time));
        *group = (group.0 + 1, group.1.min(*time), group.2.max(*time));
    }
    let rows = found.into_iter().map(|(group, (count, least, most))| {
        vec![
            group,
            count.to_string(),
            least.to_string(),
            most.to_string(),
        ]
    });
    Question {
        sql: format!(
            "SELECT {tag}, count(*), CAST(min(time) AS BIGINT), CAST(max(time) AS BIGINT) \
             FROM {name}{filter} GROUP BY {tag}"
        ),
        rows: rows.collect(),
    }
}

fn limited(random: &mut StdRng, name: &str, points: &Points<'_>, filter: &str) -> Question {
    let limit = random.random_range(1..12);
    Question {
        sql: format!("SELECT count(*) FROM (SELECT * FROM {name}{filter} LIMIT {limit})"),
        rows: vec![vec![points.len().min(limit).to_string()]],
    }
}
