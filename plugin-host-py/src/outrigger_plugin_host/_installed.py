"""What has been installed since this process started, and how does it come to know?

Python remembers which directories have no module of a name, and reads `.pth` files only when it
starts. Workers outlive installations, so they look again; what a host forks does not go on as a
fork once the host may have loaded something else than what is installed now.

`importlib.metadata` is imported because invalidating caches would load it in every worker.

A finder lists a directory anew when its time of modification has changed, so its memory is wrong
only where something came so soon after a listing that the time is the same. To forget is therefore
necessary, but only while a change is so young; to do it before each run would cost a worker
100 pages of memory that it shares with its host.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import site
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DESCRIPTIONS = (".dist-info", ".egg-info", ".egg-link")
_PATHS = ".pth"
_REWRITTEN = (_PATHS, ".egg-info", ".egg-link")
"""What may change in place, while the time of its directory stays."""
_SETTLES_EVERY_S = 10.0
_TICK_NS = 2_000_000_000
"""The coarsest times of modification that a file system has."""


class Installed:
    """What was installed when this process last looked."""

    def __init__(self, directories: Iterable[str] | None = None) -> None:
        """Look for the first time, by default where Python installs packages."""
        self._directories = list(site.getsitepackages() if directories is None else directories)
        self._look()
        importlib.invalidate_caches()
        self._path_files = set(self._entries((_PATHS,)))
        self._packages = set(self._entries((*_DESCRIPTIONS, _PATHS)))
        rewritten = self._entries(_REWRITTEN)
        self._watched = [*self._directories, *(f"{where}/{name}" for where, name, _ in rewritten)]
        self._settles_at = 0.0
        self._unchanged: list[int] | None = None
        """The times of what is watched when nothing had changed and nothing could hide in them."""

    def settle(self) -> None:
        """Let forks of this process look at times only, where that suffices.

        Not each time: a fork has for itself what this writes to shortly before the next one.
        """
        now = time.monotonic()
        if self._unchanged is None or now >= self._settles_at:
            self._settles_at = now + _SETTLES_EVERY_S
            self.has_changed()

    def has_changed(self) -> bool:
        """Whether anything was installed, upgraded or removed since the first look.

        A worker asks after each fork, and has for itself what it writes to. So the directories are
        listed only where their times do not suffice.
        """
        looked = time.time_ns()
        modified = [_modified(path) for path in self._watched]
        if modified == self._unchanged:
            return False
        if set(self._entries((*_DESCRIPTIONS, _PATHS))) != self._packages:
            return True
        if looked - max(modified, default=0) > _TICK_NS:
            self._unchanged = modified
        return False

    def refresh(self) -> None:
        """Let the next import find what is there now."""
        modified, looked = self._modified, self._looked
        self._look()
        if self._modified == modified:
            if looked - max(modified) > _TICK_NS:
                # What was listed since then was listed later than any change could hide in.
                return
            importlib.invalidate_caches()
            return
        importlib.invalidate_caches()
        path_files = set(self._entries((_PATHS,)))
        for directory, name, _ in sorted(path_files - self._path_files):
            # Not addsitedir, which would run the lines of all others again.
            site.addpackage(directory, name, None)
        self._path_files = path_files

    def _look(self) -> None:
        # The path too, which may name directories that come into being later.
        self._looked = time.time_ns()
        self._modified = [
            _modified(path) for path in dict.fromkeys((*self._directories, *sys.path))
        ]

    def _entries(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
        for directory in self._directories:
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.endswith(suffixes):
                        yield directory, entry.name, _modified(entry.path)


@functools.cache
def of_this_process() -> Installed:
    """Return what was installed when this process looked first, or the host that it is a fork of.

    A worker does not go on as a fork once that has changed.
    """
    return Installed()


def _modified(path: str) -> int:
    # Some of the path is mostly not there, and making an exception of it costs a worker 15 pages.
    if not os.access(path, os.F_OK):
        return 0
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - often, and a Path costs more
    except OSError:
        return 0
