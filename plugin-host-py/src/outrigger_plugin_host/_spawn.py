"""How does the host get a new worker process?

By forking itself, which takes milliseconds. A fork is only safe while the host has one thread; if
some library started another, the host says so and starts a fresh interpreter instead, slower.
So it does after something was installed, because a fork would have the earlier version of what
the host has loaded and import the rest from the new one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from outrigger_plugin_host._child import become_worker


def spawn(worker: int, channel: int, stdout: int, stderr: int, *, outdated: bool) -> int:
    """Start the worker with these descriptors as its channel and its output; return its pid."""
    if outdated:
        return _spawn_fresh(worker, channel, stdout, stderr)
    threads = _thread_count()
    if threads == 1:
        return _fork(worker, channel, stdout, stderr)
    sys.stderr.write(
        f"outrigger host: {threads} threads in the host, so worker {worker} is started "
        "without a fork, which is slower\n"
    )
    sys.stderr.flush()
    return _spawn_fresh(worker, channel, stdout, stderr)


def _thread_count() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _fork(worker: int, channel: int, stdout: int, stderr: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    host_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        become_worker(worker, host_pid, channel, stdout, stderr)
    return pid


def _spawn_fresh(worker: int, channel: int, stdout: int, stderr: int) -> int:
    # The channel takes the place of the standard input, which every program leaves alone.
    command = [sys.executable, "-P", "-m", "outrigger_plugin_host", "worker"]
    return os.posix_spawn(
        sys.executable,
        [*command, str(worker), str(os.getpid())],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, channel, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ],
    )


def fresh_worker_main(worker: int, host_pid: int) -> NoReturn:
    """Be the worker whose channel is the standard input."""
    become_worker(worker, host_pid, os.dup(0), 1, 2)
