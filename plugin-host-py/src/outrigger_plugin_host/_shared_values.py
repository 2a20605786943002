"""How do the values of the global cache become bytes, and values again?

An encoding of our own, described in docs/protocol.md: a version byte, then one value; a value is a
tag byte and what the tag says. It holds plain data only, of exactly the types listed here, so what
comes out equals what went in. The bytes may come from another trigger's worker, which nobody
trusts: reading them runs no code that they choose, and takes memory in proportion to their length.
"""

from __future__ import annotations

import decimal
import struct
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _shared_arrays, _shared_times
from outrigger_plugin_host._shared_bytes import ByteReader, ByteWriter, CorruptValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEPTH_MAX = 64
"""How deep containers may be nested."""
SAME_HASH_MAX = 1000
"""How many members of one dict or set may share a hash: with more, it becomes too slow to build."""
VERSION = 1
_SHORT_INT_MAX = 10**18

_SUPPORTED = (
    "None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, "
    "timedelta, Decimal, UUID, numpy arrays and scalars, pyarrow.Table and pyarrow.RecordBatch"
)


def encode(value: Any) -> bytes:
    """Return the bytes of a value; TypeError or ValueError say why it cannot be kept."""
    writer = Writer()
    writer.put(bytes([VERSION]))
    writer.value(value)
    return writer.finish()


def decode(data: bytes) -> Any:
    """Return the value of these bytes, or raise CorruptValueError."""
    try:
        return _whole(Reader(data))
    except CorruptValueError:
        raise
    except ImportError as error:
        raise CorruptValueError(f"it needs a module that is not installed: {error}") from None
    except Exception as error:
        # Constructors refuse nonsense in many ways.
        raise CorruptValueError(f"{type(error).__name__}: {error}") from error


def _whole(reader: Reader) -> Any:
    version = reader.take(1)[0]
    if version != VERSION:
        raise CorruptValueError(f"it has the unknown version {version}")
    value = reader.value()
    if reader.left:
        raise CorruptValueError("it goes on behind its end")
    return value


class Writer(ByteWriter):
    """Encodes a value, and knows where in it the current one is."""

    def __init__(self) -> None:
        """Start at the outermost value."""
        super().__init__()
        self._path: list[str] = []

    def value(self, value: Any) -> None:
        """Append a value."""
        encode = _ENCODERS.get(type(value)) or _shared_arrays.encoder(value)
        if encode is None:
            raise self.refusal(value, f"only these types can be shared: {_SUPPORTED}")
        encode(self, value)

    def member(self, step: str, value: Any) -> None:
        """Append a value that lies in the current one, at `step`."""
        if len(self._path) >= DEPTH_MAX:
            raise ValueError(
                f"the global cache cannot hold a value that is nested deeper than {DEPTH_MAX} "
                f"levels, or that contains itself"
            )
        self._path.append(step)
        self.value(value)
        self._path.pop()

    def refusal(self, value: Any, why: str) -> TypeError:
        """Describe a value that cannot be kept: its type, where it is, and why."""
        where = "value" + "".join(self._path)
        return TypeError(f"the global cache cannot hold {where} of type {type_name(value)}: {why}")


class Reader(ByteReader):
    """Decodes values."""

    def __init__(self, data: bytes) -> None:
        """Start at the outermost value."""
        super().__init__(data)
        self._depth = 0

    def value(self) -> Any:
        """Return the next value."""
        tag = self.take(1)
        decode = _DECODERS.get(tag)
        if decode is None:
            raise CorruptValueError(f"it has the unknown tag {tag!r}")
        return decode(self)

    def members(self, members_each: int = 1) -> list[Any]:
        """Return the values of one container, which their number precedes."""
        count = self.unpack("<I")[0] * members_each
        if count > self.left:
            raise CorruptValueError("it says that it has more members than bytes")
        if self._depth >= DEPTH_MAX:
            raise CorruptValueError(f"it is nested deeper than {DEPTH_MAX} levels")
        self._depth += 1
        values = [self.value() for _ in range(count)]
        self._depth -= 1
        return values


