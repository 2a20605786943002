//! May plugins be granted these paths together, and beside what is the server's own?
//!
//! Whoever may change a directory may put a link in the place of anything in it. What the server
//! grants, covers or keeps must therefore never lie in a directory that plugins may change.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::args::Reach;

/// Why a path cannot be granted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantError {
    #[error(
        "--plugin-paths grants {inner}, which lies in {outer}: a plugin could put a link to \
         anything in its place. Grant {outer} alone, which holds for all that is in it, or move \
         one of them"
    )]
    Nested { outer: Grant, inner: Grant },
    #[error(
        "--plugin-paths grants {grant}, which holds {what}, {path}: grant something that does not, \
         or move one of them"
    )]
    Holds {
        grant: Grant,
        what: &'static str,
        path: PathBuf,
    },
    #[error("--plugin-paths grants {grant}, which lies in {what}, {path}: move it out of there")]
    Within {
        grant: Grant,
        what: &'static str,
        path: PathBuf,
    },
}

/// A path that plugins may use.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    said: PathBuf,
    /// Where that is, whatever links are on the way.
    real: PathBuf,
    may_change: bool,
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.may_change { "rw" } else { "ro" };
        write!(formatter, "{kind}:{}", self.said.display())
    }
}

/// Whose is what the server has itself?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    /// No plugin may see it.
    Secret,
    /// All plugins read it, and none may change any of it.
    Shared,
    /// The operator's, who may let plugins change it, or something in it.
    Operator,
}

/// Something that the server has itself.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) owner: Owner,
}

/// The paths by which they are granted from now on: what they are now, and not what a link that is
/// put there later leads to.
pub(crate) fn settle(reach: Reach, places: &[Place]) -> Result<Reach, GrantError> {
    let grant = |may_change| {
        move |said: &PathBuf| Grant {
            said: said.clone(),
            real: real(said),
            may_change,
        }
    };
    let read: Vec<_> = reach.read.iter().map(grant(false)).collect();
    let write: Vec<_> = reach.write.iter().map(grant(true)).collect();
    let all = || read.iter().chain(&write);
    for outer in &write {
        if let Some(inner) = all().find(|inner| inner.lies_in(outer)) {
            let (outer, inner) = (outer.clone(), inner.clone());
            return Err(GrantError::Nested { outer, inner });
        }
    }
    for grant in all() {
        places.iter().try_for_each(|place| place.check(grant))?;
    }
    let settled = |grants: Vec<Grant>| grants.into_iter().map(|grant| grant.real).collect();
    Ok(Reach {
        read: settled(read),
        write: settled(write),
        ..reach
    })
}

impl Grant {
    fn lies_in(&self, outer: &Self) -> bool {
        let below = |inner: &Path, outer: &Path| inner != outer && inner.starts_with(outer);
        below(&self.said, &outer.said) || below(&self.real, &outer.real)
    }
}

impl Place {
    fn check(&self, grant: &Grant) -> Result<(), GrantError> {
        let place = real(&self.path);
        let is_it = place == grant.real;
        let holds = self.path.starts_with(&grant.said) || place.starts_with(&grant.real);
        let within = grant.real.starts_with(&place);
        let (no_holding, no_lying) = match self.owner {
            Owner::Secret => (true, true),
            Owner::Shared => (grant.may_change, grant.may_change),
            Owner::Operator => (grant.may_change && !is_it, false),
        };
        let (grant, what, path) = (grant.clone(), self.what, self.path.clone());
        if holds && no_holding {
            return Err(GrantError::Holds { grant, what, path });
        }
        if within && no_lying {
            return Err(GrantError::Within { grant, what, path });
        }
        Ok(())
    }
}

