//! Programs in Python that use the client libraries people have, each in `clients/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    command_line::Output,
    environments::prepare,
    process::command,
    server::{Server, target_directory},
};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// A program in `clients/`.
#[derive(Clone, Debug)]
pub struct ClientScript {
    python: PathBuf,
    script: PathBuf,
    address: String,
}

impl ClientScript {
    /// Finds a program that talks to `server`, and an interpreter that has the libraries.
    pub fn new(server: &Server, name: &str) -> Self {
        Self {
            python: prepare(
                &target_directory(server.binary()),
                "integration-clients",
                &Path::new(CLIENTS).join("requirements.txt"),
            )
            .join("bin/python"),
            script: Path::new(CLIENTS).join(name),
            address: server.client().address().to_string(),
        }
    }

    /// Runs it with the server's address and these arguments; it prints JSON.
    pub fn run(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments);
        assert_eq!(output.code, 0, "{}: {output:#?}", self.script.display());
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {output:#?}"))
    }

    /// Runs it, whatever comes of it.
    pub fn output(&self, arguments: &[&str]) -> Output {
        let output = command(&self.python)
            .arg(&self.script)
            .arg(&self.address)
            .args(arguments)
            .output();
        Output::from(output.expect("Python can be started"))
    }
}

/// Makes a wheel of one module.
pub fn build_wheel(directory: &Path, package: &str, version: &str, module: &str, text: &str) {
    fs::create_dir_all(directory).expect("make the directory");
    let script = Path::new(CLIENTS).join("_wheel.py");
    let output = command("python3")
        .arg(script)
        .arg(directory)
        .args([package, version, module, text])
        .output();
    let output = Output::from(output.expect("Python can be started"));
    assert_eq!(output.code, 0, "{output:#?}");
}

/// Makes a source distribution that is hostile when it is built and once it is installed; it
/// tries what `clients/poison.py` says, at these places.
pub fn build_poisoned(directory: &Path, version: &str, places: &Value) {
    let script = Path::new(CLIENTS).join("_poisoned.py");
    let output = command("python3")
        .arg(script)
        .arg(directory)
        .args([version, &places.to_string()])
        .output();
    let output = Output::from(output.expect("Python can be started"));
    assert_eq!(output.code, 0, "{output:#?}");
}
