//! What users have installed for their plugins: which requests are taken, how pip is run, and
//! how the plugin host is kept from harm.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use nix::unistd::{AccessFlags, access};
use tokio::sync::OwnedMutexGuard;
use tracing::{info, warn};

use super::{
    EnvironmentError, InstallError, StepError, VERSION, VirtualEnvironment, WHEEL, WHEEL_NAME,
    errand::{Work, looking},
    interpreter::{Interpreter, NEEDS, PACKAGE},
    step::Step,
    write,
};

/// How many packages one request may name.
const PACKAGES_MAX: usize = 200;
/// How long a package's name, version or URL may be.
const PACKAGE_BYTES_MAX: usize = 2048;
/// How large a file of requirements may be.
const REQUIREMENTS_BYTES_MAX: u64 = 1 << 20;
/// How long the plugin host may take to load.
const LOAD_MAX: Duration = Duration::from_mins(2);
/// In the run directory: what pip must not go below.
const CONSTRAINTS: &str = "outrigger-constraints.txt";

/// What is to be installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// Names, with versions if that matters; paths; URLs.
    Packages(Vec<String>),
    /// A file on the server: absolute, or relative to the plugin directory.
    Requirements(String),
}

/// What a server does when it is asked to install something.
#[derive(Clone, Debug)]
pub enum Packages {
    /// It runs no plugins.
    NoPlugins,
    /// It refuses.
    Disabled,
    /// It installs into this environment.
    Managed(VirtualEnvironment),
}

impl Packages {
    /// Installs something; returns once the next invocation can import it. Installations
    /// wait for each other.
    ///
    /// # Cancel safety
    /// Dropping the future while it waits for its turn takes the request back; after that,
    /// the installation runs to its end all the same, since half of one is damage.
    pub async fn install(&self, wanted: Wanted) -> Result<(), InstallError> {
        match self {
            Self::NoPlugins => Err(InstallError::NoPlugins),
            Self::Disabled => Err(InstallError::Disabled),
            Self::Managed(environment) => environment.install(wanted).await,
        }
    }
}

/// The arguments of an interpreter with which pip installs without asking anybody.
pub(super) fn pip_install() -> Vec<OsString> {
    // -P: nothing in the working directory can pass for pip.
    let options = "-P -m pip install --no-input --disable-pip-version-check --progress-bar off \
                   --timeout 30 --retries 2";
    options.split_whitespace().map(Into::into).collect()
}

impl VirtualEnvironment {
    async fn install(&self, wanted: Wanted) -> Result<(), InstallError> {
        let arguments = wanted.arguments(&self.shared.config.plugins)?;
        let turn = self.shared.turn.clone().lock_owned().await;
        let environment = self.clone();
        let wanted = wanted.shown();
        let installation = async move {
            info!(wanted, "installing packages");
            let installed = environment.install_in_turn(arguments, turn).await;
            if installed.is_ok() {
                info!(wanted, "installed packages");
            }
            installed
        };
        let task = self.shared.tasks.spawn(installation);
        task.await.unwrap_or(Err(InstallError::BrokenOff))
    }

