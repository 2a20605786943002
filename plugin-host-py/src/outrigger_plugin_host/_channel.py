"""How does a spare learn whose worker it becomes?

A spare is a forked process with one thread. Its channel is one end of a socket pair; the server
holds the other. It says that it waits, is assigned once, answers, and closes the channel before
any of the plugin's code runs.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _frames
from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_READ_BYTES_MAX = 64 * 1024
_SOON_S = 0.05
"""Somebody waits for a worker that was forked for its trigger: that one is assigned at once."""


class Channel:
    """A spare's end of its channel."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor."""
        self._socket = socket.socket(fileno=descriptor)
        self._frames = _frames.FrameReader()

    def wait(self, pid: int, meanwhile: Callable[[], None]) -> Any:
        """Say that process `pid` waits; return the Assign that comes, None if none ever will.

        If none comes soon, do `meanwhile` what makes the time after it shorter.
        """
        try:
            self._send(waiting=pb.Waiting(pid=pid))
            if not select.select([self._socket], [], [], _SOON_S)[0]:
                meanwhile()
            return self._assign()
        except ConnectionError:
            return None

    def _assign(self) -> Any:
        while received := self._socket.recv(_READ_BYTES_MAX):
            for payload in self._frames.feed(received):
                message = pb.ToSpare.FromString(payload)
                if message.WhichOneof("message") != "assign":
                    raise ProtocolError("a message to a spare that this version does not know")
                return message.assign
        return None

    def confined(self, layers: list[Any], listener: int | None) -> None:
        """Say what the layers of the confinement came to, and pass on the listener's descriptor."""
        self._send(listener, confined=pb.Confined(layers=layers))

    def refused(self, layer: str, reason: str) -> None:
        """Say which layer does not hold that must."""
        self._send(refused=pb.Refused(layer=layer, reason=reason))

    def _send(self, descriptor: int | None = None, **message: Any) -> None:
        frame = _frames.encode(pb.FromSpare(**message).SerializeToString())
        if descriptor is not None:
            # With the first byte, and alone, so that nothing depends on how much is sent at once.
            socket.send_fds(self._socket, [frame[:1]], [descriptor])
            frame = frame[1:]
        self._socket.sendall(frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
