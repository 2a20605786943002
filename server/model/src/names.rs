//! Which names a database may have.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest database name, in bytes.
pub const DATABASE_NAME_BYTES_MAX: usize = 511;

/// The database that holds the server's own tables; it exists always and cannot be changed.
pub const INTERNAL_DATABASE: &str = "_internal";

/// A valid name of a user's database: an ASCII letter or digit, then letters, digits,
/// `_`, `-` and at most one `/`, which may not be last.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(String);

impl DatabaseName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> Self {
        name.0
    }
}

/// Why a database name was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseNameError {
    /// There is no name at all.
    #[error("db name cannot be empty")]
    Empty,
    /// Longer than [`DATABASE_NAME_BYTES_MAX`].
    #[error("db name has {bytes} bytes, the limit is {DATABASE_NAME_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The first character is neither a letter nor a digit.
    #[error("db name {name:?} did not start with a number or letter")]
    Start {
        /// The name.
        name: String,
    },
    /// Some other character is not allowed.
    #[error(
        "db name {name:?} contains invalid character {character:?}: must only contain ASCII letters, \
         numbers, `_`, `-`, and at most one `/`, which cannot be last"
    )]
    Character {
        /// The name.
        name: String,
        /// The first character that is not allowed where it stands.
        character: char,
    },
}

impl FromStr for DatabaseName {
    type Err = DatabaseNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let Some(first) = name.chars().next() else {
            return Err(DatabaseNameError::Empty);
        };
        if name.len() > DATABASE_NAME_BYTES_MAX {
            return Err(DatabaseNameError::TooLong { bytes: name.len() });
        }
        if !first.is_ascii_alphanumeric() {
            return Err(DatabaseNameError::Start {
                name: name.to_owned(),
            });
        }
        let refuse = |character| DatabaseNameError::Character {
            name: name.to_owned(),
            character,
        };
        let mut slashes = 0;
        for character in name.chars() {
            slashes += usize::from(character == '/');
            let allowed = character.is_ascii_alphanumeric() || "_-/".contains(character);
            if !allowed || slashes > 1 {
                return Err(refuse(character));
            }
        }
        if name.ends_with('/') {
            return Err(refuse('/'));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = DatabaseNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_contract() {
        for good in ["a", "7", "sensors-eu_1", "db/rp", &"x".repeat(511)] {
            assert!(good.parse::<DatabaseName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "_internal",
            "-a",
            "a b",
            "ä",
            "a/b/c",
            "a/",
            "a.b",
            &"x".repeat(512),
        ] {
            assert!(bad.parse::<DatabaseName>().is_err(), "{bad}");
        }
    }
}
