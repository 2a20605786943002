"""Does what was put into the global cache come out again, and does nothing else?"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import enum
import math
import random
import struct
import threading
import tracemalloc
import uuid
import zoneinfo
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from outrigger_plugin_host._shared_bytes import VALUE_BYTES_MAX, CorruptValueError
from outrigger_plugin_host._shared_values import DEPTH_MAX, decode, encode

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
TABLE = pa.table(
    {
        "i": [1, 2, None],
        "tag": pa.array(["x", "y", None]).dictionary_encode(),
        "time": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
        "list": [[1], [], None],
        "struct": [{"q": 1.5}, None, {"q": 2.0}],
        "nothing": pa.nulls(3),
        "flag": [True, False, None],
        "money": pa.array([decimal.Decimal("1.50"), None, None]),
        "bytes": [b"\0", b"", None],
    },
    metadata={"from": "somebody"},
)


def same(one: Any, other: Any) -> bool:  # noqa: PLR0911 - a case per type
    """Tell whether two values are equal and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        keys = same(list(one), list(other))
        return keys and same(list(one.values()), list(other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return sorted(map(text_of, one)) == sorted(map(text_of, other))
    if isinstance(one, np.ndarray):
        return (
            (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.tobytes() == other.tobytes()
            and bool(other.flags.writeable)
        )
    if isinstance(one, (pa.Table, pa.RecordBatch)):
        return bool(one.equals(other, check_metadata=True))
    if isinstance(one, float) and math.isnan(one):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return repr(one) == repr(other)


def text_of(value: Any) -> str:
    """Return a text that tells types and values, whatever order a set happens to have."""
    if isinstance(value, (tuple, set, frozenset)):
        inner = map(text_of, value)
        ordered = inner if isinstance(value, tuple) else sorted(inner)
        return f"{type(value).__name__}({', '.join(ordered)})"
    return repr(value)


def check_round_trip(value: Any) -> None:
    decoded = decode(encode(value))
    assert same(value, decoded), (value, decoded)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 255, 1 << 10_000),
        *(0.0, -0.0, 1e-300, math.inf, -math.inf, math.nan),
        *("", "é\0\U0001f600", "\ud800", b"", b"\xff\0"),
        *([], [1, [2, [None]]], (), (1, ("a",)), {}, {"a": {1: 2, (1, b"x"): 3, None: 4, 1.5: 5}}),
        *(set(), {1, "a", (2,)}, frozenset(), frozenset({frozenset({1}), 2.5})),
        *(dt.date.min, dt.date.max, dt.timedelta.min),
        *(dt.datetime.min, dt.datetime.max),  # noqa: DTZ901 - these, too, are values
        *(dt.timedelta.max, dt.timedelta(microseconds=-1), dt.time.max, dt.time(2, 30, fold=1)),
        dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=7), "X")),
        dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
        *(decimal.Decimal("-1.50"), decimal.Decimal("1E+999999"), decimal.Decimal("sNaN12")),
        *(decimal.Decimal("-Infinity"), uuid.UUID(int=2**128 - 1)),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else None,
)
def test_plain_values_come_back(value: Any) -> None:
    check_round_trip(value)


@pytest.mark.parametrize(
    "value",
    [
        *(np.float64(1.5), np.float32("nan"), np.float16(1), np.longdouble(1.25), np.complex64(1j)),
        *(np.True_, np.int8(-1), np.uint64(2**64 - 1), np.str_("é"), np.str_("")),
        *(np.bytes_(b"a\0"), np.datetime64("2026-01-01"), np.datetime64(7, "ns")),
        *(np.datetime64("NaT"), np.timedelta64(3, ("s", 25))),
        *(np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.arange(24)[::5]),
        *(np.zeros((0, 3)), np.zeros((2, 0)), np.array(5), np.array([True, False])),
        *(np.array(["a", "bcd"]), np.array([b"a", b"bc"]), np.arange(3, dtype=">i4")),
        np.array(["2026-01-01", "NaT"], "M8[us]"),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    ],
    ids=repr,
)
def test_numpy_values_come_back(value: Any) -> None:
    check_round_trip(value)


@pytest.mark.parametrize(
    "value",
    [
        TABLE,
        TABLE.slice(1, 1),
        pa.concat_tables([TABLE, TABLE]),
        TABLE.slice(0, 0),
        pa.table({}),
        TABLE.to_batches()[0],
        TABLE.to_batches()[0].slice(2),
        pa.Table.from_pandas(pd.DataFrame({"a": [1.0, None], "b": ["x", "y"]})),
    ],
    ids=["table", "slice", "chunks", "no rows", "nothing", "batch", "batch slice", "pandas"],
)
def test_arrow_values_come_back(value: Any) -> None:
    check_round_trip(value)
    check_round_trip({"inside": [value]})


hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.decimals().filter(lambda number: not number.is_snan())
    | st.uuids(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(hashable, inner, max_size=5)
        | st.sets(hashable, max_size=5)
    ),
    max_leaves=20,
)


@hypothesis.settings(deadline=None, max_examples=500)
@hypothesis.given(values)
def test_whatever_is_plain_comes_back(value: Any) -> None:
    check_round_trip(value)


class Number(enum.IntEnum):
    ONE = 1


class OddZone(dt.tzinfo):
    def utcoffset(self, _: Any) -> None: ...
    def tzname(self, _: Any) -> None: ...
    def dst(self, _: Any) -> None: ...


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (threading.Lock(), "value", "_thread.lock"),
        ({"a": [1, {2: print}]}, "value['a'][1][2]", "builtin_function_or_method"),
        ({"deep": {"k" * 99: [0, {object}]}}, f"value['deep']['{'k' * 40}'][1]{{…}}", "type"),
        ({object(): 1}, "value.keys()", "object"),
        ((1, collections.OrderedDict()), "value[1]", "collections.OrderedDict"),
        (bytearray(b"x"), "value", "bytearray"),
        (pd.DataFrame({"a": [1]}), "value", "pandas.DataFrame"),
        (np.array([1, None]), "value", "numpy.ndarray"),
        (np.zeros(2, "i4,f4"), "value", "numpy.ndarray"),
        (np.ma.array([1]), "value", "numpy.ma.MaskedArray"),
        (np.zeros((2**40, 0)), "value", "numpy.ndarray"),
        (pa.array([1]), "value", "pyarrow.lib.Int64Array"),
        (pa.table({"a": pa.nulls(10**8)}), "value", "pyarrow.lib.Table"),
        (dt.datetime(2026, 1, 1, tzinfo=OddZone()), "value", "datetime.datetime"),
    ],
    ids=repr,
)
def test_other_types_are_refused_by_name_and_place(value: Any, where: str, kind: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode(value)
    said = str(caught.value)
    # pandas and numpy move their classes about.
    name = kind.rsplit(".", 1)[-1]
    assert said.startswith(f"the global cache cannot hold {where} of type "), said
    assert f"{name}: " in said


def test_subclasses_are_refused_because_their_type_would_be_lost() -> None:
    with pytest.raises(TypeError, match=r"of type .*Number: only these types can be shared: None"):
        encode(Number.ONE)


def test_what_is_too_large_too_deep_or_circular_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    doubled: list[Any] = [1]
    for _ in range(40):
        doubled = [doubled, doubled]
    colliding = {factor * (2**61 - 1) for factor in range(1, 1500)}
    deep: Any = 1
    for _ in range(DEPTH_MAX):
        deep = [deep]
    check_round_trip(deep)
    for value, part in [
        (circle, "nested deeper than 64 levels, or that contains itself"),
        ([deep], "nested deeper"),
        (doubled, "too large"),
        ("x" * VALUE_BYTES_MAX, "too large"),
        (1 << (8 * VALUE_BYTES_MAX), "too large"),
        (np.zeros(VALUE_BYTES_MAX), "too large"),
        (pa.table({"a": np.zeros(VALUE_BYTES_MAX // 8 + 1)}), "too large"),
        (colliding, "have the same hash"),
        (dict.fromkeys(colliding), "have the same hash"),
    ]:
        with pytest.raises(ValueError, match=part):
            encode(value)


def test_an_arrow_type_that_reads_itself_is_refused() -> None:
    with pytest.raises(TypeError, match=r"its column 'u' has the type extension"):
        encode(
            pa.table(
                {
                    "u": pa.ExtensionArray.from_storage(
                        pa.uuid(), pa.array([b"x" * 16], pa.binary(16))
                    )
                }
            )
        )


def sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def array(dtype: str, shape: tuple[int, ...], data: bytes, order: int = 0) -> bytes:
    header = b"\1n" + sized(dtype.encode()) + bytes([order, len(shape)])
    return header + struct.pack(f"<{len(shape)}q", *shape) + sized(data)


def stream(table: pa.Table, schema: pa.Schema | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    wanted = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, schema or table.schema, options=wanted) as writer:
        writer.write(table)
    return b"\1W" + sized(sink.getvalue().to_pybytes())


def disguised_extension() -> bytes:
    field = pa.field("p", pa.binary(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    schema = pa.schema([field])
    return stream(pa.table({"p": [b"x"]}, schema=schema))


MANY = struct.pack("<I", 2**32 - 1)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "ends too early"),
        (b"\2N", "unknown version 2"),
        (b"\1", "ends too early"),
        (b"\1?", "unknown tag"),
        (b"\1NN", "goes on behind its end"),
        (b"\1i\0", "ends too early"),
        (b"\1s" + MANY, "ends too early"),
        (b"\1I" + MANY + b"\1", "ends too early"),
        (b"\1l" + MANY + b"N", "more members than bytes"),
        (b"\1d" + struct.pack("<I", 2) + b"NNN", "more members than bytes"),
        (b"\1" + b"l\1\0\0\0" * 65 + b"N", "nested deeper"),
        (b"\1" + b"(\1\0\0\0" * 100_000 + b"N", "nested deeper"),
        (b"\1s" + sized(b"\xff"), "UnicodeDecodeError"),
        (b"\1c" + sized(b"one"), "InvalidOperation"),
        (b"\1e" + struct.pack("<I", 1) + b"l\0\0\0\0", "TypeError"),
        (b"\1D" + b"\0\0\0\0", "ValueError"),
        (b"\1t" + bytes(8) + b"z" + sized(b"../../etc/passwd"), "impossible name"),
        (b"\1t" + bytes(8) + b"z" + sized(b"/etc/passwd"), "impossible name"),
        (b"\1t" + bytes(8) + b"z" + sized(b"No/Where"), "No time zone found"),
        (b"\1t" + bytes(8) + b"?", "unknown kind of time zone"),
        (array("|O", (1,), bytes(8)), "unknown dtype"),
        (array("O", (1,), bytes(8)), "unknown dtype"),
        (array("|V8", (1,), bytes(8)), "unknown dtype"),
        (array("<i8,|O", (1,), bytes(8)), "unknown dtype"),
        (array("<i4", (2**62,), b""), "impossible shape"),
        (array("<i4", (2**40, 0), b""), "impossible shape"),
        (array("<i4", (-1,), b""), "impossible shape"),
        (array("<i4", (3,), bytes(8)), "do not fit"),
        (array("<U99999999", (1,), bytes(8)), "do not fit"),
        (array("|b1", (1,), b"\2"), "neither true nor false"),
        (array("<U1", (1,), b"\xff\xff\xff\x7f"), "impossible characters"),
        (array("<i1", (1,) * 33, b"\1"), "too many dimensions"),
        (b"\1g" + sized(b"<i8") + sized(b"\1"), "do not fit"),
        (b"\1W" + sized(b"nonsense" * 9), "ArrowInvalid"),
        (stream(TABLE, compression="zstd"), "a compressed table"),
        (stream(TABLE.select(["tag"]), compression="lz4"), "a compressed table"),
        (disguised_extension(), "extension types"),
        (stream(pa.table({"a": pa.nulls(10**8)})), "more rows than it can hold"),
        (stream(pa.table({"a": pa.array([[]], pa.list_(pa.null()))})), "cannot be shared"),
        (stream(pa.table({"a": pa.RunEndEncodedArray.from_arrays([9], [1])})), "cannot be shared"),
        (b"\1w" + stream(TABLE.slice(0, 0))[2:], "not one"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bytes_that_nobody_encoded_are_refused(data: bytes, part: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptValueError) as caught:
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert part in str(caught.value)
    assert peak < 100 * len(data) + 5_000_000


def test_colliding_members_are_refused_before_they_cost_time() -> None:
    members = b"".join(b"I" + sized(((2**61 - 1) * n).to_bytes(16, "little")) for n in range(2000))
    with pytest.raises(CorruptValueError, match="the same hash"):
        decode(b"\1e" + struct.pack("<I", 2000) + members)


def test_damaged_bytes_give_a_value_or_an_error() -> None:
    seed = random.SystemRandom().getrandbits(64)
    print("seed", seed)  # noqa: T201 - shown when it fails
    chance = random.Random(seed)  # noqa: S311 - no secret
    originals = [
        encode({"a": [1, 2.5, "x", b"y", {3}, dt.datetime(2026, 1, 1, tzinfo=BERLIN)]}),
        encode([np.arange(6.0).reshape(2, 3), np.array(["a"]), np.float32(1)]),
        encode(TABLE),
        encode(TABLE.to_batches()[0]),
    ]
    for _ in range(4000):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice([0, 1, 127, 128, 255, data[0]])
        del data[chance.choice([len(data), chance.randrange(1, len(data))]) :]
        try:
            decoded = decode(bytes(data))
        except CorruptValueError:
            continue
        repr(decoded)
        if isinstance(decoded, (pa.Table, pa.RecordBatch)):
            # Absurd times, zones and decimals raise, as in any table; nothing may crash.
            with contextlib.suppress(ValueError, ArithmeticError, LookupError):
                decoded.to_pylist()
