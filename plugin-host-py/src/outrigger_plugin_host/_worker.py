"""What does a worker do from its first message to its last?

Two threads: the control thread reads what the server says and answers its probes, and the main
thread runs the plugin, since only there KeyboardInterrupt and asyncio.run work. grpc's own threads
send the outbox.
"""

from __future__ import annotations

import os
import platform
import queue
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from outrigger_plugin_host import _installed
from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._cache import OwnCache
from outrigger_plugin_host._entry_points import (
    PROCESS_PERSISTED,
    PROCESS_REQUEST,
    PROCESS_SCHEDULED_CALL,
    PROCESS_WRITES,
    call_time,
)
from outrigger_plugin_host._errors import ProtocolError
from outrigger_plugin_host._files import PersistedFile, attributes
from outrigger_plugin_host._flight import Fetch, FlightFetch
from outrigger_plugin_host._interrupts import Interrupts
from outrigger_plugin_host._local import (
    Connections,
    InfluxDB3Local,
    fetch_batch,
    fetch_file,
    flush_lines,
)
from outrigger_plugin_host._outbox import Outbox
from outrigger_plugin_host._package import Package, PackageImportError
from outrigger_plugin_host._plugin import Plugin, SingleFile, plugin_error
from outrigger_plugin_host._progress import Progress
from outrigger_plugin_host._responses import response
from outrigger_plugin_host._rpc import Supervisor, describe
from outrigger_plugin_host._tables import TableBatch
from outrigger_plugin_host._timings import Timings
from outrigger_plugin_host._version import PROTOCOL, VERSION

if TYPE_CHECKING:
    import pyarrow as pa

_GOODBYE_S = 5.0
"""How long the server may take to end the stream, or the plugin to end once it is gone."""
EXIT_LOST = 70
_LOADING = ""
"""What a load is called in `Cancel`, `Probe` and `Heartbeat`: it is no invocation."""
_PYTHON_VERSION = platform.python_version()
"""Found out once in the host, since it takes parsing."""


@dataclass(frozen=True, slots=True)
class _StreamEnded:
    """The server ended the stream, cleanly if there is no reason."""

    reason: str | None


