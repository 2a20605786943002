//! What a `.env` file says: `NAME=value` lines, quotes, comments.

use std::fmt;

/// A line that is neither blank, nor a comment, nor an assignment. Its text is not shown, since
/// such files hold secrets.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct BadLine {
    number: usize,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ignoring line {} of the .env file", self.number)
    }
}

/// The assignments in the file's order.
pub(super) fn parse(text: &str) -> impl Iterator<Item = Result<(String, String), BadLine>> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| assignment(line).ok_or(BadLine { number }))
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(valid) || value.contains('\0') {
        return None;
    }
    Some((name.to_owned(), unquote(value.trim())?))
}

fn unquote(value: &str) -> Option<String> {
    if let Some(quoted) = value.strip_prefix('\'') {
        let (inside, rest) = quoted.split_once('\'')?;
        return is_comment(rest).then(|| inside.to_owned());
    }
    if let Some(quoted) = value.strip_prefix('"') {
        return unescape(quoted);
    }
    // A comment starts at a hash after a blank; `a#b` is all value.
    let end = value.find(" #").unwrap_or(value.len());
    Some(value[..end].trim_end().to_owned())
}

/// Reads up to the closing double quote.
fn unescape(quoted: &str) -> Option<String> {
    let mut inside = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return is_comment(characters.as_str()).then_some(inside),
            '\\' => match characters.next()? {
                'n' => inside.push('\n'),
                other => inside.push(other),
            },
            other => inside.push(other),
        }
    }
}

fn is_comment(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, name: &str, value: &str) {
        let entries: Vec<_> = parse(line).collect();
        assert_eq!(entries, [Ok((name.to_owned(), value.to_owned()))]);
    }

    #[test]
    fn values_may_be_bare_or_quoted() {
        check("A=b", "A", "b");
        check("  export A = b c  ", "A", "b c");
        check("A=", "A", "");
        check("A=x=y#z # a comment", "A", "x=y#z");
        check("A='x # \"y\"' # a comment", "A", "x # \"y\"");
        check(r#"A="x \"y\"\nz""#, "A", "x \"y\"\nz");
    }

    #[test]
    fn blank_lines_and_comments_are_skipped() {
        assert_eq!(parse("\n  \n# A=b\n").count(), 0);
    }

    #[test]
    fn other_lines_are_reported_by_number() {
        for line in ["nonsense", "=x", "A B=c", "A='open", "A=\"open", "A='x'y"] {
            let text = format!("OK=1\n{line}");
            assert_eq!(
                parse(&text).nth(1),
                Some(Err(BadLine { number: 2 })),
                "{line}"
            );
        }
    }
}
