//! Virtual environments that stories share: each is made once, from a file of requirements, and
//! made anew when that file changes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{command_line::Output, process::command};

/// Makes the environment `name` below `target`, unless it is there; returns where it is.
///
/// `requirements` is a file that pip reads.
pub(crate) fn prepare(target: &Path, name: &str, requirements: &Path) -> PathBuf {
    let wanted = fs::read_to_string(requirements).expect("it is part of the repository");
    let location = target.join(name);
    let stamp = location.join(".installed");

    // Not `name.lock`: a server that uses the environment takes that one while it starts.
    let lock = target.join(format!("{name}.prepare.lock"));
    let lock = File::create(lock).expect("make the lock");
    lock.lock().expect("take the lock");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return location;
    }
    run(command("python3").args(["-m", "venv"]).arg(&location));
    let pip = ["-m", "pip", "install", "--no-input", "-r"];
    run(command(location.join("bin/python"))
        .args(pip)
        .arg(requirements));
    fs::write(&stamp, wanted).expect("write the stamp");
    location
}

fn run(command: &mut std::process::Command) {
    let output = Output::from(command.output().expect("Python can be started"));
    assert_eq!(output.code, 0, "{command:?}: {output:#?}");
}
