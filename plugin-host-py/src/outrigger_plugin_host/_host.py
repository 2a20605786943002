"""What does the host, the fork server of one virtual environment, do?

It loads the heavy modules once, then forks a worker whenever the server asks, passes on what
workers print, and reports how they end. It runs on one thread and never loads a plugin. When the
server's end of the control socket closes, all its workers die with it.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import platform
import select
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from outrigger_plugin_host import _frames, _installed, _orphans, _spawn
from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._child import EXIT_SETUP_FAILED
from outrigger_plugin_host._errors import ProtocolError
from outrigger_plugin_host._version import PROTOCOL, VERSION

if TYPE_CHECKING:
    import resource
    from collections.abc import Iterator

_OUTPUT_BYTES_MAX = 64 * 1024
_CHANNELS_MAX = 16
"""How many descriptors one read may bring; the kernel ends a read behind each message with one."""
_DRAIN_READS_MAX = 16
"""Of a worker that died, at most 1 MiB per pipe is read; a pipe holds 64 KiB anyway."""
_REAPED_AT_ONCE = 64
_SWEEPS_AT_ONCE = 16
EXIT_PROTOCOL = 76


@dataclass(slots=True)
class _Worker:
    """A child that has not been reaped."""

    worker: int
    pid: int
    pipes: dict[int, bool] = field(default_factory=dict)
    """Read ends, and whether each one is standard error."""


class _ServerClosed(Exception):  # noqa: N818 - not an error: how every host ends
    """The server closed the control socket."""


class Host:
    """The fork server's loop and everything it owns."""

    def __init__(self, control: socket.socket) -> None:
        """Serve the server at the other end of `control`."""
        self._control = control
        self._frames = _frames.FrameReader()
        self._channels: deque[int] = deque()
        """Of workers that are to be started, in the order in which they are asked for."""
        self._by_id: dict[int, _Worker] = {}
        self._by_pid: dict[int, _Worker] = {}
        self._by_pipe: dict[int, _Worker] = {}
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
            self._send(ready=ready)
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
            _read_nonblocking(self._wakeup)
            self._may_reap = True
        elif descriptor in self._by_pipe:
            self._forward(self._by_pipe[descriptor], descriptor)

    def _on_control(self) -> None:
        try:
            received, channels, flags, _ = socket.recv_fds(
                self._control, _OUTPUT_BYTES_MAX, _CHANNELS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            raise _ServerClosed from None
        self._channels += channels
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
        if start.worker in self._by_id:
            raise ProtocolError(f"worker {start.worker} exists already")
        if not self._channels:
            raise ProtocolError(f"worker {start.worker} has no channel")
        channel = self._channels.popleft()
        try:
            worker = self._spawn(start.worker, channel)
        except OSError as error:
            text = f"worker could not be started: {error}\n".encode()
            self._send(output=pb.WorkerOutput(worker=start.worker, stderr=True, data=text))
            self._send(exited=pb.WorkerExited(worker=start.worker, code=EXIT_SETUP_FAILED))
            return
        finally:
            os.close(channel)
        self._by_id[worker.worker] = self._by_pid[worker.pid] = worker
        for pipe in worker.pipes:
            self._by_pipe[pipe] = worker
            self._poll.register(pipe, select.POLLIN)
        self._send(started=pb.WorkerStarted(worker=worker.worker, pid=worker.pid))

    def _spawn(self, number: int, channel: int) -> _Worker:
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as write_ends:
            stdout, stdout_write = os.pipe2(os.O_CLOEXEC)
            on_failure.callback(os.close, stdout)
            write_ends.callback(os.close, stdout_write)
            stderr, stderr_write = os.pipe2(os.O_CLOEXEC)
            on_failure.callback(os.close, stderr)
            write_ends.callback(os.close, stderr_write)
            outdated = self._installed.has_changed()
            pid = _spawn.spawn(number, channel, stdout_write, stderr_write, outdated=outdated)
            on_failure.pop_all()
        for pipe in (stdout, stderr):
            os.set_blocking(pipe, False)
        return _Worker(number, pid, {stdout: False, stderr: True})

    def _signal(self, request: Any) -> None:
        # Only children that were not reaped are known, so the pid cannot be somebody else's.
        worker = self._by_id.get(request.worker)
        if worker is not None:
            _signal_group(worker.pid, request.signal)

    def _forward(self, worker: _Worker, pipe: int) -> bool:
        """Pass on what a pipe holds now; return whether there may be more."""
        output = _read_nonblocking(pipe)
        if output is None:
            return False
        if not output:
            self._close_pipe(worker, pipe)
            return False
        is_stderr = worker.pipes[pipe]
        self._send(output=pb.WorkerOutput(worker=worker.worker, stderr=is_stderr, data=output))
        return True

    def _close_pipe(self, worker: _Worker, pipe: int) -> None:
        self._poll.unregister(pipe)
        del self._by_pipe[pipe], worker.pipes[pipe]
        os.close(pipe)

    def _reap(self) -> bool:
        """Reap some of those that have ended; return whether there may be more.

        Not all at once: a plugin can leave more behind than can be reaped, and the others' workers
        must not wait for that.
        """
        reaped = 0
        for pid in itertools.islice(_exited_children(), _REAPED_AT_ONCE):
            reaped += 1
            worker = self._by_pid.get(pid)
            if worker is None:
                # The children of an orphan are ours by now. Those of a living worker's stay.
                is_nobodys = _orphans.owner(pid) not in self._by_id
                os.waitpid(pid, 0)
                if is_nobodys:
                    self._end_orphans()
            else:
                self._on_exited(worker)
        return reaped == _REAPED_AT_ONCE

    def _on_exited(self, worker: _Worker) -> None:
        # What it left in its group goes with it, while its pid still reserves the group.
        _signal_group(worker.pid, signal.SIGKILL)
        _, status, usage = os.wait4(worker.pid, 0)
        del self._by_id[worker.worker], self._by_pid[worker.pid]
        # What it left outside of its group is ours by now.
        self._end_orphans()
        self._drain(worker)
        self._send(exited=_exited(worker.worker, status, usage))

    def _end_orphans(self) -> None:
        # What forks as fast as it is killed has ended a moment later, when its end is seen here.
        for _ in range(_SWEEPS_AT_ONCE):
            if not _orphans.end_orphans(self._by_id, self._by_pid):
                return

    def _drain(self, worker: _Worker) -> None:
        for pipe in list(worker.pipes):
            for _ in range(_DRAIN_READS_MAX):
                if not self._forward(worker, pipe):
                    break
            if pipe in worker.pipes:
                self._close_pipe(worker, pipe)

    def _end_all(self) -> None:
        for pid in self._by_pid:
            _signal_group(pid, signal.SIGKILL)
        # Each one that is reaped has made its children ours before.
        with contextlib.suppress(ChildProcessError):
            while True:
                for pid in _orphans.children():
                    _orphans.kill(pid)
                os.wait()
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass

    def _send(self, **message: Any) -> None:
        payload = pb.FromHost(**message).SerializeToString()
        try:
            self._control.sendall(_frames.encode(payload))
        except ConnectionError:
            raise _ServerClosed from None


def main() -> int:
    """Run the host on the socket that is file descriptor 0."""
    control = _take_control_socket()
    # Control-C in a terminal is for the server, which then ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _orphans.adopt()
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


def _read_nonblocking(descriptor: int) -> bytes | None:
    """Return None if there is nothing to read now, and nothing at all at the end."""
    try:
        return os.read(descriptor, _OUTPUT_BYTES_MAX)
    except BlockingIOError:
        return None


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
