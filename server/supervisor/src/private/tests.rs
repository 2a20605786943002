//! Private directories against what hostile plugins put into them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use super::{open::OpenMax, *};

const ROOMY: PrivateMax = PrivateMax {
    bytes: 1 << 40,
    files: 1 << 40,
};

fn root(directory: &Path) -> PrivateRoot {
    PrivateRoot::open(&directory.join("root")).unwrap()
}

#[test]
fn they_are_made_once_and_only_for_the_owner() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let private = root.make("trigger-1").unwrap();
    fs::write(private.path.join("kept"), "x").unwrap();
    let again = root.make("trigger-1").unwrap();
    assert!(again.path.join("kept").exists());
    for path in [&directory.path().join("root"), &private.path] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }
    assert_eq!(root.names().unwrap(), ["trigger-1"]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    for name in ["", ".", "..", "a/b", "/etc", "a\0", "ä", &"a".repeat(65)] {
        assert!(root.make(name).is_err(), "{name:?}");
        assert!(root.remove(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_link_in_the_place_of_a_private_directory_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let precious = directory.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    symlink(&precious, directory.path().join("root/trigger-1")).unwrap();
    assert!(root.make("trigger-1").is_err());
    assert!(root.remove("trigger-1").is_err());
    assert!(precious.join("file").exists());
}

#[test]
fn what_is_removed_is_removed_whole_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let private = root.make("t").unwrap();
    let precious = directory.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    symlink(&precious, private.path.join("link")).unwrap();
    fs::hard_link(precious.join("file"), private.path.join("hard")).unwrap();
    let mut deep = private.path.clone();
    for _ in 0..300 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("f"), "").unwrap();
        symlink("/", deep.join("l")).unwrap();
    }
    let closed = private.path.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("f"), "").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();

    root.remove("t").unwrap();
    assert!(!private.path.exists());
    assert!(precious.join("file").exists());
    root.remove("t").unwrap();
}

#[test]
fn bytes_and_files_are_counted_as_the_disk_has_them() {
    let directory = tempfile::tempdir().unwrap();
    let private = root(directory.path()).make("t").unwrap();
    fs::create_dir(private.path.join("d")).unwrap();
    fs::write(private.path.join("d/f"), vec![1; 100_000]).unwrap();
    symlink("/usr", private.path.join("l")).unwrap();
    let sparse = fs::File::create(private.path.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let size = private.size(ROOMY).unwrap();
    assert_eq!(size.files, 4);
    assert!((100_000..1_000_000).contains(&size.bytes), "{size:?}");
}

#[test]
fn too_much_is_said_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let directories = [root.make("kept").unwrap(), root.make("temporary").unwrap()];
    let (watchee, over) = Watchee::new(directories, std::process::id(), false);
    assert_eq!(*over.borrow(), None);
    assert_eq!(watchee.excess(ROOMY), None);
    fs::write(watchee.directories[1].path.join("f"), vec![1; 100_000]).unwrap();
    for max in [
        PrivateMax {
            bytes: 50_000,
            ..ROOMY
        },
        PrivateMax { files: 0, ..ROOMY },
    ] {
        let excess = watchee.excess(max).unwrap();
        assert!(excess.contains("root/temporary hold more than"), "{excess}");
    }
}

#[test]
fn what_is_nested_too_deep_is_too_much() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let directories = [root.make("kept").unwrap(), root.make("temporary").unwrap()];
    let mut deep = directories[0].path.clone();
    for _ in 0..100 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    let (watchee, _over) = Watchee::new(directories, std::process::id(), false);
    let excess = watchee.excess(ROOMY).unwrap();
    assert!(
        excess.contains("root/kept: directories are nested"),
        "{excess}"
    );
}

#[test]
fn files_without_a_name_that_are_open_count() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let directories = [root.make("kept").unwrap(), root.make("temporary").unwrap()];
    let path = directories[0].path.join("f");
    fs::write(&path, vec![1; 10_000_000]).unwrap();
    let open = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (watchee, over) = Watchee::new(directories, std::process::id(), false);
    let watchee = Arc::new(watchee);
    watch::look_at_open(std::slice::from_ref(&watchee), OpenMax::of_this_machine());
    assert_eq!(*over.borrow(), None);
    let max = PrivateMax {
        bytes: 5_000_000,
        ..ROOMY
    };
    assert!(watchee.excess(max).is_some());
    drop(open);
}

#[test]
fn the_operators_entries_appear_and_do_not_replace_the_plugins() {
    let directory = tempfile::tempdir().unwrap();
    let private = root(directory.path()).make("t").unwrap();
    let real = directory.path().join("plugins");
    fs::create_dir_all(real.join("models")).unwrap();
    for name in ["config.toml", "own.txt", "gone.txt"] {
        fs::write(real.join(name), "operator").unwrap();
    }
    fs::write(private.path.join("own.txt"), "plugin").unwrap();
    symlink("/etc/passwd", private.path.join("other")).unwrap();
    private.link_entries(&real).unwrap();
    let read = |name: &str| fs::read_to_string(private.path.join(name)).unwrap();
    assert_eq!(
        (read("config.toml"), read("own.txt")),
        ("operator".into(), "plugin".into())
    );
    assert!(private.path.join("models").is_dir());

    fs::remove_file(real.join("gone.txt")).unwrap();
    fs::write(real.join("new.txt"), "operator").unwrap();
    private.link_entries(&real).unwrap();
    assert_eq!(read("new.txt"), "operator");
    assert!(private.path.join("gone.txt").symlink_metadata().is_err());
    assert!(private.path.join("other").symlink_metadata().is_ok());
}

#[test]
fn root_gives_directories_away_and_takes_them_back() {
    if !geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root");
    let owner = |path: &Path| path.symlink_metadata().unwrap().uid();
    let ours = PrivateRoot::open(&path).unwrap();
    let private = ours.make("t").unwrap().path;
    fs::create_dir(private.join("d")).unwrap();
    fs::write(private.join("d/f"), "").unwrap();
    let precious = directory.path().join("precious");
    fs::write(&precious, "").unwrap();
    symlink(&precious, private.join("link")).unwrap();
    fs::hard_link(&precious, private.join("hard")).unwrap();
    for (user, expected, mode) in [(Some(4242), 4242, 0o711), (None, 0, 0o700)] {
        PrivateRoot::open_for(&path, user)
            .unwrap()
            .make("t")
            .unwrap();
        for name in ["", "d", "d/f", "link"] {
            assert_eq!(owner(&private.join(name)), expected, "{name}");
        }
        assert_eq!(owner(&precious), 0);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
        assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o700);
    }
}
