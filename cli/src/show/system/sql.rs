//! The SQL behind `show system …`, and the only place that quotes identifiers.

use std::fmt;

/// One row per system table, with its columns.
pub(super) const LIST_TABLES: &str = "SELECT table_name, \
     array_agg(column_name ORDER BY column_name) AS column_names \
     FROM information_schema.columns WHERE table_schema = 'system' \
     GROUP BY table_name ORDER BY table_name";

/// One row per system table.
pub(super) const TABLE_NAMES: &str = "SELECT DISTINCT table_name \
     FROM information_schema.columns WHERE table_schema = 'system' ORDER BY table_name";

/// Reads rows of one system table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableQuery<'a> {
    /// The table, without its schema.
    pub(super) table: &'a str,
    /// The columns to show; none means all.
    pub(super) select: &'a [String],
    /// The columns to order by, each with an optional direction; none means the table's own.
    pub(super) order_by: &'a [String],
    /// The most rows to read; zero means all.
    pub(super) limit: u64,
}

impl fmt::Display for TableQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let select = list(self.select, quote).unwrap_or_else(|| "*".to_owned());
        write!(f, "SELECT {select} FROM system.{}", quote(self.table))?;
        if let Some(filter) = default_filter(self.table) {
            write!(f, " WHERE {filter}")?;
        }
        let order = list(self.order_by, order).or_else(|| default_order(self.table).map(quote));
        if let Some(order) = order {
            write!(f, " ORDER BY {order}")?;
        }
        if self.limit > 0 {
            write!(f, " LIMIT {}", self.limit)?;
        }
        Ok(())
    }
}

fn list(items: &[String], render: impl Fn(&str) -> String) -> Option<String> {
    let rendered: Vec<_> = items.iter().map(|item| render(item)).collect();
    (!rendered.is_empty()).then(|| rendered.join(", "))
}

fn order(item: &str) -> String {
    let item = item.trim();
    if let Some((column, direction)) = item.rsplit_once(char::is_whitespace) {
        let direction = direction.to_ascii_uppercase();
        if matches!(direction.as_str(), "ASC" | "DESC") {
            return format!("{} {direction}", quote(column));
        }
    }
    quote(item)
}

fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.trim().replace('"', "\"\""))
}

/// The log of queries would otherwise fill up with the ones of this very command.
fn default_filter(table: &str) -> Option<&'static str> {
    (table == "queries").then_some(r"NOT regexp_like(query_text, '(system|information_schema)\.')")
}

fn default_order(table: &str) -> Option<&'static str> {
    match table {
        "queries" => Some("end2end_duration"),
        "last_caches" => Some("count"),
        "parquet_files" => Some("size_bytes"),
        "distinct_caches" => Some("max_cardinality"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(table: &str, select: &[&str], order_by: &[&str], limit: u64, expected: &str) {
        let owned = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let query = TableQuery {
            table,
            select: &owned(select),
            order_by: &owned(order_by),
            limit,
        };
        assert_eq!(query.to_string(), expected);
    }

    #[test]
    fn everything_is_shown_by_default() {
        check("x", &[], &[], 0, r#"SELECT * FROM system."x""#);
        check("x", &[], &[], 10, r#"SELECT * FROM system."x" LIMIT 10"#);
    }

    #[test]
    fn identifiers_are_quoted() {
        check(
            r#"x"; DROP"#,
            &["a", "B c"],
            &["a", "B desc"],
            1,
            r#"SELECT "a", "B c" FROM system."x""; DROP" ORDER BY "a", "B" DESC LIMIT 1"#,
        );
    }

    #[test]
    fn some_tables_have_an_order_of_their_own() {
        check(
            "parquet_files",
            &[],
            &[],
            0,
            r#"SELECT * FROM system."parquet_files" ORDER BY "size_bytes""#,
        );
        check(
            "parquet_files",
            &[],
            &["path"],
            0,
            r#"SELECT * FROM system."parquet_files" ORDER BY "path""#,
        );
    }

    #[test]
    fn queries_of_this_command_are_left_out() {
        check(
            "queries",
            &["query_text"],
            &[],
            100,
            r#"SELECT "query_text" FROM system."queries" WHERE NOT regexp_like(query_text, '(system|information_schema)\.') ORDER BY "end2end_duration" LIMIT 100"#,
        );
    }
}
