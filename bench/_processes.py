"""What does the kernel say about the server's processes?

Not a program of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from _server import wait_until


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
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def host(server: int) -> int | None:
    """Return the plugin host of a server, if it has one."""
    for child in children(server):
        if b"outrigger_plugin_host" in command(child):
            return child
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


def wait_for_quiet_workers(server: int, count: int) -> list[int]:
    """Wait until there are so many workers, all of them connected and none at work."""
    seen: list[tuple[tuple[int, int], ...]] = []

    def quiet() -> list[int]:
        pids = workers(server)
        state = tuple(_threads_and_ticks(pid) for pid in pids)
        seen.append(state)
        if len(pids) != count or any(threads == 1 for threads, _ in state):
            return []
        # Five looks in a row, 20 ms apart, without a tick of 10 ms.
        return pids if seen[-5:] == [state] * 5 else []

    return wait_until(f"{count} workers that wait", quiet)


def _threads_and_ticks(pid: int) -> tuple[int, int]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, 0
    fields = stat.rpartition(")")[2].split()
    return int(fields[17]), int(fields[11]) + int(fields[12])
