//! Where results go: stdout or a file.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;

use crate::client::Answer;

/// A result could not be delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OutputError {
    /// Whoever read our output has enough, as in `… | head`.
    #[error("nobody reads the output any more")]
    ReaderGone,
    /// The output could not be written.
    #[error("write the output")]
    Write {
        /// What the system said.
        #[from]
        source: io::Error,
    },
}

/// Prints one line on stdout.
pub(crate) fn say(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    Ok(deliver(&mut io::stdout(), format!("{text}\n").as_bytes())?)
}

/// Prints a body on stdout as it arrives, and ends its last line.
pub(crate) async fn print(mut answer: Answer) -> anyhow::Result<()> {
    let mut last_byte = None;
    while let Some(chunk) = answer.next_chunk().await? {
        deliver(&mut io::stdout(), chunk.as_ref())?;
        last_byte = chunk.as_ref().last().copied().or(last_byte);
    }
    if last_byte.is_some_and(|byte| byte != b'\n') {
        deliver(&mut io::stdout(), b"\n")?;
    }
    Ok(())
}

/// Stores a body in a file, byte by byte as it is.
pub(crate) async fn save(mut answer: Answer, path: &Path) -> anyhow::Result<()> {
    let write = || format!("write {}", path.display());
    let mut file = File::create(path).with_context(write)?;
    while let Some(chunk) = answer.next_chunk().await? {
        file.write_all(chunk.as_ref()).with_context(write)?;
    }
    Ok(())
}

fn deliver(output: &mut impl Write, bytes: &[u8]) -> Result<(), OutputError> {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputError::ReaderGone),
        other => Ok(other?),
    }
}