/// Where a path really is; what is not there yet will be where it would be made.
fn real(path: &Path) -> PathBuf {
    let there = path
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        Some((above, real)) => match path.strip_prefix(above) {
            Ok(rest) if rest.as_os_str().is_empty() => real,
            Ok(rest) => real.join(rest),
            Err(_outside) => path.to_owned(),
        },
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use outrigger_sandbox::Network;

    use super::*;

    struct Rig(tempfile::TempDir);

    impl Rig {
        fn new() -> Self {
            let rig = Self(tempfile::tempdir().unwrap());
            for name in ["data/node", "plugins/lib", "venv/lib", "a/b", "c"] {
                fs::create_dir_all(rig.path(name)).unwrap();
            }
            rig
        }

        fn path(&self, name: &str) -> PathBuf {
            let root = self.0.path().canonicalize().unwrap();
            if name.is_empty() {
                root
            } else {
                root.join(name)
            }
        }

        fn settle(&self, grants: &[&str]) -> Result<Reach, String> {
            let of = |kind: &str| {
                let paths = grants.iter().filter_map(|grant| grant.strip_prefix(kind));
                paths.map(|name| self.path(name)).collect()
            };
            let reach = Reach {
                read: of("ro:"),
                write: of("rw:"),
                network: Network::None,
            };
            let place = |what, name, owner| Place {
                what,
                path: self.path(name),
                owner,
            };
            let places = [
                place("its data", "data/node", Owner::Secret),
                place("its packages", "venv", Owner::Shared),
                place("its plugins", "plugins", Owner::Operator),
            ];
            settle(reach, &places).map_err(|error| error.to_string())
        }

        #[track_caller]
        fn check_refused(&self, grants: &[&str], parts: &[&str]) {
            let refusal = self.settle(grants).unwrap_err();
            assert!(parts.iter().all(|part| refusal.contains(part)), "{refusal}");
        }
    }

    #[test]
    fn nothing_is_granted_in_what_plugins_may_change() {
        let rig = Rig::new();
        symlink(rig.path("a/b"), rig.path("link")).unwrap();
        symlink(rig.path("c"), rig.path("a/out")).unwrap();
        for inner in ["ro:a/b", "rw:a/b", "ro:a/later/x", "ro:link", "rw:a/out"] {
            let name = inner.split_at(3).1;
            rig.check_refused(&["rw:a", inner], &["/a:", name, "Grant rw:", "link"]);
        }
        assert!(rig.settle(&["ro:a", "rw:a/b", "rw:c"]).is_ok());
        assert!(rig.settle(&["rw:a", "ro:a", "ro:plugins/lib"]).is_ok());
    }

    #[test]
    fn the_servers_own_is_neither_in_a_grant_nor_around_it() {
        let rig = Rig::new();
        fs::create_dir(rig.path("data/node/log")).unwrap();
        for (grant, parts) in [
            ("ro:data", ["which holds its data", "/data/node"]),
            ("rw:", ["which holds its data", "/data/node"]),
            (
                "ro:data/node/log",
                ["which lies in its data", "move it out"],
            ),
            ("ro:data/node", ["its data", "/data/node"]),
            ("rw:venv", ["holds its packages", "rw:"]),
            ("rw:venv/lib", ["lies in its packages", "rw:"]),
        ] {
            rig.check_refused(&[grant], &parts);
        }
        for granted in ["ro:venv/lib", "ro:plugins", "rw:plugins/lib", "rw:plugins"] {
            assert!(rig.settle(&[granted]).is_ok(), "{granted}");
        }
        fs::create_dir_all(rig.path("outer/plugins")).unwrap();
        fs::remove_dir_all(rig.path("plugins")).unwrap();
        symlink(rig.path("outer/plugins"), rig.path("plugins")).unwrap();
        rig.check_refused(&["rw:outer"], &["which holds its plugins"]);
    }

    #[test]
    fn what_is_granted_stays_where_it_is() {
        let rig = Rig::new();
        symlink(rig.path("c"), rig.path("link")).unwrap();
        let settled = rig.settle(&["rw:link", "ro:later"]).unwrap();
        assert_eq!(settled.write, [rig.path("c")]);
        assert_eq!(settled.read, [rig.path("later")]);
    }
}
