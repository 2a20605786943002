"""How does the host get a new worker process?

By forking itself, which takes milliseconds. A fork is only safe while the host has one thread; if
some library started another, the host says so and starts a fresh interpreter instead, slower.
A worker starts itself as one after something was installed, because a fork has the earlier version
of what the host has loaded and would import the rest from the new one.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from outrigger_plugin_host import _at_fork
from outrigger_plugin_host._child import become_worker, fresh_command, prepare


def spawn(worker: int, channel: int, stdout: int, stderr: int) -> int:
    """Start the worker with these descriptors as its channel and its output; return its pid."""
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
    # Not by a Path: the worker has for itself what its host writes to around the fork.
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def _fork(worker: int, channel: int, stdout: int, stderr: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    host_pid = os.getpid()
    pid = _at_fork.fork()
    if pid == 0:
        become_worker(worker, host_pid, channel, stdout, stderr)
    return pid


def _spawn_fresh(worker: int, channel: int, stdout: int, stderr: int) -> int:
    return os.posix_spawn(
        sys.executable,
        fresh_command(worker, os.getpid()),
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, channel, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ],
    )


def fresh_worker_main(worker: int, host_pid: int) -> NoReturn:
    """Be the worker whose channel is the standard input."""
    prepare()
    become_worker(worker, host_pid, os.dup(0), 1, 2)
