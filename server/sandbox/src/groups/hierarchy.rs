//! Which control groups are there, and below which may this server make some?
//!
//! A group belongs to whoever made it. Ours is one in which nothing else runs than this server
//! (a service manager or a container engine has made it for us alone), or the root of the whole
//! machine's. A group that others share is left alone: their limits and their lists of processes
//! are not ours to change.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use rustix::process::Pid;

use super::{Controller, Version};

/// A hierarchy of groups, and this process's place in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// What it bounds, of what is wanted.
    pub(super) controllers: Vec<Controller>,
    /// This process's group.
    pub(super) own: PathBuf,
    /// Whether that is the root of them all, where processes may be beside groups.
    pub(super) is_root: bool,
}

/// Finds those that bound what is wanted. What none does is added to `missing`, with the reason.
pub(super) fn find(root: &Path, missing: &mut Vec<(Controller, String)>) -> Vec<Hierarchy> {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mounts = text("proc/self/mountinfo");
    let memberships = text("proc/self/cgroup");
    let mounts: Vec<_> = mounts.lines().filter_map(Mount::read).collect();
    let mut found: Vec<Hierarchy> = Vec::new();
    let unified = mounts.iter().find(|mount| mount.version == Version::Two);
    let unified = unified.and_then(|mount| mount.own(root, &memberships));
    for controller in Controller::ALL {
        let name = controller.name();
        let of_old = mounts.iter().find(|mount| mount.has(name));
        if let Some(mount) = of_old {
            match mount.own(root, &memberships) {
                Some(own) => add(&mut found, Version::One, own, controller),
                None => missing.push((controller, outside(name))),
            }
            continue;
        }
        let Some(own) = &unified else {
            missing.push((controller, "control groups are not mounted here".to_owned()));
            continue;
        };
        let available = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        if available.split_ascii_whitespace().any(|it| it == name) {
            add(&mut found, Version::Two, own.clone(), controller);
        } else {
            missing.push((controller, not_handed_down(name)));
        }
    }
    found
}

fn outside(name: &str) -> String {
    format!("the server's control group for {name} is not mounted here")
}

fn not_handed_down(name: &str) -> String {
    format!("the server's control group is not given the controller {name}")
}

fn add(found: &mut Vec<Hierarchy>, version: Version, own: PathBuf, controller: Controller) {
    // Several controllers of version 1 may be mounted together, too.
    if let Some(present) = found.iter_mut().find(|hierarchy| hierarchy.own == own) {
        present.controllers.push(controller);
        return;
    }
    let is_root = match version {
        Version::One => own.join("release_agent").exists(),
        Version::Two => !own.join("cgroup.type").exists(),
    };
    found.push(Hierarchy {
        version,
        controllers: vec![controller],
        own,
        is_root,
    });
}

impl Hierarchy {
    /// Why nothing may be made below this process's group.
    pub(super) fn forbidden(&self, own: Pid) -> Option<String> {
        if self.is_root {
            return None;
        }
        let list = match fs::read_to_string(self.own.join("cgroup.procs")) {
            Ok(list) => list,
            Err(error) => return Some(format!("{}: {error}", self.own.display())),
        };
        let own = own.as_raw_nonzero().to_string();
        let mut others = list.lines().filter(|pid| *pid != own);
        others.next().map(|_other| {
            format!(
                "the server shares {} with other processes; run it in a control group of its own",
                self.own.display()
            )
        })
    }
}

/// Where a hierarchy is mounted.
#[derive(Debug)]
struct Mount<'a> {
    version: Version,
    /// Which of its groups is seen there.
    of: &'a str,
    at: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// From a line of `mountinfo`.
    fn read(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (of, at) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        let options = kind.nth(1)?;
        Some(Self {
            version,
            of,
            at,
            options,
        })
    }

    /// Whether it is one of old that has this controller.
    fn has(&self, controller: &str) -> bool {
        let mut options = self.options.split(',');
        self.version == Version::One && options.any(|option| option == controller)
    }

    /// The directory of the group that the lines of `/proc/self/cgroup` name.
    fn own(&self, root: &Path, memberships: &str) -> Option<PathBuf> {
        let own = memberships.lines().find_map(|line| self.membership(line))?;
        let below = Path::new(own).strip_prefix(self.of).ok()?;
        if below.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let at = root.join(self.at.trim_start_matches('/'));
        Some(at.join(below))
    }

    /// The group that a line of `/proc/self/cgroup` names, if it is about this hierarchy.
    fn membership<'b>(&self, line: &'b str) -> Option<&'b str> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match self.version {
            Version::Two => number == "0" && controllers.is_empty(),
            Version::One => {
                let is_mine = |name| self.options.split(',').any(|option| option == name);
                controllers.split(',').all(is_mine)
            }
        };
        is_it.then_some(path)
    }
}
