"""How does a worker reach the server's Supervisor service?

The stubs are written by hand for the reason given in `_messages`. A channel must be made after the
fork, never before: grpc's threads do not survive it.
"""

from __future__ import annotations

from typing import Any

import grpc

from outrigger_plugin_host import _messages as pb

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
ATTACH_WORKER = "/outrigger.plugin.v1.Supervisor/AttachWorker"
WRITE = "/outrigger.plugin.v1.Supervisor/Write"

_OPTIONS: list[tuple[str, Any]] = [
    # grpc would send the socket's path as the authority, which Rust's HTTP/2 refuses.
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # The socket closes when the server dies; pings only find a server that hangs. Patient, since
    # a server that was stopped for a moment must not cost a plugin its caches.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class Supervisor:
    """The two calls of the service."""

    def __init__(self, socket: str) -> None:
        """Connect to the Unix socket at this path."""
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self.attach_worker = self._channel.stream_stream(
            ATTACH_WORKER,
            request_serializer=pb.FromWorker.SerializeToString,
            response_deserializer=pb.ToWorker.FromString,
        )
        self._write = self._channel.unary_unary(
            WRITE,
            request_serializer=pb.WriteRequest.SerializeToString,
            response_deserializer=pb.WriteReply.FromString,
        )

    def write(self, request: Any) -> str:
        """Write at once; return what the server says went wrong, else an empty string."""
        try:
            reply = self._write(request)
        except grpc.RpcError as error:
            return describe(error)
        return str(reply.error)


def describe(error: grpc.RpcError) -> str:
    """Return the server's words, else the status code."""
    details = error.details() if isinstance(error, grpc.Call) else None
    if details:
        return str(details)
    return str(error.code().name) if isinstance(error, grpc.Call) else str(error)
