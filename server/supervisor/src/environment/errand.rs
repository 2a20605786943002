//! What do programs reach that look at an environment, make it, or install into it? Whatever is
//! installed there can run in them: they are confined like plugins, each for its own purpose.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use outrigger_sandbox::{HostConfinement, Launcher};
use tracing::warn;

use super::{Config, StepError, step::Step};
use crate::{confinement::Errand, private::PrivateRoot};

/// Variables that name files which Python, pip, or what they use reads; the operator's.
const FILES: [&str; 12] = [
    "CURL_CA_BUNDLE",
    "LD_LIBRARY_PATH",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_CONSTRAINT",
    "PIP_FIND_LINKS",
    "PIP_REQUIREMENT",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

/// Those among them that are needed without pip as well.
const PYTHONS: [&str; 2] = ["LD_LIBRARY_PATH", "PYTHONPATH"];

/// Where an operator keeps settings of pip, below the home directory.
const SETTINGS: [&str; 2] = [".config/pip/pip.conf", ".pip/pip.conf"];

/// Settings of the whole machine.
const SETTINGS_OF_ALL: &str = "/etc/pip.conf";

/// Directories for programs that write: a home and a temporary directory, for one of them only.
#[derive(Debug)]
pub(super) struct Rooms {
    root: PrivateRoot,
    path: PathBuf,
    made: AtomicU64,
}

/// A program that changes something.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) what: &'static str,
    pub(super) limit: Duration,
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<OsString>,
    pub(super) directory: &'a Path,
    /// What it reads beside what all do.
    pub(super) read: Vec<PathBuf>,
    /// What it changes.
    pub(super) write: &'a Path,
    pub(super) network: bool,
}

impl Rooms {
    pub(super) fn open(run_directory: &Path) -> io::Result<Self> {
        let path = run_directory.join("installers");
        Ok(Self {
            root: PrivateRoot::open(&path)?,
            path,
            made: AtomicU64::new(0),
        })
    }

    /// Runs a program that changes something; returns the last lines of what it printed.
    pub(super) async fn run(
        &self,
        work: Work<'_>,
        config: &Config,
        launcher: &Launcher,
    ) -> Result<Vec<String>, StepError> {
        let name = format!("room-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let room = self.root.make(&name);
        let room = room.map_err(|source| StepError::Room {
            path: self.path.join(&name),
            source,
        })?;
        let mut read = work.read;
        read.extend(files(&config.environment, &FILES));
        read.extend(settings(&config.environment));
        read.push(SETTINGS_OF_ALL.into());
        let confinement = config.confinement.of_errand(Errand {
            read,
            write: vec![work.write, &room.path],
            network: work.network,
        });
        let environment = at_home(&config.environment, &room.path);
        let step = Step {
            what: work.what,
            limit: work.limit,
            shown: true,
            program: work.program,
            arguments: work.arguments,
            environment: &environment,
            directory: work.directory,
            confinement: Some(confinement),
        };
        let done = step.run(launcher).await;
        // Nobody is in it any more: the keeper has ended all.
        if let Err(error) = self.root.remove(&name) {
            warn!(name, %error, "an installer's temporary directory cannot be removed");
        }
        done
    }
}

/// The confinement of a program that only looks: an interpreter that says what it has.
pub(super) fn looking(config: &Config, python: &[PathBuf]) -> HostConfinement {
    config.confinement.of_errand(Errand {
        read: python.to_vec(),
        write: Vec::new(),
        network: false,
    })
}

/// What the operator's variables have every Python read.
pub(super) fn read_by_all(environment: &BTreeMap<OsString, OsString>) -> Vec<PathBuf> {
    files(environment, &PYTHONS).collect()
}

fn files(
    environment: &BTreeMap<OsString, OsString>,
    names: &[&str],
) -> impl Iterator<Item = PathBuf> {
    let values = names
        .iter()
        .filter_map(|name| environment.get(OsStr::new(name)));
    let paths = values.flat_map(|value| {
        let text = value.to_string_lossy();
        // Lists of pip have spaces between, which may stand in one path as well; URLs are none.
        let words: Vec<_> = text.split_whitespace().map(PathBuf::from).collect();
        let urls = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("file://"));
        let urls: Vec<_> = urls.map(PathBuf::from).collect();
        env::split_paths(value)
            .chain(words)
            .chain(urls)
            .collect::<Vec<_>>()
    });
    let absolute: Vec<_> = paths
        .filter(|path| path.is_absolute() && path.parent().is_some())
        .collect();
    absolute.into_iter()
}

/// The operator's settings of pip.
fn settings(environment: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let home = Path::new(environment.get(OsStr::new("HOME"))?);
    let candidates = SETTINGS.map(|name| home.join(name));
    candidates.into_iter().find(|path| path.is_file())
}

/// The environment of a program that has a home and a temporary directory of its own.
fn at_home(
    environment: &BTreeMap<OsString, OsString>,
    room: &Path,
) -> BTreeMap<OsString, OsString> {
    let mut changed = environment.clone();
    if let Some(settings) = settings(environment) {
        // Where one is named, that one counts.
        let name = OsString::from("PIP_CONFIG_FILE");
        changed.entry(name).or_insert(settings.into());
    }
    for name in ["HOME", "TMPDIR"] {
        changed.insert(name.into(), room.into());
    }
    // What one installation leaves there is not for the next.
    changed.remove(OsStr::new("PIP_CACHE_DIR"));
    changed.insert("PIP_NO_CACHE_DIR".into(), "1".into());
    changed
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        let variables = variables.iter();
        variables
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn what_the_operator_names_can_be_read() {
        let environment = environment(&[
            (
                "PIP_FIND_LINKS",
                "/srv/wheels https://example.org/ file:///srv/more",
            ),
            ("PYTHONPATH", "/a:/b:relative:/"),
            ("OTHER", "/secret"),
        ]);
        let found: Vec<_> = files(&environment, &FILES).collect();
        for path in ["/srv/wheels", "/srv/more", "/a", "/b"] {
            assert!(found.contains(&path.into()), "{path}: {found:?}");
        }
        for path in ["/secret", "relative", "/"] {
            assert!(!found.contains(&path.into()), "{path}: {found:?}");
        }
        assert_eq!(
            read_by_all(&environment)[..2],
            ["/a", "/b"].map(PathBuf::from)
        );
    }

    #[test]
    fn installers_are_at_home_in_their_room_and_find_the_operators_settings() {
        let home = tempfile::tempdir().unwrap();
        let settings = home.path().join(".config/pip/pip.conf");
        fs::create_dir_all(settings.parent().unwrap()).unwrap();
        fs::write(&settings, "").unwrap();
        let inherited = environment(&[
            ("HOME", home.path().to_str().unwrap()),
            ("PIP_CACHE_DIR", "/cache"),
        ]);
        let found = at_home(&inherited, Path::new("/room"));
        let value = |name: &str| found.get(OsStr::new(name)).map(PathBuf::from);
        assert_eq!(value("HOME"), Some("/room".into()));
        assert_eq!(value("TMPDIR"), Some("/room".into()));
        assert_eq!(value("PIP_CONFIG_FILE"), Some(settings));
        assert_eq!(value("PIP_CACHE_DIR"), None);
    }
}
