"""How do messages travel between the host and the server?

Each one is preceded by its length in four bytes, big endian.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from outrigger_plugin_host._errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME_BYTES_MAX = 1 << 20
_LENGTH = struct.Struct(">I")


def encode(payload: bytes) -> bytes:
    """Return `payload` as one frame."""
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was received and yield the payloads that are complete now."""
        self._pending += data
        while len(self._pending) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending)
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}")
            end = _LENGTH.size + length
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[_LENGTH.size : end])
            del self._pending[:end]
            yield payload
