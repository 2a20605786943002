"""Does an Arrow IPC message hold compressed buffers?

pyarrow does not say so before it has unpacked them, and it trusts the length that they claim to
have. So this reads the one field of the message's flatbuffer that tells. The numbers of fields and
kinds are those of Arrow's format/Message.fbs, which never change.
"""

from __future__ import annotations

import struct

_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 1, 2
_HEADER_DICTIONARY, _HEADER_RECORDS = 2, 3
_DICTIONARY_DATA = 1
_RECORDS_COMPRESSION = 3


def is_compressed(metadata: bytes) -> bool:
    """Return whether the message whose metadata this is has compressed buffers.

    Raises `struct.error` if it is no message.
    """
    (message,) = struct.unpack_from("<I", metadata, 0)
    kind = _field(metadata, message, _MESSAGE_HEADER_TYPE)
    header = _field(metadata, message, _MESSAGE_HEADER)
    if kind is None or header is None:
        return False
    records: int | None = _follow(metadata, header)
    if metadata[kind] == _HEADER_DICTIONARY:
        data = _field(metadata, _follow(metadata, header), _DICTIONARY_DATA)
        records = None if data is None else _follow(metadata, data)
    elif metadata[kind] != _HEADER_RECORDS:
        return False
    return records is not None and _field(metadata, records, _RECORDS_COMPRESSION) is not None


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Return where a field of the flatbuffer table lies; None if it is absent."""
    (back,) = _read("<i", buffer, table)
    vtable = table - back
    (size,) = _read("<H", buffer, vtable)
    slot = 4 + 2 * number
    if slot + 2 > size:
        return None
    (offset,) = _read("<H", buffer, vtable + slot)
    return table + offset if offset else None


def _follow(buffer: bytes, at: int) -> int:
    (offset,) = _read("<I", buffer, at)
    return int(at + offset)


def _read(layout: str, buffer: bytes, at: int) -> tuple[int, ...]:
    if at < 0:
        raise struct.error("an offset leads out of the message")
    return struct.unpack_from(layout, buffer, at)
