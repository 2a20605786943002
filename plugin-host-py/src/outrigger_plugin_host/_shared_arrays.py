"""How do numpy and Arrow values travel through the global cache?

numpy arrays as their type, shape and bytes; Arrow tables as an Arrow IPC stream. A hostile stream
could name an extension type (whose reader is code), a compressed buffer (which says itself how
large it wants to become), or columns that need no bytes for a row. All three are refused.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host._arrow_messages import is_compressed
from outrigger_plugin_host._shared_bytes import VALUE_BYTES_MAX, CorruptValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outrigger_plugin_host._shared_bytes import ByteReader
    from outrigger_plugin_host._shared_values import Writer

    _Encode = Callable[[Writer, Any], None]

_DTYPE = re.compile(r"[<>|=]([biufcSU])([0-9]{1,9})|[<>|=]([mM])8(\[[0-9]*[A-Za-zμ]+\])?")
_DIMENSIONS_MAX = 32
_CODE_POINT_MAX = 0x10FFFF
_EXTENSION = b"ARROW:extension"
_ROWS_PER_BYTE_MAX = 8
"""A column of booleans has so many; honest tables have fewer."""


def encoder(value: Any) -> _Encode | None:
    """Return what encodes the value; it is of none of our types unless its library is loaded."""
    kind = type(value)
    np, pa = sys.modules.get("numpy"), sys.modules.get("pyarrow")
    if np is not None and (kind is np.ndarray or isinstance(value, np.generic)):
        special: dict[Any, _Encode] = {
            np.ndarray: _encode_array,
            np.str_: _encode_numpy_text,
            np.bytes_: _encode_numpy_bytes,
        }
        encode: _Encode = special.get(kind, _encode_scalar)
        return encode
    if pa is not None and kind in (pa.Table, pa.RecordBatch):
        return _encode_table
    if pa is not None and isinstance(value, (pa.Array, pa.ChunkedArray)):
        return _refuse("put it into a pyarrow.Table")
    if kind.__module__.split(".")[0] == "pandas":
        return _refuse("put pyarrow.Table.from_pandas(...) instead, or plain values")
    return None


def _refuse(why: str) -> _Encode:
    def refuse(writer: Writer, value: Any) -> None:
        raise writer.refusal(value, why)

    return refuse


def _encode_numpy_text(writer: Writer, value: Any) -> None:
    writer.put(b"x")
    writer.text(str(value))


def _encode_numpy_bytes(writer: Writer, value: Any) -> None:
    writer.put(b"X")
    writer.sized(bytes(value))


def _encode_scalar(writer: Writer, value: Any) -> None:
    _check_dtype(writer, value)
    writer.put(b"g")
    writer.text(value.dtype.str)
    writer.sized(value.tobytes())


def _encode_array(writer: Writer, value: Any) -> None:
    _check_dtype(writer, value)
    if not _is_shape(value.shape):
        raise writer.refusal(value, f"its shape {value.shape} is too large")
    writer.claim(value.nbytes)
    writer.put(b"n")
    writer.text(value.dtype.str)
    # numpy itself prefers C where an array is both.
    is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    writer.put(struct.pack("<BB", is_fortran, value.ndim))
    writer.put(struct.pack(f"<{value.ndim}q", *value.shape))
    writer.sized(value.tobytes("F" if is_fortran else "C"))


def _check_dtype(writer: Writer, value: Any) -> None:
    if not _DTYPE.fullmatch(value.dtype.str):
        why = "its dtype must be boolean, numeric, text, bytes, datetime64 or timedelta64"
        raise writer.refusal(value, f"{why}, not {value.dtype}")


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Return whether loops over the array end: an array of no bytes may have endless rows."""
    rows = math.prod(max(length, 1) for length in shape)
    return min(shape, default=0) >= 0 and rows <= VALUE_BYTES_MAX


def _encode_table(writer: Writer, value: Any) -> None:
    import pyarrow as pa  # noqa: PLC0415 - loaded, since there is a value of it

    if problem := _problem(value.schema, pa):
        raise writer.refusal(value, problem)
    writer.claim(value.nbytes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, value.schema) as stream:
        stream.write(value)
    data = sink.getvalue()
    if value.num_rows > _ROWS_PER_BYTE_MAX * data.size:
        raise writer.refusal(value, f"it has {value.num_rows} rows without data")
    writer.claim(data.size)
    writer.put(b"W" if isinstance(value, pa.Table) else b"w")
    writer.sized(data.to_pybytes())


