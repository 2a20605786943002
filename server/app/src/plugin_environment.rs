//! Which of the server's environment variables reach the programs that are started for plugins.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Never passed on unless the operator asks for it by name: prefixes of names, and whose.
const WITHHELD_PREFIXES: [&str; 4] = [
    "INFLUXDB3_", // the server's settings, with its tokens and keys
    "AWS_",       // credentials of object stores
    "AZURE_",
    "GOOGLE_",
];

/// As the prefixes, but whole names: ways to the operator's session and to what runs the server.
const WITHHELD: [&str; 9] = [
    "CREDENTIALS_DIRECTORY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "NOTIFY_SOCKET",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
];

/// Passed on although its prefix is not: published plugins look for the token of *their* clients
/// there. The server itself does not read it.
const MEANT_FOR_PLUGINS: [&str; 1] = ["INFLUXDB3_AUTH_TOKEN"];

/// What every program needs, also where the operator lists what else plugins get.
const EVERYBODYS: [&str; 21] = [
    "CURL_CA_BUNDLE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// For pip alone: where packages come from, often with credentials.
const INSTALLERS_PREFIX: &str = "PIP_";

/// Variables by name.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// The environment of what installs packages: without the server's own.
pub(crate) fn of_installers(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    plugins: &Path,
    virtual_environment: &Path,
) -> Environment {
    let passed = inherited.filter(|(name, _)| !is_withheld(name)).collect();
    complete(passed, plugins, virtual_environment)
}

/// The environment of plugins: as the operator lists it, else all but the server's own.
pub(crate) fn of_plugins(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    allowed: Option<&[String]>,
    plugins: &Path,
    virtual_environment: &Path,
) -> Environment {
    let passes = |name: &OsStr| match allowed {
        None => !is_withheld(name) && !name.as_bytes().starts_with(INSTALLERS_PREFIX.as_bytes()),
        Some(allowed) => {
            let everybodys = EVERYBODYS.iter().copied();
            let mut patterns = allowed.iter().map(String::as_str).chain(everybodys);
            patterns.any(|pattern| matches(pattern, name))
        }
    };
    let passed = inherited.filter(|(name, _)| passes(name)).collect();
    complete(passed, plugins, virtual_environment)
}

fn is_withheld(name: &OsStr) -> bool {
    let is_any = |names: &[&str]| names.iter().any(|known| name == *known);
    let has_prefix = |prefix: &&str| name.as_bytes().starts_with(prefix.as_bytes());
    !is_any(&MEANT_FOR_PLUGINS) && (is_any(&WITHHELD) || WITHHELD_PREFIXES.iter().any(has_prefix))
}

fn matches(pattern: &str, name: &OsStr) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
        None => name == pattern,
    }
}

/// Adds what published plugins look for.
fn complete(mut passed: Environment, plugins: &Path, virtual_environment: &Path) -> Environment {
    let mut path = virtual_environment.join("bin").into_os_string();
    if let Some(inherited) = passed.get(OsStr::new("PATH")) {
        path.push(":");
        path.push(inherited);
    }
    passed.insert("PATH".into(), path);
    passed.insert("VIRTUAL_ENV".into(), virtual_environment.into());
    passed.insert("PLUGIN_DIR".into(), plugins.into());
    passed.insert("INFLUXDB3_PLUGIN_DIR".into(), plugins.into());
    // Published plugins take the process's local time for UTC.
    passed.insert("TZ".into(), "UTC".into());
    passed.remove(OsStr::new("PYTHONHOME"));
    if let Some(path) = passed.get_mut(OsStr::new("PYTHONPATH")) {
        *path = absolute_entries(path);
    }
    passed
}

/// A search path that means the same in every directory: hosts and workers run in others than
/// the server.
fn absolute_entries(path: &OsStr) -> OsString {
    let entries = env::split_paths(path).map(|entry| {
        // An empty entry is the working directory.
        let entry = Path::new(".").join(entry);
        std::path::absolute(&entry).unwrap_or(entry)
    });
    env::join_paths(entries).unwrap_or_else(|_colon| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const SERVERS: [&str; 10] = [
        "AWS_SECRET_ACCESS_KEY",
        "HOME",
        "INFLUXDB3_AUTH_TOKEN",
        "INFLUXDB3_PLUGIN_REPO",
        "LC_ALL",
        "NOTIFY_SOCKET",
        "PIP_INDEX_URL",
        "PYTHONHOME",
        "TWILIO_SID",
        "TWILIO_TOKEN",
    ];

    fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
        SERVERS.into_iter().map(|name| (name.into(), "x".into()))
    }

    fn names(environment: &Environment) -> Vec<&str> {
        let names = environment.keys().filter_map(|name| name.to_str());
        names.filter(|name| SERVERS.contains(name)).collect()
    }

    fn plugins(allowed: Option<&[&str]>) -> Environment {
        let allowed: Option<Vec<String>> =
            allowed.map(|names| names.iter().copied().map(str::to_owned).collect());
        of_plugins(
            inherited(),
            allowed.as_deref(),
            Path::new("/plugins"),
            Path::new("/venv"),
        )
    }

    #[test]
    fn the_servers_own_variables_stay_with_it() {
        let found = plugins(None);
        let expected = [
            "HOME",
            "INFLUXDB3_AUTH_TOKEN",
            "LC_ALL",
            "TWILIO_SID",
            "TWILIO_TOKEN",
        ];
        assert_eq!(names(&found), expected);
        assert_eq!(found[OsStr::new("PLUGIN_DIR")], "/plugins");
        assert_eq!(found[OsStr::new("TZ")], "UTC");
    }

    #[test]
    fn a_list_is_all_that_passes_beside_what_everybody_needs() {
        let found = plugins(Some(&["TWILIO_T*", "AWS_SECRET_ACCESS_KEY"]));
        let expected = ["AWS_SECRET_ACCESS_KEY", "HOME", "LC_ALL", "TWILIO_TOKEN"];
        assert_eq!(names(&found), expected);
        assert_eq!(names(&plugins(Some(&[]))), ["HOME", "LC_ALL"]);
    }

    #[test]
    fn pip_is_told_where_packages_are() {
        let found = of_installers(inherited(), Path::new("/plugins"), Path::new("/venv"));
        assert!(names(&found).contains(&"PIP_INDEX_URL"));
        assert!(!names(&found).contains(&"INFLUXDB3_PLUGIN_REPO"));
    }

    #[test]
    fn the_search_path_for_modules_is_made_absolute() {
        let here = env::current_dir().unwrap();
        let path = absolute_entries(OsStr::new("/a:lib:"));
        let expected = [PathBuf::from("/a"), here.join("lib"), here];
        assert_eq!(env::split_paths(&path).collect::<Vec<_>>(), expected);
    }
}
