"""How are the bytes of a value of the global cache put together, and taken apart again?

Only the primitives; what a value looks like is said in `_shared_values`.
"""

from __future__ import annotations

import struct
from typing import Any

VALUE_BYTES_MAX = 8 * 1024 * 1024
"""The largest value, encoded; the server's limit."""


class CorruptValueError(Exception):
    """Bytes that are not an encoded value."""


class ByteWriter:
    """Collects bytes up to the limit."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._parts: list[bytes] = []
        self._size = 0

    def finish(self) -> bytes:
        """Return all that was written."""
        return b"".join(self._parts)

    def put(self, data: bytes) -> None:
        """Append bytes."""
        self.claim(len(data))
        self._size += len(data)
        self._parts.append(data)

    def sized(self, data: bytes) -> None:
        """Append a length, and bytes of that length."""
        self.claim(len(data))
        self.put(struct.pack("<I", len(data)))
        self.put(data)

    def text(self, text: str) -> None:
        """Append a str."""
        self.sized(text.encode("utf-8", "surrogatepass"))

    def claim(self, size: int) -> None:
        """Raise unless so many bytes more would fit."""
        if self._size + size > VALUE_BYTES_MAX:
            raise ValueError(
                f"the value is too large for the global cache: "
                f"it has more than {VALUE_BYTES_MAX} bytes when encoded"
            )


class ByteReader:
    """Takes bytes that nobody vouches for."""

    def __init__(self, data: bytes) -> None:
        """Read from the beginning of `data`."""
        if len(data) > VALUE_BYTES_MAX:
            raise CorruptValueError(f"it has more than {VALUE_BYTES_MAX} bytes")
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes there are still."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > self.left:
            raise CorruptValueError("it ends too early")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """Return numbers."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def sized(self) -> bytes:
        """Return bytes that their length precedes."""
        return self.take(self.unpack("<I")[0])

    def text(self) -> str:
        """Return a str."""
        return self.sized().decode("utf-8", "surrogatepass")
