"""What does the host, the fork server of one virtual environment, do?

It loads the heavy modules once, then forks a worker whenever the server asks, and reports how they
end. It runs on one thread, never loads a plugin, and sees nothing of what workers are told or
print, since all that it has seen is in the memory of those it forks later. When the server's end of
the control socket closes, all its workers die with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from outrigger_plugin_host import _frames, _installed, _orphans, _spawn
from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._child import EXIT_SETUP_FAILED, prepare
from outrigger_plugin_host._errors import ProtocolError
from outrigger_plugin_host._version import PROTOCOL, VERSION

if TYPE_CHECKING:
    import resource
    from collections.abc import Iterator

_READ_BYTES_MAX = 64 * 1024
_PASSED_MAX = 16
"""How many descriptors one read may bring; the kernel ends a read behind each message with some."""
_INT = struct.Struct("i")
_ANCILLARY_BYTES_MAX = socket.CMSG_SPACE(_PASSED_MAX * _INT.size)
_PASSED_PER_WORKER = 3
"""Its channel, its standard output, its standard error."""
_REAPED_AT_ONCE = 64
_SWEEPS_AT_ONCE = 16
_tgkill = getattr(ctypes.CDLL(None), "tgkill", None)
"""Not in every C library."""
EXIT_PROTOCOL = 76


class _ServerClosed(Exception):  # noqa: N818 - not an error: how every host ends
    """The server closed the control socket."""


class Host:
    """The fork server's loop and everything it owns."""

    def __init__(self, control: socket.socket) -> None:
        """Serve the server at the other end of `control`."""
        self._control = control
        self._frames = _frames.FrameReader()
        self._passed: deque[int] = deque()
        """For workers that are to be started, in the order in which they are asked for."""
        self._pids: dict[int, int] = {}
        """Those of the children that have not been reaped, by their number as workers."""
        self._workers: dict[int, int] = {}
        """The other way round."""
        self._started = pb.FromHost(started=pb.WorkerStarted())
        self._poll = select.poll()
        self._wakeup = _wakeup_on_child()
        self._may_reap = False
        """Whether children may have ended that were not reaped."""
        self._installed = _installed.of_this_process()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._wakeup, select.POLLIN)

    def run(self) -> int:
        """Serve until the server closes the socket; return the exit code."""
        try:
            ready = pb.HostReady(
                protocol=PROTOCOL,
                python_version=platform.python_version(),
                host_version=VERSION,
                readable=_readable(),
            )
            self._send(pb.FromHost(ready=ready))
            while True:
                for descriptor, _ in self._poll.poll(0 if self._may_reap else None):
                    self._on_readable(descriptor)
                if self._may_reap:
                    self._may_reap = self._reap()
        except _ServerClosed:
            return 0
        except (ProtocolError, DecodeError) as error:
            _say(f"protocol error: {error}")
            return EXIT_PROTOCOL
        finally:
            self._end_all()

    def _on_readable(self, descriptor: int) -> None:
        if descriptor == self._control.fileno():
            self._on_control()
        elif descriptor == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, _READ_BYTES_MAX)
            self._may_reap = True

    def _on_control(self) -> None:
        try:
            received, ancillary, flags, _ = self._control.recvmsg(
                _READ_BYTES_MAX, _ANCILLARY_BYTES_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            raise _ServerClosed from None
        # Not by socket.recv_fds: a worker has for itself what its host writes to around the fork.
        for _level, _type, data in ancillary:
            self._passed += (number for (number,) in _INT.iter_unpack(data))
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("descriptors that this process cannot take")
        if not received:
            raise _ServerClosed
        for payload in self._frames.feed(received):
            message = pb.ToHost.FromString(payload)
            kind = message.WhichOneof("message")
            if kind == "start_worker":
                self._start(message.start_worker)
            elif kind == "signal_worker":
                self._signal(message.signal_worker)

    def _start(self, start: Any) -> None:
        if start.worker in self._pids:
            raise ProtocolError(f"worker {start.worker} exists already")
        if len(self._passed) < _PASSED_PER_WORKER:
            raise ProtocolError(f"worker {start.worker} lacks its channel or its output")
        channel, stdout, stderr = (self._passed.popleft() for _ in range(_PASSED_PER_WORKER))
        try:
            self._installed.settle()
            pid = _spawn.spawn(start.worker, channel, stdout, stderr)
        except OSError as error:
            # As its last words; the pipe is empty, so that nothing is waited for.
            with contextlib.suppress(OSError):
                os.write(stderr, f"worker could not be started: {error}\n".encode())
            exited = pb.WorkerExited(worker=start.worker, code=EXIT_SETUP_FAILED)
            self._send(pb.FromHost(exited=exited))
            return
        finally:
            for descriptor in (channel, stdout, stderr):
                os.close(descriptor)
        self._pids[start.worker] = pid
        self._workers[pid] = start.worker
        # The same message each time: the worker has for itself what its host writes to by now.
        self._started.started.worker = start.worker
        self._started.started.pid = pid
        self._send(self._started)

    def _signal(self, request: Any) -> None:
        # Only children that were not reaped are known, so the pid cannot be somebody else's.
        pid = self._pids.get(request.worker)
        if pid is None:
            return
        if request.main_thread:
            _signal_main_thread(pid, request.signal)
        else:
            _signal_group(pid, request.signal)

    def _reap(self) -> bool:
        """Reap some of those that have ended; return whether there may be more.

        Not all at once: a plugin can leave more behind than can be reaped, and the others' workers
        must not wait for that.
        """
        reaped = 0
        for pid in itertools.islice(_exited_children(), _REAPED_AT_ONCE):
            reaped += 1
            if pid in self._workers:
                self._on_exited(pid)
                continue
            # The children of an orphan are ours by now. Those of a living worker's stay.
            is_nobodys = _orphans.owner(pid) not in self._pids
            os.waitpid(pid, 0)
            if is_nobodys:
                self._end_orphans()
        return reaped == _REAPED_AT_ONCE

    def _on_exited(self, pid: int) -> None:
        # What it left in its group goes with it, while its pid still reserves the group.
        _signal_group(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        worker = self._workers.pop(pid)
        del self._pids[worker]
        # What it left outside of its group is ours by now.
        self._end_orphans()
        self._send(pb.FromHost(exited=_exited(worker, status, usage)))

    def _end_orphans(self) -> None:
        # What forks as fast as it is killed has ended a moment later, when its end is seen here.
        for _ in range(_SWEEPS_AT_ONCE):
            if not _orphans.end_orphans(self._pids, self._workers):
                return

    def _end_all(self) -> None:
        for pid in self._workers:
            _signal_group(pid, signal.SIGKILL)
        # Each one that is reaped has made its children ours before.
        with contextlib.suppress(ChildProcessError):
            while True:
                for pid in _orphans.children():
                    _orphans.kill(pid)
                os.wait()
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass

    def _send(self, message: Any) -> None:
        try:
            self._control.sendall(_frames.encode(message.SerializeToString()))
        except ConnectionError:
            raise _ServerClosed from None


def main() -> int:
    """Run the host on the socket that is file descriptor 0."""
    control = _take_control_socket()
    # Control-C in a terminal is for the server, which then ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _orphans.adopt()
    prepare()
    host = Host(control)
    gc.collect()
    # Forked workers then leave these objects alone, so their pages stay shared.
    gc.freeze()
    return host.run()


def _take_control_socket() -> socket.socket:
    """Move the socket off descriptor 0, where a worker's standard input will be."""
    control = socket.socket(fileno=os.dup(0))
    control.setblocking(True)  # noqa: FBT003 - the standard library's signature
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return control


def _readable() -> list[str]:
    """Return what Python reads here, so that workers may read it too."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path}
    found.add(str(Path(sys.executable).resolve().parent))
    # A library that was found by an environment variable or a link may lie anywhere.
    for line in Path("/proc/self/maps").read_text().splitlines():
        *_, path = line.split(maxsplit=5)
        if ".so" in path:
            found.add(str(Path(path).parent))
    return sorted(path for path in found if path.startswith("/") and path.strip("/"))


def _wakeup_on_child() -> int:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    return read


def _exited_children() -> Iterator[int]:
    """Yield children that have ended, without reaping them."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        yield found.si_pid


def _signal_group(pid: int, number: int) -> None:
    """Signal the worker's group, or the worker alone while it has not made its group yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _signal_main_thread(pid: int, number: int) -> None:
    """Signal the thread that runs the plugin; it takes this before it runs on where it was.

    Where it blocks the signal, or the C library cannot address it, another thread may take it.
    """
    if _tgkill is None or _is_blocked(pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return
    # One that has ended and was not reaped yet may have no such thread: then this does nothing.
    _tgkill(pid, pid, number)


def _is_blocked(pid: int, number: int) -> bool:
    """Say whether a process's main thread keeps this signal waiting."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigBlk:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _exited(worker: int, status: int, usage: resource.struct_rusage) -> Any:
    exited = pb.WorkerExited(
        worker=worker,
        user_cpu_us=int(usage.ru_utime * 1_000_000),
        system_cpu_us=int(usage.ru_stime * 1_000_000),
        peak_memory_bytes=usage.ru_maxrss * 1024,
    )
    if os.WIFSIGNALED(status):
        exited.signal = os.WTERMSIG(status)
    else:
        exited.code = os.WEXITSTATUS(status)
    return exited


def _say(text: str) -> None:
    sys.stderr.write(f"outrigger host: {text}\n")
    sys.stderr.flush()
