"""How does a host find and end what its workers leave behind?

A process that leaves its worker's process group (`setsid`) and loses its parent goes to the
nearest subreaper, which is the host. It may do so while its worker goes on, as daemons do, and
then it may live as long as that does. Whose it is, is said by a mark that each worker sets on
itself and that the kernel passes on over fork and exec: the limit of file locks, which Linux has
not used since 2.4. The workers' filter of system calls keeps it as it is; without one, a process can
lower its mark, which only makes it another worker's or nobody's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

_PR_SET_CHILD_SUBREAPER = 36
_RLIMIT_LOCKS = 10
_LIBC = ctypes.CDLL(None, use_errno=True)


def adopt() -> None:
    """Become the parent of all descendants that lose theirs."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def mark(worker: int) -> None:
    """Make this process and all that it starts the worker's."""
    # Where the limit is lower already, they are nobody's, and end with the next worker.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(_RLIMIT_LOCKS, (worker, worker))


def end_orphans(workers: Container[int], pids: Container[int]) -> bool:
    """Kill children that are not among `pids` and belong to none of these workers.

    Return whether there were any: their own children may only be seen once they have ended.
    """
    found = [pid for pid in children() if pid not in pids and owner(pid) not in workers]
    for pid in found:
        kill(pid)
        os.waitpid(pid, os.WNOHANG)
    return bool(found)


def children() -> list[int]:
    """Return this process's children, whether they have ended or not."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        # Kernels without this list leave orphans to the keeper, which has no other either.
        with contextlib.suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text().split())
    return found


def kill(pid: int) -> None:
    """Kill a child that was not reaped, so that the number is not another's."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def owner(pid: int) -> int | None:
    """Return the worker that this child was marked by, whether it has ended or not."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return None
    for line in limits.splitlines():
        if line.startswith("Max file locks"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else None
    return None
