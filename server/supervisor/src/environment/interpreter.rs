//! What an interpreter is and has: asked once, judged here, with the command that mends it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use outrigger_sandbox::{HostConfinement, Launcher};

use super::step::{Step, StepError};

/// The minor versions of Python 3 that the plugin host runs on.
pub(super) const OLDEST: &str = env!("PLUGIN_HOST_PYTHON_OLDEST");
pub(super) const NEWEST: &str = env!("PLUGIN_HOST_PYTHON_NEWEST");

/// What the plugin host needs, as pip understands it.
pub(super) const NEEDS: &str = env!("PLUGIN_HOST_NEEDS");

/// The plugin host itself.
pub(super) const PACKAGE: &str = "outrigger-plugin-host";

/// What a host has loaded before it forks: itself, what it needs, and numpy, because pyarrow
/// loads it where it is installed.
const LOADED_BY_HOSTS: [&str; 5] = [PACKAGE, "grpcio", "protobuf", "pyarrow", "numpy"];

/// How long an interpreter may take to answer.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// Must be read by interpreters that are too old as well.
const QUESTION: &str = "
import sys
sys.path[:] = [entry for entry in sys.path if entry]
print('python %d.%d.%d' % sys.version_info[:3])
print('is %s' % sys.executable)
reads = [sys.prefix, sys.exec_prefix] + sys.path
reads += [getattr(sys, name, '') for name in ('base_prefix', 'base_exec_prefix')]
for line in open('/proc/self/maps'):
    if '.so' in line and '/' in line:
        reads.append(line[line.index('/'):].rstrip().rsplit('/', 1)[0])
for path in sorted(set(reads)):
    print('reads %s' % path)
if sys.version_info >= (3, 8):
    from importlib import metadata
    for name in sys.argv[1:]:
        try:
            print('has %s %s' % (name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            pass
";

/// An interpreter that has answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Interpreter {
    version: [u32; 3],
    /// Where it says that it is.
    executable: Option<PathBuf>,
    /// What it reads, as it says.
    reads: Vec<PathBuf>,
    /// Names and versions of what it has of the things that matter here.
    has: BTreeMap<String, String>,
}

impl Interpreter {
    /// Asks `python`, a path or a name in PATH.
    pub(super) async fn ask(
        python: &Path,
        environment: &BTreeMap<OsString, OsString>,
        launcher: &Launcher,
        confinement: Option<HostConfinement>,
    ) -> Result<Self, StepError> {
        let mut arguments: Vec<OsString> = vec!["-c".into(), QUESTION.into(), "pip".into()];
        arguments.extend(LOADED_BY_HOSTS.map(OsString::from));
        let step = Step {
            what: "asking Python for its version",
            limit: ANSWER_MAX,
            shown: false,
            program: python,
            arguments,
            environment,
            directory: Path::new("/"),
            confinement,
        };
        let lines = step.run(launcher).await?;
        Self::read(&lines).ok_or_else(|| StepError::Failed {
            what: "asking Python for its version",
            exit: "no version in its answer".to_owned(),
            output: lines.join("\n"),
        })
    }

    fn read(lines: &[String]) -> Option<Self> {
        let mut version = None;
        let mut has = BTreeMap::new();
        let mut executable = None;
        let mut reads = Vec::new();
        for line in lines {
            let path = |prefix| line.strip_prefix(prefix).map(PathBuf::from);
            // `/` is no place of its own.
            let path =
                |prefix| path(prefix).filter(|path| path.is_absolute() && path.parent().is_some());
            executable = executable.or_else(|| path("is "));
            reads.extend(path("reads ").filter(|path| !reads.contains(path)));
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["python", text] => version = read_version(text),
                ["has", name, version] => {
                    has.insert(name.to_owned(), version.to_owned());
                }
                // A sitecustomize may say whatever it likes.
                _ => {}
            }
        }
        Some(Self {
            version: version?,
            executable,
            reads,
            has,
        })
    }

    /// Whether plugins can run on it.
    pub(super) fn is_supported(&self) -> bool {
        let bound = |text: &str| text.parse().unwrap_or(0);
        let [major, minor, _] = self.version;
        major == 3 && (bound(OLDEST)..=bound(NEWEST)).contains(&minor)
    }

    /// Where it is, without links and scripts that lead there.
    pub(super) fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// What it reads. Only to be believed where nobody could have changed it.
    pub(super) fn reads(&self) -> &[PathBuf] {
        &self.reads
    }

    /// Its version as people write it.
    pub(super) fn version(&self) -> String {
        self.version.map(|number| number.to_string()).join(".")
    }

    /// The version of a package that it has.
    pub(super) fn has(&self, package: &str) -> Option<&str> {
        self.has.get(package).map(String::as_str)
    }

    /// Requirements of the plugin host of which it has nothing.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let name = |need: &'static str| need.split(['>', '=', '<', '~', '!']).next();
        let lacks = |need: &&'static str| name(need).is_none_or(|name| self.has(name).is_none());
        NEEDS.split('|').filter(lacks).collect()
    }

    /// What a host has loaded that is not as it was in `earlier`, as requirements of the
    /// earlier versions.
    pub(super) fn changed_since(&self, earlier: &Self) -> Vec<String> {
        let differs = |name: &&str| self.has(name) != earlier.has(name);
        let changed = LOADED_BY_HOSTS.into_iter().filter(differs);
        let describe = |name| match earlier.has(name) {
            Some(version) => format!("{name}=={version}"),
            None => name.to_owned(),
        };
        changed.map(describe).collect()
    }
}

