//! How does a story get a program or a library that only C can be? It is compiled with `cc`, which
//! Rust needs for linking anyway.

use std::path::Path;

use crate::process::command;

/// Compiles a file of this crate's `src` to `output`.
pub fn compile(source: &str, output: &Path, options: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(source);
    let mut compile = command("cc");
    compile.args(["-O1", "-Wall", "-Werror", "-o"]).arg(output);
    let compiled = compile.args(options).arg(&source).status();
    assert!(
        compiled.is_ok_and(|status| status.success()),
        "cc cannot compile {}",
        source.display()
    );
}
