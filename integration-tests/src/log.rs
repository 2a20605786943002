//! What a server has logged, and whether any of it is a reason to worry.

use std::{fmt, fs, path::Path};

use serde_json::Value;

/// A text that may stand in a warning or an error, and why.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    pub(crate) text: String,
    pub(crate) reason: &'static str,
}

/// One line of a log in JSON.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    raw: String,
    level: Option<String>,
}

impl Line {
    fn parse(raw: &str) -> Self {
        let level = serde_json::from_str::<Value>(raw)
            .ok()
            .and_then(|line| Some(line.get("level")?.as_str()?.to_owned()));
        Self {
            raw: raw.to_owned(),
            level,
        }
    }

    /// Whatever is not plainly harmless: also a panic's message, which has no level. Of two
    /// fields of the same name the last one counts, so a plugin's line cannot have a `level`.
    fn worries(&self) -> bool {
        !matches!(self.level.as_deref(), Some("INFO" | "DEBUG" | "TRACE"))
    }

    /// Whether it contains the text.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.raw.contains(text)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

/// The lines of one file; none if it is not there.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .filter(|line| !line.is_empty())
        .map(Line::parse)
        .collect()
}

/// The lines that are not allowed.
pub(crate) fn unexpected(lines: &[Line], allowed: &[Allowed]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line.worries())
        .filter(|line| !allowed.iter().any(|allowed| line.contains(&allowed.text)))
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_errors_and_panics_are_unexpected_unless_allowed() {
        let lines: Vec<_> = [
            r#"{"level":"INFO","fields":{"message":"started"}}"#,
            r#"{"level":"WARN","fields":{"message":"slow disk"}}"#,
            r#"{"level":"ERROR","fields":{"message":"plugin failed"}}"#,
            "thread 'main' panicked at src/main.rs:1:1:",
        ]
        .map(Line::parse)
        .into();
        let allowed = Allowed {
            text: "plugin failed".to_owned(),
            reason: "the plugin raises on purpose",
        };
        let unexpected = unexpected(&lines, &[allowed]);
        assert_eq!(unexpected.len(), 2, "{unexpected:?}");
        assert!(unexpected[0].contains("slow disk"));
        assert!(unexpected[1].contains("panicked"));
    }
}