fn read_version(text: &str) -> Option<[u32; 3]> {
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Where in a virtual environment its interpreter is.
pub(super) fn python_of(location: &Path) -> PathBuf {
    location.join("bin/python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(lines: &[&str]) -> Interpreter {
        let lines: Vec<_> = lines.iter().copied().map(str::to_owned).collect();
        Interpreter::read(&lines).expect("it says its version")
    }

    #[test]
    fn only_versions_that_the_plugin_host_runs_on_are_supported() {
        assert!(read(&[&format!("python 3.{OLDEST}.0")]).is_supported());
        assert!(read(&[&format!("python 3.{NEWEST}.9")]).is_supported());
        for old in ["python 3.10.14", "python 2.7.18", "python 3.99.0"] {
            assert!(!read(&[old]).is_supported(), "{old}");
        }
        assert_eq!(read(&["python 3.9.2"]).version(), "3.9.2");
    }

    #[test]
    fn places_are_told_once_and_are_not_everything() {
        let told = [
            "python 3.12.1",
            "is /opt/py/bin/python3",
            "reads /opt/py",
            "reads ",
            "reads /",
            "reads relative",
            "reads /opt/py",
            "reads /a b",
        ];
        let interpreter = read(&told);
        assert_eq!(
            interpreter.executable(),
            Some(Path::new("/opt/py/bin/python3"))
        );
        assert_eq!(interpreter.reads(), ["/opt/py", "/a b"].map(PathBuf::from));
    }

    #[test]
    fn an_answer_without_a_version_is_none() {
        assert_eq!(Interpreter::read(&["hello".to_owned()]), None);
        assert_eq!(Interpreter::read(&["python three".to_owned()]), None);
    }

    #[test]
    fn what_is_missing_is_named_as_pip_wants_it() {
        let bare = read(&["python 3.12.1", "chatter", "has pip 24.0"]);
        assert_eq!(bare.has("pip"), Some("24.0"));
        let missing = bare.missing();
        assert!(missing.iter().any(|need| need.starts_with("pyarrow>=")));
        assert_eq!(missing.len(), NEEDS.split('|').count());
        let full = read(&[
            "python 3.12.1",
            "has grpcio 1.70",
            "has protobuf 6.0",
            "has pyarrow 20",
        ]);
        assert_eq!(full.missing(), Vec::<&str>::new());
    }

    #[test]
    fn a_change_of_what_hosts_have_loaded_is_seen() {
        let before = read(&["python 3.12.1", "has pyarrow 20", "has pip 24.0"]);
        let after = read(&["python 3.12.1", "has pyarrow 21", "has numpy 2.1"]);
        assert_eq!(before.changed_since(&before), Vec::<String>::new());
        assert_eq!(after.changed_since(&before), ["pyarrow==20", "numpy"]);
    }
}
