//! The table of attempts and layers: `docs/escapes.md`, made by a run and compared with the next.

use std::{fs, path::PathBuf};

use super::{attempts::Attempt, house::Outcome};

/// Where the rows begin and end.
const BEGIN: &str = "<!-- made by `make escapes`; do not change by hand -->";
const END: &str = "<!-- end of the table -->";

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/escapes.md"))
}

fn stored() -> (String, String, String) {
    let text = fs::read_to_string(path()).expect("it is part of the repository");
    let (head, rest) = text.split_once(BEGIN).expect("it has a table");
    let (table, tail) = rest.split_once(END).expect("it has a table's end");
    (head.to_owned(), table.trim().to_owned(), tail.to_owned())
}

fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_matches('|');
    row.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn mark(outcome: &Outcome) -> &'static str {
    match (outcome.ran, outcome.escaped()) {
        (false, _) => "–",
        (true, true) => "X",
        (true, false) => "·",
    }
}

/// Compares one column of the stored table.
pub(super) fn check_column(column: &str, outcomes: &[Outcome]) {
    let (_, table, _) = stored();
    let mut rows = table.lines();
    let head = cells(rows.next().expect("it has a head"));
    let at = head.iter().position(|name| name == column);
    let at = at.unwrap_or_else(|| panic!("no column {column:?} in {head:?}"));
    let expected: Vec<_> = rows
        .skip(1)
        .map(cells)
        .map(|row| (row[0].clone(), row[at].clone()))
        .collect();
    let attempts = Attempt::all();
    let found = attempts.iter().zip(outcomes);
    let found: Vec<_> = found
        .map(|(attempt, outcome)| (attempt.name.clone(), mark(outcome).to_owned()))
        .collect();
    let differ = |(name, mark): &&(String, String)| {
        !expected.iter().any(|(n, m)| n == name && m == mark) && name != "sum"
    };
    let different: Vec<_> = found.iter().filter(differ).collect();
    assert!(
        different.is_empty(),
        "not as in docs/escapes.md: {different:?}"
    );
}

/// Compares the whole table, or stores it where `ESCAPES=write`.
pub(super) fn check(attempts: &[Attempt], columns: &[(String, Vec<Outcome>)]) {
    let made = render(attempts, columns);
    let (head, table, tail) = stored();
    let write = std::env::vars().any(|(name, value)| name == "ESCAPES" && value == "write");
    if write {
        let text = format!("{head}{BEGIN}\n\n{made}\n\n{END}{tail}");
        fs::write(path(), text).expect("write the table");
    } else {
        assert_eq!(made, table, "docs/escapes.md is not true any more");
    }
}

fn render(attempts: &[Attempt], columns: &[(String, Vec<Outcome>)]) -> String {
    let row = |cells: Vec<&str>| format!("| {} |", cells.join(" | "));
    let names = columns.iter().map(|(name, _)| name.as_str());
    let head: Vec<_> = ["attempt", "expected"].into_iter().chain(names).collect();
    let rule = vec!["---"; head.len()];
    let mut rows = vec![row(head), row(rule)];
    for (at, attempt) in attempts.iter().enumerate() {
        let mut cells = vec![attempt.name.as_str()];
        cells.push(attempt.header("expect").unwrap_or_default());
        cells.extend(columns.iter().map(|(_, outcomes)| mark(&outcomes[at])));
        rows.push(row(cells));
    }
    let sums = columns.iter().map(|(_, outcomes)| {
        let escaped = outcomes.iter().filter(|outcome| outcome.escaped());
        escaped.count().to_string()
    });
    let sums: Vec<_> = sums.collect();
    let mut cells = vec!["sum", ""];
    cells.extend(sums.iter().map(String::as_str));
    rows.push(row(cells));
    rows.join("\n")
}