def type_name(value: Any) -> str:
    """Return the type's name, with its module unless it is built in."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _same_hash(members: Iterable[Any]) -> str | None:
    """Return what is wrong with so many members in one dict or set."""
    hashes = Counter(map(hash, members))
    if hashes and max(hashes.values()) > SAME_HASH_MAX:
        return f"more than {SAME_HASH_MAX} members of one dict or set have the same hash"
    return None


def _check_hashes(members: Iterable[Any]) -> None:
    if wrong := _same_hash(members):
        raise ValueError(f"the global cache cannot hold the value: {wrong}")


def _constant(tag: bytes) -> Callable[[Writer, Any], None]:
    return lambda writer, _value: writer.put(tag)


def _encode_bool(writer: Writer, value: Any) -> None:
    writer.put(b"T" if value else b"F")


def _encode_int(writer: Writer, value: int) -> None:
    if -(2**63) <= value < 2**63:
        writer.put(b"i" + struct.pack("<q", value))
        return
    size = value.bit_length() // 8 + 1
    writer.claim(size)
    writer.put(b"I")
    writer.sized(value.to_bytes(size, "little", signed=True))


def _encode_float(writer: Writer, value: float) -> None:
    writer.put(b"f" + struct.pack("<d", value))


def _encode_text(tag: bytes) -> Callable[[Writer, Any], None]:
    def encode_text(writer: Writer, value: Any) -> None:
        writer.put(tag)
        writer.text(str(value))

    return encode_text


def _encode_bytes(writer: Writer, value: bytes) -> None:
    writer.put(b"b")
    writer.sized(value)


def _encode_sequence(tag: bytes) -> Callable[[Writer, Any], None]:
    def encode_sequence(writer: Writer, value: Any) -> None:
        # A copy, because another thread may change the original meanwhile.
        members = list(value)
        writer.put(tag + struct.pack("<I", len(members)))
        for index, member in enumerate(members):
            writer.member(f"[{index}]", member)

    return encode_sequence


def _encode_set(tag: bytes) -> Callable[[Writer, Any], None]:
    def encode_set(writer: Writer, value: Any) -> None:
        members = list(value)
        _check_hashes(members)
        writer.put(tag + struct.pack("<I", len(members)))
        for member in members:
            writer.member("{…}", member)

    return encode_set


def _encode_dict(writer: Writer, value: dict[Any, Any]) -> None:
    items = list(value.items())
    _check_hashes(key for key, _ in items)
    writer.put(b"d" + struct.pack("<I", len(items)))
    for key, member in items:
        writer.member(".keys()", key)
        writer.member(f"[{_short(key)}]", member)


def _short(key: Any) -> str:
    """Return what names a dict's key in an error; keys may be long."""
    if isinstance(key, (str, bytes)):
        return repr(key[:40])
    is_short = isinstance(key, float) or (isinstance(key, int) and abs(key) < _SHORT_INT_MAX)
    return repr(key) if is_short else f"a {type(key).__name__}"


def _encode_uuid(writer: Writer, value: uuid.UUID) -> None:
    writer.put(b"u" + value.bytes)


_ENCODERS: dict[type, Callable[[Writer, Any], None]] = {
    type(None): _constant(b"N"),
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    str: _encode_text(b"s"),
    bytes: _encode_bytes,
    list: _encode_sequence(b"l"),
    tuple: _encode_sequence(b"("),
    set: _encode_set(b"e"),
    frozenset: _encode_set(b"E"),
    dict: _encode_dict,
    decimal.Decimal: _encode_text(b"c"),
    uuid.UUID: _encode_uuid,
    **_shared_times.ENCODERS,
}


def _decode_int(reader: Reader) -> int:
    return int.from_bytes(reader.sized(), "little", signed=True)


def _decode_unique(reader: Reader) -> list[Any]:
    members = reader.members()
    if wrong := _same_hash(members):
        raise CorruptValueError(wrong)
    return members


def _decode_dict(reader: Reader) -> dict[Any, Any]:
    flat = reader.members(2)
    if wrong := _same_hash(flat[::2]):
        raise CorruptValueError(wrong)
    return dict(zip(flat[::2], flat[1::2], strict=True))


_DECODERS: dict[bytes, Callable[[Reader], Any]] = {
    b"N": lambda _: None,
    b"T": lambda _: True,
    b"F": lambda _: False,
    b"i": lambda reader: reader.unpack("<q")[0],
    b"I": _decode_int,
    b"f": lambda reader: reader.unpack("<d")[0],
    b"s": Reader.text,
    b"b": Reader.sized,
    b"l": Reader.members,
    b"(": lambda reader: tuple(reader.members()),
    b"e": lambda reader: set(_decode_unique(reader)),
    b"E": lambda reader: frozenset(_decode_unique(reader)),
    b"d": _decode_dict,
    b"c": lambda reader: decimal.Decimal(reader.text()),
    b"u": lambda reader: uuid.UUID(bytes=reader.take(16)),
    **_shared_times.DECODERS,
    **_shared_arrays.DECODERS,
}
