//! How many bytes: a size that prints and parses as people write it.

use std::{fmt, str::FromStr};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(pub usize);

impl ByteSize {
    /// `n` mebibytes.
    pub const fn mib(n: usize) -> Self {
        Self(n * 1024 * 1024)
    }

    /// `n` kibibytes.
    pub const fn kib(n: usize) -> Self {
        Self(n * 1024)
    }
}

const UNITS: [(&str, usize); 3] = [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}b", self.0)
    }
}

/// A size that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("size {0:?} is not a number with b, kb, mb or gb behind it")]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ByteSizeError(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(unit, size)| lower.strip_suffix(unit).map(|digits| (digits, *size)))
            .or_else(|| lower.strip_suffix('b').map(|digits| (digits, 1)))
            // A bare number counts megabytes, as in InfluxDB 3.
            .unwrap_or((lower.as_str(), 1 << 20));
        let count: usize = digits.trim().parse().ok().ok_or_else(refuse)?;
        count.checked_mul(unit).map(Self).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        check("10mb", "10mb");
        check("2048kb", "2mb");
        check("7", "7mb");
        check("12b", "12b");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!("many".parse::<ByteSize>().is_err());
        assert!("99999999999999999999gb".parse::<ByteSize>().is_err());
    }

    #[track_caller]
    fn check(text: &str, printed: &str) {
        assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), printed);
    }
}
