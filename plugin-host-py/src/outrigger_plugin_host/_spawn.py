"""How does the host get a new worker process?

By forking itself, which takes milliseconds. A fork is only safe while the host has one thread; if
some library started another, the host says so and starts a fresh interpreter instead, slower.
So it does after something was installed, because a fork would have the earlier version of what
the host has loaded and import the rest from the new one.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._child import become_worker

_HOST_PID = struct.Struct(">I")


def spawn(start: Any, stdout: int, stderr: int, *, outdated: bool) -> int:
    """Start the worker with these descriptors as its output; return its pid."""
    if outdated:
        return _spawn_fresh(start, stdout, stderr)
    threads = _thread_count()
    if threads == 1:
        return _fork(start, stdout, stderr)
    sys.stderr.write(
        f"outrigger host: {threads} threads in the host, so worker {start.worker} is started "
        "without a fork, which is slower\n"
    )
    sys.stderr.flush()
    return _spawn_fresh(start, stdout, stderr)


def _thread_count() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _fork(start: Any, stdout: int, stderr: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    host_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        become_worker(start, host_pid, stdout, stderr)
    return pid


def _spawn_fresh(start: Any, stdout: int, stderr: int) -> int:
    # A memory file rather than a pipe: it takes any size without a reader, and unlike the
    # environment or arguments nobody can read the token from /proc.
    config = os.memfd_create("outrigger-worker", os.MFD_CLOEXEC)
    try:
        with os.fdopen(config, "wb", closefd=False) as file:
            file.write(_HOST_PID.pack(os.getpid()) + start.SerializeToString())
        os.lseek(config, 0, os.SEEK_SET)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "outrigger_plugin_host", "worker"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, config, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
        )
    finally:
        os.close(config)


def fresh_worker_main() -> NoReturn:
    """Be the worker whose description is on standard input."""
    with os.fdopen(0, "rb", closefd=False) as file:
        config = file.read()
    (host_pid,) = _HOST_PID.unpack_from(config)
    start = pb.StartWorker.FromString(config[_HOST_PID.size :])
    become_worker(start, host_pid, 1, 2)
