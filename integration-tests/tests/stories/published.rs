//! Do plugins run as people have published them, with the packages that they use?

use std::{fs, fs::File, path::PathBuf};

use outrigger_integration_tests::CommandLine;

use crate::BINARY;

/// What these stories need beside what every environment has. The version is the one that
/// the published plugins are made for.
const PACKAGES: [&str; 2] = ["influxdata-plugin-utils==0.3.1", "numpy>=2,<3"];

/// The virtual environment of these stories, which the server makes when it is first started.
pub(crate) fn environment() -> PathBuf {
    let target = PathBuf::from(BINARY);
    let target = target
        .ancestors()
        .nth(2)
        .expect("it is in target/<profile>");
    target.join("integration-published-venv")
}

/// Puts the packages into it, once. A server's Python starts with its first trigger, so this
/// may come after the start.
pub(crate) fn install() {
    let location = environment();
    let wanted = PACKAGES.join(" ");
    let stamp = location.join(".packages");
    let lock = File::create(location.with_extension("packages.lock")).expect("make the lock");
    lock.lock().expect("take the lock");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let python = CommandLine::without_server(location.join("bin/python"), &location);
    let mut arguments = vec!["-m", "pip", "install", "--no-input", "--quiet"];
    arguments.extend(PACKAGES);
    python.success(&arguments);
    fs::write(&stamp, wanted).expect("write the stamp");
}
