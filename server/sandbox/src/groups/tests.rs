//! What is found is tried on files as machines have them; what the kernel does with it, where it
//! lets us.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::*;

/// A machine: its files, and their texts.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn own() -> Pid {
    getpid()
}

/// Version 2 in a service that is given the controllers.
fn delegated(processes: &str) -> tempfile::TempDir {
    machine(&[
        (
            "proc/self/mountinfo",
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
        ),
        ("proc/self/cgroup", "0::/system.slice/influxdb3.service\n"),
        (
            "sys/fs/cgroup/system.slice/influxdb3.service/cgroup.controllers",
            "cpu memory pids\n",
        ),
        (
            "sys/fs/cgroup/system.slice/influxdb3.service/cgroup.type",
            "domain\n",
        ),
        (
            "sys/fs/cgroup/system.slice/influxdb3.service/cgroup.procs",
            processes,
        ),
    ])
}

/// As recorded on a machine of this project (shortened).
fn hybrid() -> tempfile::TempDir {
    machine(&[
        (
            "proc/self/mountinfo",
            "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        ),
        (
            "proc/self/cgroup",
            "9:name=systemd:/\n8:pids:/\n4:memory:/process_api/8d82\n1:cpu:/\n0::/\n",
        ),
        ("sys/fs/cgroup/pids/release_agent", ""),
        ("sys/fs/cgroup/memory/release_agent", ""),
        (
            "sys/fs/cgroup/memory/process_api/8d82/cgroup.procs",
            "1\n2\n",
        ),
        ("sys/fs/cgroup/unified/cgroup.controllers", ""),
    ])
}

fn find(root: &Path) -> (Vec<hierarchy::Hierarchy>, Vec<(Controller, String)>) {
    let mut missing = Vec::new();
    let found = hierarchy::find(root, &mut missing);
    (found, missing)
}

#[test]
fn a_group_that_is_this_servers_alone_is_its_own() {
    let root = delegated(&format!("{}\n", own().as_raw_nonzero()));
    let (found, missing) = find(root.path());
    assert!(missing.is_empty(), "{missing:?}");
    let [only] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(only.version, Version::Two);
    assert_eq!(only.controllers, Controller::ALL);
    assert!(only.own.ends_with("system.slice/influxdb3.service"));
    assert!(!only.is_root);
    assert_eq!(only.forbidden(own()), None);
}

#[test]
fn a_group_that_others_share_is_left_alone() {
    let root = delegated(&format!("{}\n1\n", own().as_raw_nonzero()));
    let groups = Groups::make_at(root.path(), own());
    let report = groups.report().to_string();
    assert!(
        report.contains("influxdb3.service with other processes"),
        "{report}"
    );
    assert!(groups.rooms.is_empty());
    let service = root
        .path()
        .join("sys/fs/cgroup/system.slice/influxdb3.service");
    assert!(
        fs::read_dir(service).unwrap().count() == 3,
        "nothing is made"
    );
}

#[test]
fn of_two_hierarchies_one_may_be_had() {
    let root = hybrid();
    let (found, missing) = find(root.path());
    assert!(missing.is_empty(), "{missing:?}");
    let [memory, processes] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(memory.version, Version::One);
    assert!(
        memory
            .forbidden(own())
            .unwrap()
            .contains("process_api/8d82")
    );
    assert!(processes.is_root && processes.forbidden(own()).is_none());
    let groups = Groups::make_at(root.path(), own());
    assert_eq!(groups.rooms.len(), 1);
    let report = groups.report().to_string();
    assert!(
        report.starts_with("cgroup=degraded(no memory: the server shares"),
        "{report}"
    );
}

#[test]
fn in_a_container_the_own_group_is_the_mounted_one() {
    let root = machine(&[
        (
            "proc/self/mountinfo",
            "39 31 0:36 /docker/4f /sys/fs/cgroup/pids ro,nosuid - cgroup cgroup rw,pids\n\
             35 31 0:32 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        ),
        ("proc/self/cgroup", "8:pids:/docker/4f\n4:memory:/\n"),
    ]);
    let (found, missing) = find(root.path());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].own, root.path().join("sys/fs/cgroup/pids"));
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0].1.contains("for memory is not mounted here"));
}

#[test]
fn a_machine_without_groups_says_so() {
    let groups = Groups::make_at(machine(&[]).path(), own());
    assert_eq!(
        groups.report().to_string(),
        "cgroup=degraded(control groups are not mounted here)"
    );
    let none = groups.enter(u32::MAX, 1, GroupLimits::default()).unwrap();
    assert!(none.is_none());
}

#[test]
fn limits_are_written_as_each_version_has_them() {
    let limits = GroupLimits {
        memory_bytes: Some(1 << 30),
        processes: Some(64),
    };
    let files = |version, names: &[&str]| {
        let files: Vec<_> = names.iter().map(|name| (*name, "")).collect();
        let root = machine(&files);
        let directory = Directory {
            path: root.path().to_owned(),
            version,
        };
        let limited = directory.limit(&Controller::ALL, limits);
        let texts = names.iter();
        let texts: Vec<_> = texts
            .map(|name| fs::read_to_string(root.path().join(name)).unwrap())
            .collect();
        let count = fs::read_dir(root.path()).unwrap().count();
        assert_eq!(count, names.len(), "no file is made");
        limited.map(|()| texts).map_err(|error| error.to_string())
    };
    let new = [
        "memory.max",
        "memory.swap.max",
        "memory.oom.group",
        "pids.max",
    ];
    let written = files(Version::Two, &new).unwrap();
    assert_eq!(written, ["1073741824", "0", "1", "64"]);
    // Without swap.
    let written = files(Version::One, &["memory.limit_in_bytes", "pids.max"]).unwrap();
    assert_eq!(written, ["1073741824", "64"]);
    let error = files(Version::Two, &["memory.max"]).unwrap_err();
    assert!(error.contains("pids.max"), "{error}");
}

