"""What has been installed since this process started, and how does it come to know?

Python remembers which directories have no module of a name, and reads `.pth` files only when it
starts. Workers outlive installations, so they look again; the host does not fork any more once it
may have loaded something else than what is installed now.

`importlib.metadata` is imported because invalidating caches would load it in every worker.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import site
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DESCRIPTIONS = (".dist-info", ".egg-info", ".egg-link")
_PATHS = ".pth"


class Installed:
    """What was installed when this process last looked."""

    def __init__(self, directories: Iterable[str] | None = None) -> None:
        """Look for the first time, by default where Python installs packages."""
        self._directories = list(site.getsitepackages() if directories is None else directories)
        self._modified = self._look()
        self._path_files = set(self._entries((_PATHS,)))
        self._packages = set(self._entries((*_DESCRIPTIONS, _PATHS)))

    def has_changed(self) -> bool:
        """Whether anything was installed, upgraded or removed since the first look."""
        return set(self._entries((*_DESCRIPTIONS, _PATHS))) != self._packages

    def refresh(self) -> None:
        """Let the next import find what is there now."""
        importlib.invalidate_caches()
        modified = self._look()
        if modified == self._modified:
            return
        self._modified = modified
        path_files = set(self._entries((_PATHS,)))
        for directory, name, _ in sorted(path_files - self._path_files):
            # Not addsitedir, which would run the lines of all others again.
            site.addpackage(directory, name, None)
        self._path_files = path_files

    def _look(self) -> list[int]:
        return [_modified(directory) for directory in self._directories]

    def _entries(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
        for directory in self._directories:
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.endswith(suffixes):
                        yield directory, entry.name, _modified(entry.path)


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - once per package and fork
    except OSError:
        return 0
