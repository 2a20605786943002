"""Does a process get the shared memory that its `/dev/shm` leads to?"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from outrigger_plugin_host import _pairs, _shared_memory

if TYPE_CHECKING:
    from pathlib import Path

# In a process of its own, which the descriptor with this number belongs to.
PROGRAM = """
import json, os, sys
from pathlib import Path
from outrigger_plugin_host import _shared_memory
_shared_memory.PLACE = Path(sys.argv[1])
_shared_memory.give_to_multiprocessing()
_shared_memory.take(sys.argv[2])
{then}
"""
FORKED = """
child = os.fork()
if child == 0:
    Path(sys.argv[1], "made").write_text("by a fork")
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps(os.listdir(sys.argv[1])))
"""
STARTED = """
from multiprocessing import util
read, write = os.pipe()
code = f"import os; os.write({write}, os.fsencode(os.listdir({sys.argv[1]!r})[0]))"
Path(sys.argv[1], "made").write_text("")
child = util.spawnv_passfds(os.fsencode(sys.executable), ["python", "-c", code], [write])
os.waitpid(child, 0)
print(json.dumps(os.read(read, 100).decode()))
"""


def run(then: str, place: Path, temporary: Path) -> Any:
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM.format(then=then), str(place), str(temporary)],
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize(("then", "seen"), [(FORKED, ["made"]), (STARTED, "made")])
def test_forks_and_interpreters_of_multiprocessing_have_it_too(
    tmp_path: Path, then: str, seen: Any
) -> None:
    place = tmp_path / "shm"
    place.symlink_to("/proc/self/fd/900")
    (tmp_path / "temporary").mkdir()
    assert run(then, place, tmp_path / "temporary") == seen
    assert [path.name for path in (tmp_path / "temporary").iterdir()] == ["shared-memory"]
    assert (tmp_path / "temporary/shared-memory/made").exists()


@pytest.mark.parametrize("target", ["/proc/self/fd/x", "/nowhere", None])
def test_elsewhere_it_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    place = tmp_path / "shm"
    if target:
        place.symlink_to(target)
    else:
        place.mkdir()
    monkeypatch.setattr(_shared_memory, "PLACE", place)
    _shared_memory.take(str(tmp_path))
    assert not (tmp_path / "shared-memory").exists()


def test_where_it_cannot_be_made_multiprocessing_works_without(tmp_path: Path) -> None:
    place = tmp_path / "shm"
    place.symlink_to("/proc/self/fd/900")
    started = """
from multiprocessing import util
read, write = os.pipe()
child = util.spawnv_passfds(os.fsencode(sys.executable), ["python", "-c", "pass"], [write])
print(json.dumps(os.waitpid(child, 0)[1]))
"""
    assert run(started, place, tmp_path / "missing") == 0


def test_a_pair_of_sockets_does_not_block() -> None:
    one, other = _pairs._pair()  # noqa: SLF001
    with one, other:
        assert not one.getblocking()
        one.send(b"x")
        assert other.recv(1) == b"x"
        with pytest.raises(BlockingIOError):
            other.recv(1)
