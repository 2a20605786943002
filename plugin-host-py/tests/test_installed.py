"""Does a process that lives on find what was installed meanwhile?"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from outrigger_plugin_host import _installed as installed_module
from outrigger_plugin_host._installed import Installed

if TYPE_CHECKING:
    from pathlib import Path


def install(directory: Path, name: str, version: str) -> None:
    """Do what pip does, as far as it can be seen."""
    for old in directory.glob(f"{name}-*.dist-info"):
        old.rmdir()
    (directory / f"{name}-{version}.dist-info").mkdir()
    (directory / f"{name}.py").write_text(f"VERSION = {version!r}\n")


@pytest.fixture(name="packages")
def _packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_an_installation_and_an_upgrade_are_changes(packages: Path) -> None:
    installed = Installed([str(packages)])
    assert not installed.has_changed()
    (packages / "__pycache__").mkdir()
    assert not installed.has_changed(), "what Python caches is no package"
    install(packages, "outrigger_test_a", "1")
    assert installed.has_changed()
    installed = Installed([str(packages)])
    install(packages, "outrigger_test_a", "2")
    assert installed.has_changed()


def test_a_change_is_seen_where_nothing_had_changed_for_long(packages: Path) -> None:
    (packages / "old.pth").write_text("")
    package = packages / "outrigger_test_f-1.dist-info"
    package.mkdir()
    old = time.time_ns() - 60 * 1_000_000_000
    for path in (package, packages / "old.pth", packages):
        os.utime(path, ns=(old, old))
    installed = Installed([str(packages)])
    assert not installed.has_changed()
    assert not installed.has_changed()
    (packages / "old.pth").write_text("elsewhere\n")
    assert installed.has_changed(), "the file of paths is another"
    os.utime(packages / "old.pth", ns=(old, old))
    assert not installed.has_changed()
    package.rmdir()
    assert installed.has_changed(), "a package was removed"


def test_a_process_settles_again(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed([str(packages)])
    lists: list[None] = []
    really = Installed._entries  # noqa: SLF001

    def entries(*given: Any) -> Any:
        lists.append(None)
        return really(*given)

    monkeypatch.setattr(Installed, "_entries", entries)
    monkeypatch.setattr(installed_module, "_SETTLES_EVERY_S", 0.0)
    for seconds in (60, 50):
        old = time.time_ns() - seconds * 1_000_000_000
        os.utime(packages, ns=(old, old))
        lists.clear()
        installed.settle()
        assert len(lists) == 1
        assert not installed.has_changed()
        assert len(lists) == 1, "the times suffice"


def test_a_change_is_seen_within_one_tick_of_the_clock(packages: Path) -> None:
    installed = Installed([str(packages)])
    status = packages.stat()
    assert not installed.has_changed()
    install(packages, "outrigger_test_g", "1")
    os.utime(packages, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert installed.has_changed()


def test_a_directory_that_is_not_there_yet_is_no_failure(tmp_path: Path) -> None:
    later = tmp_path / "later"
    installed = Installed([str(later)])
    installed.refresh()
    assert not installed.has_changed()
    later.mkdir()
    install(later, "outrigger_test_b", "1")
    assert installed.has_changed()


def test_an_import_that_failed_works_once_the_module_is_there(packages: Path) -> None:
    installed = Installed([str(packages)])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("outrigger_test_c")
    status = packages.stat()
    install(packages, "outrigger_test_c", "1")
    # As if it had been installed within the same tick of the clock.
    os.utime(packages, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("outrigger_test_c")
    installed.refresh()
    assert importlib.import_module("outrigger_test_c").VERSION == "1"


def test_a_directory_of_the_path_that_comes_into_being_is_found(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "later"
    monkeypatch.syspath_prepend(later)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("outrigger_test_d")
    installed = Installed([str(packages)])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("outrigger_test_d")
    later.mkdir()
    install(later, "outrigger_test_d", "1")
    installed.refresh()
    assert importlib.import_module("outrigger_test_d").VERSION == "1"


def test_what_has_not_changed_for_long_is_not_forgotten(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[None] = []
    monkeypatch.setattr(importlib, "invalidate_caches", lambda: forgotten.append(None))
    monkeypatch.setattr(sys, "path", [str(packages)])
    installed = Installed([str(packages)])
    before = len(forgotten)
    installed.refresh()
    assert len(forgotten) == before + 1, "the directory was made just now"
    old = time.time_ns() - 60 * 1_000_000_000
    os.utime(packages, ns=(old, old))
    installed.refresh()
    assert len(forgotten) == before + 2, "it has another time than before"
    installed.refresh()
    assert len(forgotten) == before + 2
    install(packages, "outrigger_test_e", "1")
    installed.refresh()
    assert len(forgotten) == before + 3


def test_only_new_path_files_are_read(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (packages / "old.pth").write_text("import sys; sys.outrigger_test = 'again'\n")
    installed = Installed([str(packages)])
    elsewhere = packages / "elsewhere"
    elsewhere.mkdir()
    (packages / "new.pth").write_text(f"{elsewhere}\n")
    installed.refresh()
    assert str(elsewhere) in sys.path
    assert not hasattr(sys, "outrigger_test")
    installed.refresh()
    assert sys.path.count(str(elsewhere)) == 1


def test_the_check_loads_what_a_host_loads() -> None:
    command = [sys.executable, "-P", "-m", "outrigger_plugin_host", "check"]
    checked = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
