"""Where does psutil find the figures of this machine and of its own process?

A worker may read single files of `/proc`, and not list it. psutil can be told to look elsewhere:
a directory of the worker's own, with links to what may be read, in which this process is the only
one. The network's figures are a special case: the kernel makes that file anew at each look, so
that Landlock's rule holds for a descriptor of it alone, and the link leads there.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NETWORK = b"/proc/self/net/dev"
_PROC = Path("/proc")


def open_network() -> int | None:
    """Take the descriptor that a rule for the network's figures is to hold for."""
    try:
        return os.open(NETWORK, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None


def show_to_psutil(readable: Sequence[bytes], network: int | None) -> None:
    """Have psutil, once it is imported, look at what of `readable` lies in `/proc`."""
    finder = _Finder(readable, network)
    if "psutil" in sys.modules:
        finder.complete(sys.modules["psutil"])
    else:
        sys.meta_path.insert(0, finder)


class _Finder(MetaPathFinder):
    """Stands before the other finders, and adds to what they say about psutil."""

    def __init__(self, readable: Sequence[bytes], network: int | None) -> None:
        self._readable = readable
        self._network = network

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find psutil as the others do."""
        if fullname != "psutil":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_complete(module: Any) -> None:
            execute(module)
            self.complete(module)

        spec.loader.exec_module = execute_and_complete  # type: ignore[method-assign]
        return spec

    def complete(self, psutil: Any) -> None:
        """Tell it where to look; where that cannot be, it sees what can be seen in `/proc`."""
        try:
            directory = self._make()
        except OSError:
            return
        psutil.PROCFS_PATH = str(directory)

    def _make(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="figures-"))
        paths = [Path(os.fsdecode(path)) for path in self._readable]
        names = {path.parts[2] for path in paths if _PROC in path.parents}
        for name in names - {"net"}:
            (directory / name).symlink_to(_PROC / name)
        if self._network is not None:
            (directory / "net").mkdir()
            (directory / "net/dev").symlink_to(f"/proc/self/fd/{self._network}")

        def show_own() -> None:
            own = directory / str(os.getpid())
            if not own.is_symlink():
                own.symlink_to(_PROC / own.name)

        show_own()
        # A child looks for itself.
        os.register_at_fork(after_in_child=show_own)
        return directory