class Worker:
    """A worker that is connected to the server."""

    def __init__(self, socket: str, token: bytes, fetch: Fetch | None = None) -> None:
        """Connect to `socket`. Tests put their own `fetch` in the place of Flight."""
        supervisor = Supervisor(socket)
        self._outbox = Outbox()
        self._connections = Connections(
            outbox=self._outbox,
            fetch=fetch or FlightFetch(f"grpc+unix://{socket}"),
            write=supervisor.write,
            cache=OwnCache(),
            cache_calls=supervisor,
        )
        self._interrupts = Interrupts()
        self._progress = Progress(threading.main_thread().ident or 0)
        self._installed = _installed.of_this_process()
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._finished = threading.Event()
        self._bind: Any = None
        self._plugin: Plugin | None = None
        self._package: Package | None = None
        self._outbox.send(pb.FromWorker(hello=_hello(token)))
        self._stream = supervisor.attach_worker(iter(self._outbox))
        self._control = threading.Thread(target=self._read, name="outrigger-control", daemon=True)

    def run(self) -> int:
        """Serve until the server drains the worker or goes away; return the exit code."""
        self._control.start()
        try:
            return self._serve()
        except ProtocolError as error:
            _say(f"protocol error: {error}")
            return EXIT_LOST
        finally:
            self._remove_files()
            self._finished.set()

    def _serve(self) -> int:
        while True:
            task = self._tasks.get()
            if isinstance(task, _StreamEnded):
                return _exit_code(task)
            kind = task.WhichOneof("message")
            if kind == "bind":
                self._on_bind(task.bind)
            elif kind == "invoke":
                self._on_invoke(task.invoke)
            elif kind == "drain":
                return self._leave()

    def _leave(self) -> int:
        """Send what is queued, then wait until the server has read it."""
        self._outbox.close()
        while True:
            try:
                task = self._tasks.get(timeout=_GOODBYE_S)
            except queue.Empty:
                return 0
            if isinstance(task, _StreamEnded):
                return _exit_code(task)

    def _on_bind(self, bind: Any) -> None:
        if self._bind is not None and bind.binding != self._bind.binding:
            raise ProtocolError(f"bound to {self._bind.binding}, cannot serve {bind.binding}")
        self._bind = bind
        self._installed.refresh()
        errors = list[Any]()

        def work() -> None:
            # Described in here because that, too, runs code of the plugin that may hang.
            try:
                self._plugin = self._load(bind)
            except ProtocolError:
                raise
            except PackageImportError as error:
                errors.append(plugin_error(error.reason, error.before, error.after))
            except BaseException as error:  # noqa: BLE001 - the source caused it, or a Cancel
                errors.append(plugin_error(error))

        self._outbox.open(_LOADING)
        failure = self._interrupts.run(_LOADING, work)
        if isinstance(failure, ProtocolError):
            raise failure
        if failure is not None and not errors:
            errors.append(plugin_error(failure))
        if errors:
            # The last good source stays; the server decides whether to use it.
            failed = pb.LoadFailed(revision=bind.revision, error=errors[0])
            self._outbox.complete(pb.FromWorker(load_failed=failed))
            return
        self._outbox.complete(pb.FromWorker(ready=pb.Ready(revision=bind.revision)))

    def _load(self, bind: Any) -> Plugin:
        kind = bind.WhichOneof("source")
        if kind == "single_file":
            return SingleFile(bind.plugin_name, bind.single_file.text)
        if kind != "package":
            raise ProtocolError("a plugin source of a kind that this version does not know")
        package = self._package
        if package is None or not package.is_imported:
            self._remove_files()
            files = [(file.path, file.text) for file in bind.package.files]
            package = self._package = Package(bind.package.name, bind.revision, files)
        elif package.revision != bind.revision:
            raise ProtocolError("a package was imported; another revision needs another worker")
        package.load()
        return package

    def _remove_files(self) -> None:
        if self._package is not None:
            self._package.remove()

    def _on_invoke(self, invoke: Any) -> None:
        if self._plugin is None:
            raise ProtocolError("an invocation without a plugin")
        plugin, errors, answers = self._plugin, list[Any](), list[Any]()
        timings = Timings()
        self._outbox.open(invoke.invocation)
        self._installed.refresh()

        def work() -> None:
            # Described in here because that, too, runs code of the plugin that may hang.
            try:
                answers.append(self._run_plugin(plugin, invoke, timings))
            except BaseException as error:  # noqa: BLE001 - SystemExit ends the run, not the worker
                errors.append(plugin_error(error))

        interrupted = self._interrupts.run(invoke.invocation, work)
        if interrupted is not None and not errors:
            errors.append(plugin_error(interrupted))
        outcome = {"error": errors[0]} if errors else {"ok": answers[0]}
        completed = pb.Completed(
            invocation=invoke.invocation,
            cached_objects=self._connections.cache.count(),
            timings=timings.message(),
            **outcome,
        )
        self._outbox.complete(pb.FromWorker(completed=completed))

    def _run_plugin(self, plugin: Plugin, invoke: Any, timings: Timings) -> Any:
        """Run the invocation; return the Ok of its Completed."""
        local, args = InfluxDB3Local(invoke, self._connections), self._arguments()
        answer = None
        kind = invoke.WhichOneof("event")
        if kind == "writes":
            tables = invoke.writes.tables
            batches = [_table_batch(local, table, timings) for table in tables]
            plugin.call(PROCESS_WRITES, local, batches, args)
        elif kind == "files":
            files = [_persisted_file(local, file, timings) for file in invoke.files.files]
            plugin.call(PROCESS_PERSISTED, local, files, args)
        elif kind == "schedule":
            time = call_time(invoke.schedule.call_time_ns)
            plugin.call(PROCESS_SCHEDULED_CALL, local, time, args)
        elif kind == "request":
            event = invoke.request
            query, headers = dict(event.query), dict(event.headers)
            returned = plugin.call(PROCESS_REQUEST, local, query, headers, event.body, args)
            # It may be a generator, so this runs the plugin too.
            answer = response(returned, local.warn)
        else:
            raise ProtocolError("an event of a kind that this version does not know")
        flush_lines(local)
        return pb.Completed.Ok(response=answer)

    def _arguments(self) -> dict[str, str] | None:
        if not self._bind.HasField("arguments"):
            return None
        return dict(self._bind.arguments.values)

    def _answer_probe(self, invocation: str) -> None:
        """Say how far the plugin has come. Also a sign that the interpreter's lock moves."""
        steps = self._progress.look(invocation)

        def heartbeat(uses: int) -> Any:
            beat = pb.Heartbeat(invocation=invocation, progress=steps + uses)
            return pb.FromWorker(heartbeat=beat)

        self._outbox.send_heartbeat(invocation, heartbeat)

    def _read(self) -> None:
        """Run on the control thread."""
        reason = None
        try:
            for message in self._stream:
                kind = message.WhichOneof("message")
                if kind == "cancel":
                    self._interrupts.cancel(message.cancel.invocation)
                elif kind == "probe":
                    self._answer_probe(message.probe.invocation)
                else:
                    self._tasks.put(message)
        except grpc.RpcError as error:
            reason = describe(error)
        ended = _StreamEnded(reason)
        self._outbox.close()
        self._tasks.put(ended)
        # Nothing that still runs can count any more.
        self._interrupts.cancel(None)
        if not self._finished.wait(_GOODBYE_S):
            self._remove_files()
            os._exit(_exit_code(ended))


def _hello(token: bytes) -> Any:
    return pb.Hello(
        protocol=PROTOCOL,
        token=token,
        pid=os.getpid(),
        python_version=_PYTHON_VERSION,
        host_version=VERSION,
    )


def _table_batch(local: InfluxDB3Local, table: Any, timings: Timings) -> TableBatch:
    name, index = table.name, table.index
    return TableBatch(name, table.rows, lambda: fetch_batch(local, name, index), timings)


def _persisted_file(local: InfluxDB3Local, file: Any, timings: Timings) -> PersistedFile:
    path, index = file.path, file.index

    def fetch(first: int, rows_max: int) -> pa.Table:
        return fetch_file(local, path, index, first, rows_max)

    return PersistedFile(attributes(file), fetch, timings)


def _exit_code(ended: _StreamEnded) -> int:
    if ended.reason is None:
        return 0
    _say(f"the connection to the server broke: {ended.reason}")
    return EXIT_LOST


def _say(text: str) -> None:
    sys.stderr.write(f"outrigger worker {os.getpid()}: {text}\n")
    sys.stderr.flush()
