//! What kind of failure something is, and how a chain of causes is printed.

use std::{error::Error, fmt};

/// Who is to blame for a failure and what a caller may do about it. The API has
/// one table that maps a kind to an HTTP status and a gRPC code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// The request is wrong; repeating it won't help.
    Invalid,
    /// What the request names does not exist.
    NotFound,
    /// What the request would create exists, or its state forbids the request.
    Conflict,
    /// A limit was reached; less, or later, may work.
    Exhausted,
    /// Something this server needs is away; try again.
    Unavailable,
    /// It took too long.
    Deadline,
    /// Our own fault.
    Internal,
}

/// Prints an error and its causes, `: ` between them. For the one place that
/// handles the error; `Display` of our errors prints their own level only.
#[derive(Debug)]
pub struct Report<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut last = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries print their source and return it too.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open entry 7")]
    struct OpenError(#[source] std::io::Error);

    #[test]
    fn the_whole_chain_is_printed_once() {
        let error = OpenError(std::io::Error::other("disk is gone"));
        assert_eq!(Report(&error).to_string(), "open entry 7: disk is gone");
    }
}
