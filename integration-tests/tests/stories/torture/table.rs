//! The list of what ends badly (`integration-tests/README.md`) names tests that are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

const README: &str = include_str!("../../../README.md");

/// All of the repository's Rust sources below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("it is part of the repository");
    let paths = entries.flatten().map(|entry| entry.path());
    let below = paths.flat_map(|path| {
        if path.is_dir() {
            return sources(&path);
        }
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        is_rust.then_some(path).into_iter().collect()
    });
    below.collect()
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources(&own.join("tests"));
    files.extend(sources(&own.join("../server")));
    let text: String = files
        .iter()
        .map(|path| fs::read_to_string(path).expect("it is text"))
        .collect();
    let cells = README.lines().filter(|line| line.starts_with("| "));
    let names = cells.flat_map(|line| line.rsplit(" | ").next().unwrap_or_default().split('`'));
    let names = names.filter(|name| name.contains('_') && !name.contains(['/', '.']));
    let mut count = 0;
    for name in names {
        assert!(
            text.contains(&format!("fn {name}()")),
            "no test is called {name}"
        );
        count += 1;
    }
    assert!(count > 50, "only {count} tests are named");
}
