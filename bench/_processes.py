"""What does the kernel say about the server's processes?

Not a program of its own.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _server import wait_until

if TYPE_CHECKING:
    from _server import Server


@dataclass(frozen=True)
class Memory:
    """Of one process, in bytes."""

    resident: int
    private: int
    """Private_Clean and Private_Dirty: what would be free if the process ended."""
    proportional: int


def memory(pid: int) -> Memory:
    """Read how much memory a process has."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, size = line.partition(":")
        found[name] = int(size.split()[0]) * 1024
    private = found["Private_Clean"] + found["Private_Dirty"]
    return Memory(found["Rss"], private, found["Pss"])


def children(pid: int) -> list[int]:
    """Return the processes that this one has started and that still are there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may have ended meanwhile.
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def host(server: int) -> int | None:
    """Return the plugin host of a server, if it has one.

    It is below the server's spawner and a keeper of its own, which have the server's command.
    """
    below = children(server)
    while below:
        process = below.pop(0)
        if b"outrigger_plugin_host" in command(process):
            return process
        below += children(process)
    return None


def workers(server: int) -> list[int]:
    """Return the workers of a server."""
    found = host(server)
    return [] if found is None else children(found)


def command(pid: int) -> bytes:
    """Return a process's command line; nothing if it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for_quiet_workers(server: Server, count: int) -> list[int]:
    """Wait until there are so many workers, all of them ready and none at work."""
    waiting = "SELECT pid FROM system.plugin_workers WHERE state IN ('idle', 'bound')"
    seen: list[dict[int, int]] = []

    def quiet() -> list[int]:
        state = {pid: _ticks(pid) for pid in workers(server.pid)}
        seen.append(state)
        # Five looks in a row, 20 ms apart, without a tick of 10 ms.
        if len(state) != count or seen[-5:] != [state] * 5:
            return []
        ready = {int(row["pid"]) for row in server.query(waiting)}
        return sorted(state) if ready == set(state) else []

    return wait_until(f"{count} workers that wait", quiet)


def _ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
