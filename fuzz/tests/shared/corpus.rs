//! What real servers and clients have written, as it lies in `fuzz/corpus`.

use std::{fs, path::PathBuf};

use bytes::Bytes;

/// The directory of that name in the corpus.
pub(crate) fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
}

/// All files below a directory of the corpus: their paths in it and what they hold, in order.
pub(crate) fn files(name: &str) -> Vec<(String, Bytes)> {
    let top = directory(name);
    let (mut directories, mut found) = (vec![top.clone()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("it is part of the corpus") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("it can be read");
            let name = path.strip_prefix(&top).expect("it lies below");
            found.push((name.display().to_string(), Bytes::from(bytes)));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{} is empty", top.display());
    found
}
