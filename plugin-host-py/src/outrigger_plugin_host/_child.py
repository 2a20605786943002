"""What must a fresh worker process do to itself before it talks to the server?

The order matters: it first looks whether it may be a fork at all, then makes sure that it dies
with its host, then gives up everything that it inherited, and only then does anything that can
fail slowly. Then it waits, still with one
thread, until the server says whose worker it is. Everything that does not depend on that comes
before, because from there on somebody waits for it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
import signal
import sys
import tempfile
import time
from typing import Any, NoReturn

from outrigger_plugin_host import (
    _figures,
    _installed,
    _layers,
    _orphans,
    _pairs,
    _shared_memory,
    _signals,
    _warm_up,
)
from outrigger_plugin_host._channel import Channel
from outrigger_plugin_host._plugin import install_names
from outrigger_plugin_host._worker import Worker

EXIT_ORPHANED = 69
EXIT_SETUP_FAILED = 71
EXIT_REFUSED = 72
_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def prepare() -> None:
    """Do once, in the host, what holds for all that it forks."""
    # Not those of the interpreter, which some variables make different ones.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _line_buffered(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _line_buffered(2)  # type: ignore[misc]
    faulthandler.enable(sys.stderr, all_threads=False)
    # Lets the server ask a worker that misses its deadline where it is.
    faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True, chain=False)
    _signals.handle(signal.SIGTERM, _signals.DEFAULT)
    _signals.change_mask(signal.SIG_SETMASK, ())
    install_names()
    _figures.give_to_psutil()
    _pairs.give_to_paho()
    _shared_memory.give_to_multiprocessing()
    # Plugins treat naive local times as UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()


def _line_buffered(descriptor: int) -> Any:
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def become_worker(worker: int, host_pid: int, channel: int, stdout: int, stderr: int) -> NoReturn:
    """Turn this process into the worker with this number; never returns."""
    code = EXIT_SETUP_FAILED
    try:
        if _installed.of_this_process().has_changed():
            _start_again(worker, host_pid, channel, stdout, stderr)
        os.setsid()
        _die_with_host(host_pid)
        _orphans.mark(worker)
        _reset_signals()
        _take_descriptors(channel, stdout, stderr)
        random.seed()
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()
        code = _serve(channel)
    except BaseException as error:  # noqa: BLE001 - nothing may unwind into the host's frames
        _report(error)
    finally:
        # Not sys.exit: what the host registered with atexit is the host's.
        _exit(code)


def fresh_command(worker: int, host_pid: int) -> list[str]:
    """Return what starts the worker as an interpreter of its own.

    The channel takes the place of its standard input, which every program leaves alone.
    """
    program = [sys.executable, "-P", "-m", "outrigger_plugin_host", "worker"]
    return [*program, str(worker), str(host_pid)]


def _start_again(worker: int, host_pid: int, channel: int, stdout: int, stderr: int) -> NoReturn:
    for number, descriptor in enumerate((channel, stdout, stderr)):
        os.dup2(descriptor, number)
    os.execv(sys.executable, fresh_command(worker, host_pid))  # noqa: S606


def _serve(descriptor: int) -> int:
    """Wait until the server assigns this process, then be that worker; return the exit code."""
    with Channel(descriptor) as channel:
        assign = channel.wait(os.getpid(), _warm_up.rehearse)
        if assign is None:
            # The server needs no further worker, or it is gone.
            return 0
        # Not `update`, which costs a worker a quarter of a megabyte: it touches much of its host's.
        for name, value in assign.environment.items():
            os.environ[name] = value
        # Computed from the environment before, if at all.
        tempfile.tempdir = None
        if assign.directory:
            os.chdir(assign.directory)
        _shared_memory.take(assign.environment.get("TMPDIR", ""))
        try:
            applied = _layers.confine(assign.confinement)
        except _layers.RefusedError as refused:
            channel.refused(refused.layer, refused.reason)
            return EXIT_REFUSED
        channel.confined(applied.reports, applied.listener)
        _layers.limit_descriptors(assign.confinement)
        if applied.listener is not None:
            os.close(applied.listener)
    return Worker(assign.socket, assign.token).run()


def _die_with_host(host_pid: int) -> None:
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The host may have died before the call above.
    if os.getppid() != host_pid:
        os._exit(EXIT_ORPHANED)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    _signals.handle(signal.SIGINT, signal.default_int_handler)
    _signals.handle(signal.SIGCHLD, _signals.DEFAULT)


def _take_descriptors(channel: int, stdout: int, stderr: int) -> None:
    """Keep the standard streams and the channel, which is none of them."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    if _layers.is_left_out(_layers.DESCRIPTORS):
        return
    os.closerange(3, channel)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))


def _report(error: BaseException) -> None:
    text = f"outrigger worker {os.getpid()}: {type(error).__name__}: {error}\n"
    os.write(2, text.encode("utf-8", "backslashreplace"))


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