    async fn install_in_turn(
        &self,
        wanted: Vec<OsString>,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<(), InstallError> {
        self.check()?;
        let before = self.ask().await?;
        if before.has("pip").is_none() {
            let location = self.shared.config.location.clone();
            let python = self.python().to_owned();
            return Err(EnvironmentError::NoPip { location, python }.into());
        }
        let location = &self.shared.config.location;
        access(location, AccessFlags::W_OK).map_err(|source| EnvironmentError::NotWritable {
            path: location.clone(),
            source: source.into(),
        })?;
        let mut arguments = pip_install();
        let constraints = self.write_constraints()?;
        arguments.extend(["--constraint".into(), constraints.clone().into()]);
        let mut read = self.requirements(&wanted);
        read.push(constraints);
        arguments.extend(wanted);
        let what = "installing packages with pip";
        let installed = self.pip(what, arguments, read).await;
        // Looked at after a failure too: pip may have got half way.
        let result = match (installed, self.check_host().await) {
            (installed, Ok(())) => installed.map(drop).map_err(InstallError::Pip),
            (_, Err(failure)) => {
                let remedy = self.undo(&before).await;
                Err(InstallError::Breaks { remedy, failure })
            }
        };
        if let Ok(after) = self.ask().await {
            let changed = after.changed_since(&before);
            if !changed.is_empty() {
                info!(
                    ?changed,
                    "hosts load what was installed: workers will be renewed"
                );
                self.shared.foundations.fetch_add(1, Ordering::Release);
            }
        }
        self.shared.installations.fetch_add(1, Ordering::Release);
        result
    }

    async fn ask(&self) -> Result<Interpreter, InstallError> {
        let config = &self.shared.config;
        let confinement = looking(config, &self.shared.readable);
        let asked = Interpreter::ask(
            self.python(),
            &config.environment,
            &self.shared.launcher,
            Some(confinement),
        );
        asked.await.map_err(|source| {
            let error = EnvironmentError::BrokenPython {
                location: config.location.clone(),
                python: self.python().to_owned(),
                source,
            };
            error.into()
        })
    }

    fn write_constraints(&self) -> Result<PathBuf, InstallError> {
        // Not in the environment, where what is installed could exchange it for a link.
        let path = self.shared.config.run_directory.join(CONSTRAINTS);
        let needs = NEEDS.split('|').collect::<Vec<_>>().join("\n");
        let text = format!(
            "# What Outrigger's plugin host needs; written at every installation.\n\
             {PACKAGE}=={VERSION}\n{needs}\n"
        );
        write(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Loads everything that a host loads.
    async fn check_host(&self) -> Result<(), StepError> {
        let config = &self.shared.config;
        let step = Step {
            what: "loading the plugin host",
            limit: LOAD_MAX,
            shown: false,
            program: self.python(),
            arguments: ["-P", "-m", "outrigger_plugin_host", "check"]
                .map(Into::into)
                .to_vec(),
            environment: &config.environment,
            directory: Path::new("/"),
            confinement: Some(looking(config, &self.shared.readable)),
        };
        step.run(&self.shared.launcher).await.map(drop)
    }

    /// Puts back what hosts load as it was before; says what has come of it.
    async fn undo(&self, before: &Interpreter) -> String {
        let by_hand = "uninstall what breaks it with the environment's own pip, or remove the \
                       environment and restart the server";
        let Ok(after) = self.ask().await else {
            return by_hand.to_owned();
        };
        let changed = after.changed_since(before);
        warn!(
            ?changed,
            "an installation breaks the plugin host, undoing it"
        );
        let (mut earlier, added): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|name| name.contains("=="));
        let mut undone = Ok(Vec::new());
        if !added.is_empty() {
            let mut arguments: Vec<OsString> = ["-P", "-m", "pip", "uninstall", "--yes"]
                .map(Into::into)
                .to_vec();
            arguments.extend(added.into_iter().map(OsString::from));
            undone = self
                .pip("uninstalling with pip", arguments, Vec::new())
                .await;
        }
        let wheel = self.shared.config.run_directory.join(WHEEL_NAME);
        let ours = format!("{PACKAGE}==");
        if earlier.iter().any(|name| name.starts_with(&ours)) && write(&wheel, WHEEL).is_ok() {
            earlier.retain(|name| !name.starts_with(&ours));
            earlier.push(wheel.display().to_string());
        }
        if undone.is_ok() && !earlier.is_empty() {
            let mut arguments = pip_install();
            arguments.extend(["--no-deps".into(), "--force-reinstall".into()]);
            arguments.extend(earlier.into_iter().map(OsString::from));
            let what = "putting back earlier versions with pip";
            undone = self.pip(what, arguments, vec![wheel.clone()]).await;
        }
        drop(fs::remove_file(&wheel));
        match (undone, self.check_host().await) {
            (Ok(_), Ok(())) => "what it needs was put back as it was".to_owned(),
            _ => by_hand.to_owned(),
        }
    }

    async fn pip(
        &self,
        what: &'static str,
        arguments: Vec<OsString>,
        mut read: Vec<PathBuf>,
    ) -> Result<Vec<String>, StepError> {
        let config = &self.shared.config;
        read.extend(self.readable());
        let work = Work {
            what,
            limit: config.install_max,
            program: self.python(),
            arguments,
            directory: &config.plugins,
            read,
            write: &config.location,
            network: true,
        };
        let rooms = &self.shared.rooms;
        rooms.run(work, config, &self.shared.launcher).await
    }

    /// Files that pip is to read, wherever they are; none of the server's own.
    fn requirements(&self, wanted: &[OsString]) -> Vec<PathBuf> {
        let secret = &self.shared.config.confinement.secret;
        let is_secret = |path: &Path| {
            let real = path.canonicalize().unwrap_or_default();
            let of_it = |secret: &PathBuf| {
                secret
                    .canonicalize()
                    .is_ok_and(|secret| real.starts_with(secret))
            };
            secret.iter().any(of_it)
        };
        match wanted {
            [option, path] if option == "--requirement" && !is_secret(Path::new(path)) => {
                vec![path.into()]
            }
            _ => Vec::new(),
        }
    }
}

impl Wanted {
    /// What the log may show: not the secrets in URLs.
    fn shown(&self) -> String {
        match self {
            Self::Packages(packages) => {
                let shown: Vec<_> = packages.iter().map(|package| redacted(package)).collect();
                shown.join(" ")
            }
            Self::Requirements(location) => format!("-r {location}"),
        }
    }

    /// What pip is given for it.
    fn arguments(&self, plugins: &Path) -> Result<Vec<OsString>, InstallError> {
        match self {
            Self::Packages(packages) => {
                if packages.is_empty() {
                    return Err(InstallError::Nothing);
                }
                let mut arguments = vec![OsString::from("--")];
                for (index, package) in packages.iter().enumerate() {
                    check_package(index, package)?;
                    arguments.push(package.into());
                }
                Ok(arguments)
            }
            Self::Requirements(location) => {
                let path = requirements_path(plugins, location)?;
                Ok(vec!["--requirement".into(), path.into()])
            }
        }
    }
}

/// Without what stands before the host's name.
fn redacted(package: &str) -> String {
    let Some((scheme, rest)) = package.split_once("://") else {
        return package.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_secret, host)) => format!("{scheme}://****@{host}{path}"),
        None => package.to_owned(),
    }
}

