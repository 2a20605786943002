"""How are rows and query results fetched?

By Arrow Flight from the server's private socket, with tickets that are good for one invocation.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.flight

from outrigger_plugin_host._errors import FetchError
from outrigger_plugin_host._interrupts import interruptible
from outrigger_plugin_host._rpc import MESSAGE_BYTES_MAX

_PREFIX = re.compile(r"\AFlight (?:returned|error)[^,]*, with message: |\AFlight error: ")
_SUFFIX = re.compile(
    r"\.? ?(?:gRPC client debug context: |Client context: |Detail: (?:Python exception|\w+\Z)).*\Z",
    re.DOTALL,
)


class Fetch(Protocol):
    """Gets the table that a serialized FlightTicket stands for, or raises FetchError."""

    def __call__(self, ticket: bytes, /) -> pa.Table:
        """Fetch."""


class FlightFetch:
    """A Flight client that connects when it is first used."""

    def __init__(self, location: str) -> None:
        """Fetch from `location`, for example `grpc+unix:///run/worker.sock`."""
        self._location = location
        self._lock = threading.Lock()
        self._client: Any = None

    def __call__(self, ticket: bytes, /) -> pa.Table:
        """Fetch the table behind `ticket`."""
        try:
            return interruptible(lambda: self._get(ticket))
        except (pa.ArrowException, OSError) as error:
            raise FetchError(server_message(error)) from None

    def _get(self, ticket: bytes) -> pa.Table:
        return self._connected().do_get(pyarrow.flight.Ticket(ticket)).read_all()

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = pyarrow.flight.FlightClient(
                    self._location,
                    generic_options=[
                        ("grpc.default_authority", "localhost"),
                        ("grpc.enable_http_proxy", 0),
                        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
                    ],
                )
            return self._client


def server_message(error: BaseException) -> str:
    """Cut what Arrow and grpc put around the server's words."""
    return _SUFFIX.sub("", _PREFIX.sub("", str(error))).strip()