def _problem(schema: Any, pa: Any) -> str | None:
    """Return why tables of this schema cannot be shared."""
    for field in schema:
        if not _is_plain(field.type, pa.types):
            return f"its column {field.name!r} has the type {field.type}"
    if _EXTENSION in schema.serialize().to_pybytes():
        return "it has extension types"
    return None


def _is_plain(kind: Any, types: Any) -> bool:
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type, types)
    if types.is_struct(kind) or types.is_list(kind) or types.is_large_list(kind):
        children = [kind.field(index).type for index in range(kind.num_fields)]
        return all(_is_plain(child, types) and not types.is_null(child) for child in children)
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_null,
            types.is_boolean,
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_temporal,
            types.is_string,
            types.is_large_string,
            types.is_binary,
            types.is_large_binary,
            types.is_fixed_size_binary,
        )
    )


def _decode_numpy_text(reader: ByteReader) -> Any:
    import numpy as np  # noqa: PLC0415 - only for those who share such values

    return np.str_(reader.text())


def _decode_numpy_bytes(reader: ByteReader) -> Any:
    import numpy as np  # noqa: PLC0415

    return np.bytes_(reader.sized())


def _decode_scalar(reader: ByteReader) -> Any:
    array = _array(reader.text(), (), reader.sized())
    return array[()]


def _decode_array(reader: ByteReader) -> Any:
    dtype = reader.text()
    is_fortran, dimensions = reader.unpack("<BB")
    if dimensions > _DIMENSIONS_MAX:
        raise CorruptValueError("it has an array of too many dimensions")
    shape = reader.unpack(f"<{dimensions}q")
    if not _is_shape(shape):
        raise CorruptValueError("it has an array of an impossible shape")
    # The bytes cannot be written to, and what was put could: a copy.
    if is_fortran:
        return _array(dtype, shape[::-1], reader.sized()).copy().T
    return _array(dtype, shape, reader.sized()).copy()


def _array(dtype_text: str, shape: tuple[int, ...], data: bytes) -> Any:
    import numpy as np  # noqa: PLC0415

    if not _DTYPE.fullmatch(dtype_text):
        raise CorruptValueError("it has an array of an unknown dtype")
    dtype = np.dtype(dtype_text)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise CorruptValueError("it has an array whose bytes do not fit its shape")
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise CorruptValueError("it has a boolean that is neither true nor false")
    if dtype.kind == "U" and data:
        points = np.frombuffer(data, dtype=np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if points.max() > _CODE_POINT_MAX:
            raise CorruptValueError("it has an array of impossible characters")
    return np.ndarray(shape, dtype, data)


def _decode_table(reader: ByteReader) -> Any:
    return _read_table(reader.sized())


def _decode_batch(reader: ByteReader) -> Any:
    batches = _read_table(reader.sized()).to_batches()
    if len(batches) != 1:
        raise CorruptValueError("it has a record batch that is not one")
    return batches[0]


def _read_table(data: bytes) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    # Arrow itself must not see what is refused here.
    for message in pa.ipc.MessageReader.open_stream(data):
        metadata = message.metadata.to_pybytes()
        if _EXTENSION in metadata:
            raise CorruptValueError("it has a table with extension types")
        if is_compressed(metadata):
            raise CorruptValueError("it has a compressed table")
    with pa.ipc.open_stream(data) as stream:
        # Names that are no text fail in here, and not when the plugin looks at them.
        str(stream.schema)
        if problem := _problem(stream.schema, pa):
            raise CorruptValueError(f"it has a table that cannot be shared: {problem}")
        table = stream.read_all()
    if table.num_rows > _ROWS_PER_BYTE_MAX * len(data):
        raise CorruptValueError("it has a table of more rows than it can hold")
    table.validate(full=True)
    return table


DECODERS: dict[bytes, Callable[[ByteReader], Any]] = {
    b"x": _decode_numpy_text,
    b"X": _decode_numpy_bytes,
    b"g": _decode_scalar,
    b"n": _decode_array,
    b"W": _decode_table,
    b"w": _decode_batch,
}
