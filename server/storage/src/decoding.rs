//! Where bytes become rows that somebody else may have damaged: whatever they are, the answer is
//! rows or an error.
//!
//! Checksums say that bytes were written, not that they were rows, and some objects have none. Of
//! some that are no rows, the readers of Arrow and Parquet panic, and of some they ask for more
//! memory than there is, which would end the process.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow::{error::ArrowError, ipc::root_as_message};

/// What a reader has panicked with.
#[derive(Debug, thiserror::Error)]
#[error("it makes no sense: {0}")]
pub(crate) struct Senseless(String);

/// Runs what reads bytes; a panic becomes an error.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, Senseless> {
    // What `read` has changed is not looked at any more after an error.
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| Senseless(words(panic.as_ref())))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a reader has panicked").to_owned()
}

/// In front of each message of an Arrow stream, and at its end with a length of zero.
const CONTINUES: u32 = u32::MAX;

/// Checks that no message of an Arrow stream says that it is longer than the stream: so much
/// memory would be asked for. Nor is any of them compressed; what would it become?
pub(crate) fn check_stream(mut bytes: &[u8]) -> Result<(), ArrowError> {
    let invalid = |text: &str| ArrowError::IpcError(text.to_owned());
    while let Some(mut length) = number(&mut bytes) {
        if length == CONTINUES {
            length = number(&mut bytes).ok_or_else(|| invalid("it ends in front of a message"))?;
        }
        if length == 0 {
            return Ok(());
        }
        let (head, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.split_at_checked(length))
            .ok_or_else(|| invalid("a message is longer than what there is"))?;
        let message = root_as_message(head).map_err(|error| invalid(&error.to_string()))?;
        let body = usize::try_from(message.bodyLength()).ok();
        let body = body.and_then(|length| rest.get(length..));
        bytes =
            body.ok_or_else(|| invalid("the rows of a message are longer than what there is"))?;
        let rows = message.header_as_record_batch();
        let rows = rows.or_else(|| message.header_as_dictionary_batch()?.data());
        if rows.is_some_and(|rows| rows.compression().is_some()) {
            return Err(invalid("it is compressed, which no server writes"));
        }
    }
    Ok(())
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_words() {
        assert_eq!(guarded(|| 7).unwrap(), 7);
        let panics: [(fn(), &str); 2] = [
            (|| panic!("of {}", 1), "it makes no sense: of 1"),
            (|| panic!("plain"), "it makes no sense: plain"),
        ];
        for (panics, words) in panics {
            assert_eq!(guarded(panics).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn lengths_that_are_too_large_are_refused() {
        for bytes in [
            &[255, 255, 255, 255][..],
            &[255, 255, 255, 255, 9, 0, 0, 0, 1],
            &[255, 255, 255, 127],
        ] {
            assert!(check_stream(bytes).is_err(), "{bytes:?}");
        }
        assert!(check_stream(&[255, 255, 255, 255, 0, 0, 0, 0, 7]).is_ok());
        assert!(check_stream(&[]).is_ok());
    }
}
