"""What does a worker talk to in tests?

A server that records everything it gets: grpcio serves Supervisor on one Unix socket, and
pyarrow serves Flight on another, since the two cannot share one.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import pyarrow as pa
import pyarrow.flight

from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host import _rpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 20.0
TOKEN = bytes(range(32))
TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_RUN_WORKER = str(Path(__file__).parent / "run_worker.py")


class FakeFlight(pyarrow.flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.tickets: list[Any] = []
        self.answer: Callable[[Any], pa.Table] = lambda _: pa.table({})

    def do_get(self, _context: Any, ticket: Any) -> Any:
        wanted = pb.FlightTicket.FromString(ticket.ticket)
        self.tickets.append(wanted)
        return pyarrow.flight.RecordBatchStream(self.answer(wanted))


class FakeServer:
    """Records messages of one worker and sends it what the test says."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.socket = str(directory / "server.sock")
        self.received: queue.Queue[Any] = queue.Queue()
        self.writes: list[Any] = []
        self.write_answer = ""
        self.cache: dict[str, bytes] = {}
        self.cache_requests: list[Any] = []
        self.cache_answer = ""
        self.metadata: dict[str, Any] = {}
        self._to_send: queue.Queue[Any] = queue.Queue()
        self._invocations = 0
        self.release = threading.Event()
        self.flight_location = f"grpc+unix://{directory / 'flight.sock'}"
        self.flight = FakeFlight(self.flight_location)
        self._grpc = grpc.server(futures.ThreadPoolExecutor(8))
        self._grpc.add_generic_rpc_handlers((self._handlers(),))
        self._grpc.add_insecure_port(f"unix:{self.socket}")
        self._grpc.start()
        self.process: subprocess.Popen[str] | None = None

    def _handlers(self) -> Any:
        methods = {
            "AttachWorker": grpc.stream_stream_rpc_method_handler(
                self._attach, pb.FromWorker.FromString, pb.ToWorker.SerializeToString
            ),
            "Write": grpc.unary_unary_rpc_method_handler(
                self._write, pb.WriteRequest.FromString, pb.WriteReply.SerializeToString
            ),
            "CacheGet": grpc.unary_unary_rpc_method_handler(
                self._get, pb.CacheGetRequest.FromString, pb.CacheGetReply.SerializeToString
            ),
            "CachePut": grpc.unary_unary_rpc_method_handler(
                self._put, pb.CachePutRequest.FromString, pb.CachePutReply.SerializeToString
            ),
            "CacheDelete": grpc.unary_unary_rpc_method_handler(
                self._delete,
                pb.CacheDeleteRequest.FromString,
                pb.CacheDeleteReply.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(_rpc.WRITE.split("/")[1], methods)

    def _attach(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:
        self.context = context

        def read() -> None:
            try:
                for message in messages:
                    self.received.put(message)
            except Exception as error:  # noqa: BLE001 - how grpcio reports a broken stream
                self.received.put(error)
            self.received.put(None)
            self._to_send.put(None)

        self._reader = futures.ThreadPoolExecutor(1)
        self._reader.submit(read)
        while (message := self._to_send.get()) is not None:
            yield message

    def _write(self, request: Any, _context: Any) -> Any:
        self.writes.append(request)
        return pb.WriteReply(error=self.write_answer)

    def _get(self, request: Any, context: Any) -> Any:
        self.cache_requests.append(request)
        if request.name == "forbidden":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not running here")
        return pb.CacheGetReply(value=self.cache.get(request.name))

    def _put(self, request: Any, _context: Any) -> Any:
        self.cache_requests.append(request)
        if not self.cache_answer:
            self.cache[request.name] = request.value
        return pb.CachePutReply(error=self.cache_answer)

    def _delete(self, request: Any, _context: Any) -> Any:
        self.cache_requests.append(request)
        return pb.CacheDeleteReply(deleted=self.cache.pop(request.name, None) is not None)

    def start_worker(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, _RUN_WORKER, self.socket, self.flight_location],
            stderr=subprocess.PIPE,
            text=True,
            # A worker that the test kills leaves its files, and they go with the directory.
            env={**os.environ, "TMPDIR": str(self._directory)},
        )

    def send(self, **message: Any) -> None:
        self._to_send.put(pb.ToWorker(**message))

    def end_stream(self) -> None:
        self._to_send.put(None)

    def next(self) -> Any:
        """Return what the worker sent next, without the wrapper."""
        message = self.received.get(timeout=DEADLINE_S)
        assert message is not None, "the worker has left"
        return getattr(message, message.WhichOneof("message"))

    def bind(self, source: str, args: dict[str, str] | None = None, revision: str = "r1") -> Any:
        self.send_bind(args, revision, single_file={"text": source.encode()})
        return self.next()

    def send_bind(
        self, args: dict[str, str] | None = None, revision: str = "r1", **source: Any
    ) -> None:
        bind = {"binding": "b", "plugin_name": "plugin.py", "revision": revision, **source}
        if args is not None:
            bind["arguments"] = {"values": args}
        self.send(bind=bind)

    def start_invocation(self, *tables: tuple[str, int], lines_bytes_max: int = 1 << 20) -> str:
        refs = [{"name": t, "rows": n, "index": i} for i, (t, n) in enumerate(tables)]
        return self.start_event(lines_bytes_max, writes={"tables": refs})

    def start_event(self, lines_bytes_max: int = 1 << 20, **event: Any) -> str:
        self._invocations += 1
        name = f"i{self._invocations}"
        self.send(
            invoke={
                "invocation": name,
                "attempt": 1,
                "trace_parent": TRACE_PARENT,
                "key": b"k" * 16,
                "timeout_ms": 1000,
                "lines_bytes_max": lines_bytes_max,
                **event,
            }
        )
        return name

    def finish(self) -> tuple[Any, list[Any]]:
        """Return the Completed and everything that came before it."""
        before: list[Any] = []
        while True:
            message = self.next()
            if message.DESCRIPTOR.name == "Completed":
                return message, before
            before.append(message)

    def invoke(self, *tables: tuple[str, int], **limits: int) -> tuple[Any, list[Any]]:
        self.start_invocation(*tables, **limits)
        return self.finish()

    def schedule(self, call_time_ns: int) -> tuple[Any, list[Any]]:
        self.start_event(schedule={"call_time_ns": call_time_ns})
        return self.finish()

    def persisted(self, *files: dict[str, Any]) -> tuple[Any, list[Any]]:
        refs = [{"index": index, **file} for index, file in enumerate(files)]
        self.start_event(files={"files": refs})
        return self.finish()

    def request(self, **request: Any) -> tuple[Any, list[Any]]:
        self.start_event(request=request)
        return self.finish()

    def drain(self) -> int:
        assert self.process is not None
        self.send(drain={})
        return self.process.wait(DEADLINE_S)

    def stop_abruptly(self) -> None:
        self._grpc.stop(0).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stderr:
                self.process.stderr.close()
        self.end_stream()
        self._grpc.stop(0).wait()
        self.flight.shutdown()
