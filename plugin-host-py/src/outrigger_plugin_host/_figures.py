"""Where does psutil find the figures of this machine and of its own process?

A worker may read single files of `/proc`, and not list it. psutil can be told to look elsewhere:
a directory of the worker's own, with links to what may be read, in which this process is the only
one. The network's figures are a special case: the kernel makes that file anew at each look, so
that Landlock's rule holds for a descriptor of it alone, and the link leads there. Where workers
have a network of their own, which is empty, the machine's figures are mounted elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _imports

if TYPE_CHECKING:
    from collections.abc import Sequence

NETWORK = b"/proc/self/net/dev"
_OUTSIDE = b"/dev/outrigger-network"
_PROC = Path("/proc")

_shown: tuple[Sequence[bytes], int | None] | None = None
"""What may be read, and the descriptor of the network's figures, once that is known."""


def open_network() -> int | None:
    """Take the descriptor that a rule for the network's figures is to hold for."""
    for path in (_OUTSIDE, NETWORK):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_PATH | os.O_CLOEXEC)
    return None


def give_to_psutil() -> None:
    """Have psutil, once it is imported, look at what `show` was told of."""
    _imports.after("psutil", _complete)


def show(readable: Sequence[bytes], network: int | None) -> None:
    """Let what of `readable` lies in `/proc`, and the descriptor of the network's, be seen."""
    global _shown  # noqa: PLW0603 - it is about the process
    _shown = (readable, network)


def _complete(psutil: Any) -> None:
    if _shown is None:
        return
    readable, network = _shown
    # Only now: few plugins use it, and all would wait for this.
    paths = [Path(os.fsdecode(path)) for path in readable]
    names = {path.parts[2] for path in paths if _PROC in path.parents}
    # Without it, it sees what can be seen in /proc.
    with contextlib.suppress(OSError):
        psutil.PROCFS_PATH = str(_make(names, network))


def _make(names: set[str], network: int | None) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="figures-"))
    for name in names - {"net"}:
        (directory / name).symlink_to(_PROC / name)
    if network is not None:
        (directory / "net").mkdir()
        (directory / "net/dev").symlink_to(f"/proc/self/fd/{network}")

    def show_own() -> None:
        own = directory / str(os.getpid())
        if not own.is_symlink():
            own.symlink_to(_PROC / own.name)

    show_own()
    # A child looks for itself.
    os.register_at_fork(after_in_child=show_own)
    return directory
