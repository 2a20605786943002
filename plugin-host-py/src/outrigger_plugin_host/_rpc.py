"""How does a worker reach the server's Supervisor service?

The stubs are written by hand for the reason given in `_messages`. A channel must be made after the
fork: grpc's threads do not survive it. The one that `_warm_up` makes before has ended by then.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import grpc

from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable

# grpc itself loads this with the first channel, so every worker would, anew and after its fork:
# milliseconds and megabytes. It starts no thread. A grpc without it has its own way.
with contextlib.suppress(ImportError):
    importlib.import_module("grpc._channel")

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
ATTACH_WORKER = "/outrigger.plugin.v1.Supervisor/AttachWorker"
WRITE = "/outrigger.plugin.v1.Supervisor/Write"
CACHE_GET = "/outrigger.plugin.v1.Supervisor/CacheGet"
CACHE_PUT = "/outrigger.plugin.v1.Supervisor/CachePut"
CACHE_DELETE = "/outrigger.plugin.v1.Supervisor/CacheDelete"

OPTIONS: list[tuple[str, Any]] = [
    # grpc would send the socket's path as the authority, which Rust's HTTP/2 refuses.
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # No keepalive: the socket closes when the server dies, and a server that was stopped for
    # minutes must cost no plugin its caches.
]


class Supervisor:
    """The calls of the service."""

    def __init__(self, socket: str) -> None:
        """Connect to the Unix socket at this path."""
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=OPTIONS)
        self.attach_worker = self._channel.stream_stream(
            ATTACH_WORKER,
            request_serializer=pb.FromWorker.SerializeToString,
            response_deserializer=pb.ToWorker.FromString,
        )
        self._calls: dict[str, Callable[[Any], Any]] = {}

    def write(self, request: Any) -> str:
        """Write at once; return what the server says went wrong, else an empty string."""
        try:
            reply = self._call(WRITE, request, pb.WriteReply)
        except grpc.RpcError as error:
            return describe(error)
        return str(reply.error)

    def cache_get(self, request: Any) -> Any:
        """Ask the global cache for a value."""
        return self._cache_call(CACHE_GET, request, pb.CacheGetReply)

    def cache_put(self, request: Any) -> Any:
        """Put a value into the global cache."""
        return self._cache_call(CACHE_PUT, request, pb.CachePutReply)

    def cache_delete(self, request: Any) -> Any:
        """Delete a value from the global cache."""
        return self._cache_call(CACHE_DELETE, request, pb.CacheDeleteReply)

    def _cache_call(self, method: str, request: Any, reply: Any) -> Any:
        try:
            return self._call(method, request, reply)
        except grpc.RpcError as error:
            raise CacheError(f"the global cache cannot be used: {describe(error)}") from None

    def _call(self, method: str, request: Any, reply: Any) -> Any:
        call = self._calls.get(method)
        if call is None:
            # Only now: most workers need none of them, and each takes memory. Two threads that
            # come here at once make two, which does no harm.
            call = self._calls[method] = self._channel.unary_unary(
                method,
                request_serializer=type(request).SerializeToString,
                response_deserializer=reply.FromString,
            )
        return call(request)


def describe(error: grpc.RpcError) -> str:
    """Return the server's words, else the status code."""
    details = error.details() if isinstance(error, grpc.Call) else None
    if details:
        return str(details)
    return str(error.code().name) if isinstance(error, grpc.Call) else str(error)
