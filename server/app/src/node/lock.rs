//! Who uses a node's directory: one server at a time.
//!
//! A lock on a file, which the system gives back when its holder ends, however that happens.
//! The log's entries are put if absent besides, for stores that know no locks.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    io::Errno,
};

use super::NodeError;

const NAME: &str = "server.lock";

/// Held as long as the server runs. Not inherited by the processes that it starts.
#[derive(Debug)]
pub(crate) struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes the lock of a node's directory, which is made if it is not there.
    pub(super) fn take(directory: &Path) -> Result<Self, NodeError> {
        let path = directory.join(NAME);
        let failed = |source: io::Error| NodeError::Lock {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.map_err(failed)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::ACCESS | Errno::AGAIN) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed)?;
                let holder = match holder.trim() {
                    "" => "another server".to_owned(),
                    holder => format!("another server ({holder})"),
                };
                return Err(NodeError::Taken { holder, path });
            }
            Err(error) => return Err(failed(error.into())),
        }
        say_who(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// For the message that another server ends with.
fn say_who(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    writeln!(file, "process {} on {}", std::process::id(), host.trim())
}