fn check_package(index: usize, package: &str) -> Result<(), InstallError> {
    let problem = if index >= PACKAGES_MAX {
        "one request takes 200 packages"
    } else if package.trim().is_empty() {
        "it is empty"
    } else if package.len() > PACKAGE_BYTES_MAX {
        "it is longer than 2048 bytes"
    } else if package.chars().any(char::is_control) {
        "it contains a control character"
    } else if package.trim_start().starts_with('-') {
        "options of pip are not taken; put them into a requirements file on the server"
    } else {
        return Ok(());
    };
    let package = package.chars().take(200).collect();
    Err(InstallError::Package { package, problem })
}

/// Relative paths are below the plugin directory, which is where clients may put files.
fn requirements_path(plugins: &Path, location: &str) -> Result<PathBuf, InstallError> {
    let refuse = |problem: &str| InstallError::Requirements {
        location: location.to_owned(),
        problem: problem.to_owned(),
    };
    let given = Path::new(location);
    if location.trim().is_empty() {
        return Err(refuse("the path is empty"));
    }
    if given.is_relative() && given.components().any(|part| part == Component::ParentDir) {
        return Err(refuse(
            "a relative path is one in the plugin directory and must not contain '..'",
        ));
    }
    let path = plugins.join(given);
    match fs::metadata(&path) {
        Err(error) => Err(refuse(&format!(
            "{} on the server: {error}",
            path.display()
        ))),
        Ok(found) if !found.is_file() => Err(refuse("it is not a file")),
        Ok(found) if found.len() > REQUIREMENTS_BYTES_MAX => Err(refuse("it is larger than 1 MiB")),
        Ok(_) => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_versions_paths_and_urls_are_packages() {
        for package in [
            "six",
            "six==1.16.0",
            "requests[socks]>=2,<3; python_version > '3.8'",
            "git+https://example.org/x.git@main#egg=x",
            "name @ https://example.org/name-1.0-py3-none-any.whl",
            "/srv/wheels/x-1.0-py3-none-any.whl",
            "./wheels/x-1.0.tar.gz",
        ] {
            let wanted = Wanted::Packages(vec![package.to_owned()]);
            let arguments = wanted.arguments(Path::new("/plugins")).expect(package);
            assert_eq!(arguments, [OsString::from("--"), package.into()]);
        }
    }

    #[test]
    fn the_log_does_not_show_secrets() {
        let wanted = Wanted::Packages(
            [
                "git+https://user:token@example.org/x.git@main",
                "six==1.16.0",
                "x @ https://example.org/x@1.whl",
            ]
            .map(str::to_owned)
            .to_vec(),
        );
        let shown = "git+https://****@example.org/x.git@main six==1.16.0 \
                     x @ https://example.org/x@1.whl";
        assert_eq!(wanted.shown(), shown);
    }

    #[test]
    fn options_of_pip_are_refused_by_name() {
        for option in ["-r", "--target=/etc", "-e", " --index-url", "-"] {
            let wanted = Wanted::Packages(vec!["six".to_owned(), option.to_owned()]);
            check(
                &wanted,
                &format!("{option:?} is not a package: options of pip"),
            );
        }
    }

    #[test]
    fn what_is_no_package_is_refused() {
        check(&Wanted::Packages(Vec::new()), "no package was named");
        for (package, problem) in [
            (String::new(), "it is empty"),
            ("a\n--target=/etc".to_owned(), "control character"),
            ("x".repeat(3000), "longer than 2048 bytes"),
        ] {
            check(&Wanted::Packages(vec![package]), problem);
        }
        check(&Wanted::Packages(vec!["x".to_owned(); 201]), "200 packages");
    }

    #[test]
    fn a_requirements_file_is_absolute_or_in_the_plugin_directory() {
        let plugins = tempfile::tempdir().expect("a directory");
        let file = plugins.path().join("requirements.txt");
        fs::write(&file, "six\n").expect("written");
        for location in ["requirements.txt", &file.display().to_string()] {
            let wanted = Wanted::Requirements(location.to_owned());
            let arguments = wanted.arguments(plugins.path()).expect(location);
            assert_eq!(
                arguments,
                [OsString::from("--requirement"), file.clone().into()]
            );
        }
        for (location, problem) in [
            ("", "the path is empty"),
            ("../requirements.txt", "must not contain '..'"),
            ("missing.txt", "No such file"),
            (".", "not a file"),
            ("/dev/zero", "not a file"),
        ] {
            let wanted = Wanted::Requirements(location.to_owned());
            check_in(plugins.path(), &wanted, problem);
        }
    }

    #[track_caller]
    fn check(wanted: &Wanted, problem: &str) {
        check_in(Path::new("/plugins"), wanted, problem);
    }

    #[track_caller]
    fn check_in(plugins: &Path, wanted: &Wanted, problem: &str) {
        let error = wanted.arguments(plugins).expect_err("it must be refused");
        assert!(error.to_string().contains(problem), "{error}");
    }
}