#[test]
fn what_a_group_has_used_is_read_as_each_version_says_it() {
    let root = machine(&[
        (
            "2/memory.events",
            "low 0\noom 3\noom_kill 2\noom_group_kill 1\n",
        ),
        ("2/memory.max", "max\n"),
        ("2/memory.peak", "4096\n"),
        (
            "1/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        ),
        ("1/memory.limit_in_bytes", "8192\n"),
        ("1/memory.max_usage_in_bytes", "8000\n"),
        ("0/pids.max", "1\n"),
    ]);
    let memory = |name: &str, version| {
        let path = root.path().join(name);
        Directory { path, version }.memory()
    };
    let expected = |kills, max, peak| Some(GroupMemory { kills, max, peak });
    assert_eq!(memory("2", Version::Two), expected(2, None, Some(4096)));
    assert_eq!(
        memory("1", Version::One),
        expected(1, Some(8192), Some(8000))
    );
    assert_eq!(memory("0", Version::One), None);
}

/// A place of this machine where groups can be made, for tests of what the kernel does.
fn playground(controller: &str, version: Version) -> Option<hierarchy::Hierarchy> {
    let path = match version {
        Version::One => PathBuf::from("/sys/fs/cgroup").join(controller),
        Version::Two => PathBuf::from("/sys/fs/cgroup/unified"),
    };
    let own = path.join(format!(
        "outrigger-unit-{}-{controller}",
        own().as_raw_nonzero()
    ));
    if let Err(error) = fs::create_dir(&own) {
        println!("skipped: {}: {error}", own.display());
        return None;
    }
    let controllers = match version {
        Version::One => vec![Controller::Processes],
        Version::Two => Vec::new(),
    };
    Some(hierarchy::Hierarchy {
        version,
        controllers,
        own,
        is_root: true,
    })
}

/// What stands for a worker: it waits until it is told, and then starts something.
#[expect(clippy::disallowed_methods, reason = "it stands for a worker")]
fn waiting() -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "read word; sleep 1000 & sleep 1000"]);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

/// Lets it go on, and waits until it has started all that it will.
fn tell(worker: &mut Child, group: &Directory) {
    worker.stdin.take().unwrap().write_all(b"\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while group.processes().unwrap().len() < 3 {
        assert!(Instant::now() < deadline, "it starts nothing");
        std::thread::yield_now();
    }
}

fn lifecycle(controller: &str, version: Version) {
    let Some(playground) = playground(controller, version) else {
        return;
    };
    let room = Room::make(&playground, own()).unwrap();
    let groups = Groups {
        rooms: vec![room],
        ..Groups::default()
    };
    let mut child = waiting();
    let pid = child.id();
    let limits = GroupLimits {
        memory_bytes: None,
        processes: Some(20),
    };
    let foreign = groups.enter(1, std::process::id(), limits).unwrap_err();
    assert!(matches!(foreign, GroupError::Foreign { .. }), "{foreign}");
    let group = groups.enter(pid, std::process::id(), limits);
    let group = group.unwrap().unwrap();
    assert!(group.directories[0].has(pid));
    tell(&mut child, &group.directories[0]);
    let all = group.directories[0].processes().unwrap();
    let path = group.directories[0].path.clone();
    if version == Version::One {
        let max = fs::read_to_string(path.join("pids.max")).unwrap();
        assert_eq!(max.trim(), "20");
    }
    group.remove().unwrap();
    assert!(!path.exists());
    let status = child.wait().unwrap();
    assert!(!status.success());
    // Who has ended and was not reaped has none.
    let line = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(
        !all.iter().any(|pid| line(pid).contains("sleep")),
        "{all:?}"
    );
    // One that lives is left alone, and one that has ended is not.
    let other = Room::make(&playground, own()).unwrap();
    let room = path.parent().unwrap().to_owned();
    assert!(room.exists());
    drop(other);
    let abandoned = playground.own.join("outrigger-server-0-0");
    fs::create_dir_all(abandoned.join("worker-0")).unwrap();
    let mut left = waiting();
    fs::write(
        abandoned.join("worker-0/cgroup.procs"),
        left.id().to_string(),
    )
    .unwrap();
    let worker = Directory {
        path: abandoned.join("worker-0"),
        version,
    };
    tell(&mut left, &worker);
    drop(Room::make(&playground, own()).unwrap());
    assert!(!abandoned.exists());
    assert!(!left.wait().unwrap().success());
    drop(groups);
    assert!(!room.exists());
    fs::remove_dir(&playground.own).unwrap();
}

#[test]
fn a_group_of_version_1_ends_with_all_that_is_in_it() {
    lifecycle("pids", Version::One);
}

#[test]
fn a_group_of_version_2_ends_with_all_that_is_in_it() {
    lifecycle("unified", Version::Two);
}
