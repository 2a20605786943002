"""What waits to be sent to the server?

The queue is bounded: a server that reads slowly slows the plugin down instead of letting memory
grow. It also knows which invocation is open, because a message of a finished one would be a breach
of the protocol, and a plugin's forgotten threads go on logging.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host._errors import RunEndedError, ServerGoneError
from outrigger_plugin_host._interrupts import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MESSAGES_MAX = 32
"""Messages are at most 256 KiB (but for one over-long line), so this is 8 MiB at the worst."""

_SHIELDED_WAIT_S = 0.05


class Outbox:
    """An iterator of messages for grpc, filled from any thread."""

    def __init__(self) -> None:
        """Create an empty queue with no open invocation."""
        self._changed = threading.Condition()
        self._messages: deque[Any] = deque()
        self._closed = False
        self._invocation: str | None = None
        self._uses = 0

    def send(self, message: Any) -> None:
        """Queue a message that belongs to no invocation; never waits."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def open(self, invocation: str) -> None:
        """Let messages of `invocation` pass from now on."""
        with self._changed:
            self._invocation = invocation

    def send_for(self, invocation: str, message: Any) -> None:
        """Queue a message of the open invocation; waits while the queue is full."""
        while True:
            with shielded(), self._changed:
                self._check_open(invocation)
                if len(self._messages) < _MESSAGES_MAX:
                    self._messages.append(message)
                    self._changed.notify_all()
                    return
                # Briefly, because a Cancel has to wait as long.
                self._changed.wait(_SHIELDED_WAIT_S)

    def send_heartbeat(self, invocation: str, message: Callable[[int], Any]) -> None:
        """Queue what `message` makes of how often the server was used, unless that run has ended.

        Never waits; the server asks for one at a time, so the queue stays bounded.
        """
        with self._changed:
            if invocation == self._invocation and not self._closed:
                self._messages.append(message(self._uses))
                self._changed.notify_all()

    def check_open(self, invocation: str) -> None:
        """Raise unless `invocation` is the one that runs."""
        with shielded(), self._changed:
            self._check_open(invocation)

    def _check_open(self, invocation: str) -> None:
        if invocation != self._invocation:
            raise RunEndedError(
                "this run of the plugin has ended and its influxdb3_local with it; "
                "a thread that outlives the run cannot use it"
            )
        if self._closed:
            raise ServerGoneError("the connection to the server is closed")
        self._uses += 1

    def complete(self, message: Any) -> None:
        """Close the open invocation with its last message, in one step."""
        with self._changed:
            self._invocation = None
            self._messages.append(message)
            self._changed.notify_all()

    def close(self) -> None:
        """Send what is queued and nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        """Return itself; grpc is the only reader."""
        return self

    def __next__(self) -> Any:
        """Return the next message, waiting for it."""
        with self._changed:
            while not self._messages:
                if self._closed:
                    raise StopIteration
                self._changed.wait()
            message = self._messages.popleft()
            self._changed.notify_all()
            return message
