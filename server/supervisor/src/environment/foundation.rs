//! Which Python does an environment stand on, and where does that lie? Found out without running
//! anything that somebody could have changed who has installed into the environment.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::interpreter::python_of;

/// How interpreters are called in the directory that `pyvenv.cfg` names.
const NAMES: [&str; 2] = ["python3", "python"];

/// Where the installations of Python lie that are behind this environment's interpreter; none
/// where it is one itself.
///
/// Who installs can change the link and `pyvenv.cfg`, and so have any installation of Python
/// granted for reading, and nothing else.
pub(super) fn of_environment(location: &Path) -> Vec<PathBuf> {
    let Ok(inside) = location.canonicalize() else {
        return Vec::new();
    };
    let linked = python_of(location).canonicalize().ok();
    let linked = linked.filter(|python| !python.starts_with(&inside));
    // Copied interpreters do not say where they are from.
    let found = linked.or_else(|| home(location).filter(|python| !python.starts_with(&inside)));
    found
        .as_deref()
        .and_then(installation)
        .into_iter()
        .collect()
}

/// The interpreter that `pyvenv.cfg` names.
fn home(location: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(location.join("pyvenv.cfg")).ok()?;
    let home = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "home").then(|| PathBuf::from(value.trim()))
    })?;
    let candidates = NAMES.map(|name| home.join(name).canonicalize());
    candidates.into_iter().find_map(Result::ok)
}

/// `PREFIX` of `PREFIX/bin/python3`, if Python's library is there.
fn installation(python: &Path) -> Option<PathBuf> {
    let prefix = python.parent()?.parent()?;
    let is_python = |name: &str| name.starts_with("python3.");
    let has_library = ["lib", "lib64"].into_iter().any(|library| {
        let entries = fs::read_dir(prefix.join(library)).into_iter().flatten();
        entries.flatten().any(|entry| {
            let named = entry.file_name().to_str().is_some_and(is_python);
            named && entry.path().join("os.py").is_file()
        })
    });
    (has_library && prefix.parent().is_some()).then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with an installation of Python and an environment that links to it.
    fn machine() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (base, venv) = (root.join("base"), root.join("venv"));
        for path in [
            &base.join("bin"),
            &base.join("lib/python3.12"),
            &venv.join("bin"),
        ] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(base.join("bin/python3.12"), "").unwrap();
        fs::write(base.join("lib/python3.12/os.py"), "").unwrap();
        symlink("python3.12", base.join("bin/python3")).unwrap();
        (directory, base, venv)
    }

    #[test]
    fn links_lead_to_the_installation() {
        let (_directory, base, venv) = machine();
        symlink(base.join("bin/python3"), venv.join("bin/python")).unwrap();
        assert_eq!(of_environment(&venv), [base]);
    }

    #[test]
    fn copies_say_in_their_settings_where_they_are_from() {
        let (_directory, base, venv) = machine();
        fs::write(venv.join("bin/python"), "").unwrap();
        assert_eq!(of_environment(&venv), Vec::<PathBuf>::new());
        let settings = format!("home = {}\nversion = 3\n", base.join("bin").display());
        fs::write(venv.join("pyvenv.cfg"), settings).unwrap();
        assert_eq!(of_environment(&venv), [base]);
    }

    #[test]
    fn what_is_no_installation_of_python_is_not_granted() {
        let (directory, _base, venv) = machine();
        let secrets = directory.path().join("secrets");
        fs::create_dir_all(secrets.join("bin")).unwrap();
        fs::write(secrets.join("bin/python3"), "").unwrap();
        let settings = format!("home = {}\n", secrets.join("bin").display());
        fs::write(venv.join("pyvenv.cfg"), settings).unwrap();
        symlink(secrets.join("bin/python3"), venv.join("bin/python")).unwrap();
        assert_eq!(of_environment(&venv), Vec::<PathBuf>::new());
        // One that points to itself, and none at all.
        assert_eq!(
            of_environment(&directory.path().join("none")),
            Vec::<PathBuf>::new()
        );
    }
}
