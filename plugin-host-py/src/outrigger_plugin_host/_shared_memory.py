"""Where does a worker have the shared memory that `multiprocessing` needs for its locks and queues?

The C library puts it into `/dev/shm`, which is everybody's of the same user. Where workers have a
file tree of their own, that is a link to a descriptor of whichever process looks: here to a
directory beside the worker's temporary files, which is bounded with them and goes with the worker.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _imports

if TYPE_CHECKING:
    from collections.abc import Iterable

PLACE = Path("/dev/shm")  # noqa: S108 - the C library's, which no variable changes
_OWN = "/proc/self/fd/"
_DIRECTORY = "shared-memory"


def give_to_multiprocessing() -> None:
    """Have it pass this to the interpreters that it starts, for which it closes all else."""
    _imports.after("multiprocessing.util", _pass_on)


_shared: int | None = None
"""The descriptor that leads to it, in a worker that has taken it."""


def take(temporary: str) -> None:
    """Have a directory below `temporary` as shared memory, where that is a link of this kind."""
    global _shared  # noqa: PLW0603 - it is about the process
    descriptor = _descriptor()
    if descriptor is None or not temporary:
        return
    with contextlib.suppress(OSError):
        _share(f"{temporary}/{_DIRECTORY}", descriptor)
        _shared = descriptor


def _descriptor() -> int | None:
    try:
        # Not by a Path: that would cost the worker pages, since it shares them with its host.
        target = os.readlink(PLACE)  # noqa: PTH115
    except OSError:
        return None
    number = target.removeprefix(_OWN)
    return int(number) if target.startswith(_OWN) and number.isdecimal() else None


def _share(directory: str, descriptor: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)  # noqa: PTH102
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Forks have it too.
        os.dup2(opened, descriptor)
    finally:
        os.close(opened)


def _pass_on(util: Any) -> None:
    start = util.spawnv_passfds

    def start_with_memory(path: bytes, args: list[str], passfds: Iterable[int]) -> int:
        own = () if _shared is None else (_shared,)
        pid: int = start(path, args, sorted({*passfds, *own}))
        return pid

    util.spawnv_passfds = start_with_memory
