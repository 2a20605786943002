//! Which database, table, trigger or log entry is meant: the numbers that stand
//! for them in the log.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A database, for its whole life; never used again after it was deleted.
    DatabaseId(u32)
}
id! {
    /// A table, unique over all databases.
    TableId(u32)
}
id! {
    /// A trigger, unique over all databases.
    TriggerId(u32)
}
id! {
    /// The number of a log entry. Total order; the first entry is 1, so 0 means "before all".
    Sequence(u64)
}

impl Sequence {
    /// The sequence after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
