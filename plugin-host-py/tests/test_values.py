"""Does every Arrow type have a sensible Python value?"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pickle
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from outrigger_plugin_host import _values
from outrigger_plugin_host._errors import QueryError
from outrigger_plugin_host._tables import TableBatch

DAY = dt.date(2026, 1, 2)
LISTS = [[1, None], None, []]
CASES: list[tuple[pa.DataType, list[Any], list[Any]]] = [
    *[(kind, [1, None, 3], [1, None, 3]) for kind in _values._FORMATS],  # noqa: SLF001
    (pa.uint64(), [2**64 - 1], [2**64 - 1]),
    (pa.float16(), [np.float16(1.5), None], [1.5, None]),
    (pa.bool_(), [True, None, False], [True, None, False]),
    (pa.null(), [None, None], [None, None]),
    (pa.string(), ["a", None, "é", ""], ["a", None, "é", ""]),
    (pa.large_string(), ["a", None, "b"], ["a", None, "b"]),
    (pa.string_view(), ["a", None, "long enough to be out of line"], []),
    (pa.dictionary(pa.int32(), pa.string()), ["a", None, "a"], ["a", None, "a"]),
    (pa.timestamp("ns"), [5, None], [5, None]),
    (pa.timestamp("us", tz="Europe/Paris"), [5], [5_000]),
    (pa.timestamp("ms"), [5], [5_000_000]),
    (pa.timestamp("s"), [5, None], [5_000_000_000, None]),
    (pa.time32("s"), [5], [5_000_000_000]),
    (pa.time64("us"), [5], [5_000]),
    (pa.duration("ms"), [5], [5_000_000]),
    (pa.date32(), [DAY, None], [DAY, None]),
    (pa.date64(), [DAY], [DAY]),
    (pa.decimal128(5, 2), [decimal.Decimal("1.25"), None], [decimal.Decimal("1.25"), None]),
    (pa.binary(), [b"a", None], [b"a", None]),
    (pa.large_binary(), [b"a"], [b"a"]),
    (pa.binary(2), [b"ab"], [b"ab"]),
    (pa.list_(pa.int64()), LISTS, LISTS),
    (pa.large_list(pa.int64()), LISTS, LISTS),
    (pa.list_view(pa.int64()), LISTS, LISTS),
    (pa.list_(pa.int64(), 2), [[1, 2], None], [[1, 2], None]),
    (pa.list_(pa.timestamp("s")), [[1]], [[1_000_000_000]]),
    (pa.struct([("a", pa.timestamp("s"))]), [{"a": 1}, None], [{"a": 1_000_000_000}, None]),
    (pa.map_(pa.string(), pa.int8()), [[("k", 1)], None], [{"k": 1}, None]),
    (pa.month_day_nano_interval(), [(1, 2, 3)], [pa.MonthDayNano([1, 2, 3])]),
]


@pytest.mark.parametrize(("kind", "values", "expected"), CASES, ids=str)
def test_a_column_is_converted(kind: pa.DataType, values: list[Any], expected: list[Any]) -> None:
    expected = expected or values
    array = pa.array(values, kind)
    converted = _values.column_values(array)
    assert converted == expected
    assert list(map(type, converted)) == list(map(type, expected)) or kind in _values._FORMATS  # noqa: SLF001
    # Sliced arrays share buffers with their parent.
    assert _values.column_values(pa.concat_arrays([array, array])[1:-1]) == (expected * 2)[1:-1]
    assert _values.column_values(array[:0]) == []


def test_a_run_end_encoded_column_is_converted() -> None:
    import pyarrow.compute as pc  # noqa: PLC0415

    encoded = pc.run_end_encode(pa.array([1, 1, None, 2]))
    assert _values.column_values(encoded) == [1, 1, None, 2]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("x", "text", "x"),
        (True, "boolean", True),
        (1, "int", 1),
        (2**63, "uint", 2**63),
        (1.5, "float", 1.5),
        (None, "null", True),
        (np.int64(3), "int", 3),
        (np.bool_(True), "boolean", True),  # noqa: FBT003
        (np.float32(0.5), "float", 0.5),
        (np.str_("s"), "text", "s"),
    ],
)
def test_a_parameter_is_converted(value: Any, kind: str, expected: Any) -> None:
    converted = _values.query_parameters({"p": value})["p"]
    assert converted.WhichOneof("kind") == kind
    assert getattr(converted, kind) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        [b"x"],
        {"a": b"x"},
        {1: 2},
        {"x"},
        decimal.Decimal(1),
        np.datetime64(1, "ns"),
        np.ones(1),
    ],
)
def test_other_parameters_are_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match="query parameter 'p'"):
        _values.query_parameters({"p": value})
    with pytest.raises(ValueError, match="query parameter 'p'"):
        _values.query_parameters({"p": 2**64})


def test_lists_and_dicts_are_converted() -> None:
    value = [1, ("a", None), {"k": [True], "empty": {}}, []]
    items = _values.query_parameters({"p": value})["p"].list.items
    assert [item.WhichOneof("kind") for item in items] == ["int", "list", "map", "list"]
    assert (items[0].int, items[1].list.items[0].text) == (1, "a")
    assert items[1].list.items[1].null
    assert items[2].map.members["k"].list.items[0].boolean
    assert items[2].map.members["empty"].WhichOneof("kind") == "map"


def test_nesting_has_an_end() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    depth = _values.PARAMETER_DEPTH_MAX
    _values.query_parameters({"p": nested(depth)})
    with pytest.raises(ValueError, match="query parameter 'p' is nested more than 16 levels"):
        _values.query_parameters({"p": nested(depth + 1)})
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    with pytest.raises(ValueError, match="query parameter 'p' is nested more than 16 levels"):
        _values.query_parameters({"p": cyclic})


@pytest.mark.parametrize("args", ["x", ["x"], 5])
def test_parameters_without_names_are_refused(args: Any) -> None:
    kind = type(args).__name__
    with pytest.raises(TypeError, match=f"the args of a query must be a dict, not {kind}"):
        _values.query_parameters(args)


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_value_that_python_does_not_know_names_its_column(kind: pa.DataType) -> None:
    days = 10_000_000
    raw = pa.array([days], pa.int32())
    if kind == pa.date64():
        raw = pa.array([days * 86_400_000], pa.int64())
    table = pa.table({"fine": [1], "far": raw.view(kind)})
    with pytest.raises(QueryError, match="column 'far' has a value of type date"):
        _values.rows_with_nulls(table)


def batch(table: pa.Table | None = None) -> tuple[TableBatch, list[int]]:
    fetched: list[int] = []
    found = (
        pa.table({"t": ["a", None], "x": [None, 1.5], "time": [1, 2]}) if table is None else table
    )

    def fetch() -> pa.Table:
        fetched.append(1)
        return found

    return TableBatch("m", found.num_rows, fetch), fetched


def keywords(**found: Any) -> dict[str, Any]:
    return found


ROWS = [{"t": "a", "time": 1}, {"x": 1.5, "time": 2}]
PLAIN = {"table_name": "m", "rows": ROWS}


@pytest.mark.parametrize(
    "access",
    [
        lambda b: {"table_name": "m", "rows": b["rows"]},
        lambda b: {"table_name": "m", "rows": b.get("rows", [])},
        lambda b: json.loads(json.dumps(b)),
        dict,
        lambda b: {**b},
        lambda b: dict(b.items()),
        lambda b: dict(zip(b, b.values(), strict=True)),
        lambda b: b.copy(),
        lambda b: b | {},
        lambda b: {} | b,
        lambda b: pickle.loads(pickle.dumps(b)),  # noqa: S301
        lambda b: eval(repr(b)),  # noqa: S307
        lambda b: keywords(**b),
        lambda b: {"table_name": "m", "rows": b.pop("rows")},
        lambda b: PLAIN if b == PLAIN and PLAIN == b else None,  # noqa: SIM300
    ],
)
def test_every_access_sees_the_rows(access: Any) -> None:
    lazy, fetched = batch()
    seen = access(lazy)
    assert seen == PLAIN
    assert type(seen["rows"]) is list
    assert fetched == [1]


def test_looking_at_the_keys_fetches_nothing() -> None:
    lazy, fetched = batch()
    assert list(lazy) == ["table_name", "rows"] == list(lazy.keys())
    assert "rows" in lazy
    assert lazy["table_name"] == "m"
    assert (len(lazy), lazy.row_count) == (2, 2)
    lazy["rows"] = []
    assert lazy["rows"] == []
    assert isinstance(lazy, dict)
    assert fetched == []
    assert lazy.to_arrow().num_rows == 2
    assert list(lazy.to_pandas()["time"]) == [1, 2]


def test_rows_are_mutable_and_stay_so() -> None:
    lazy, fetched = batch()
    lazy["rows"][0]["new"] = 1
    lazy["rows"].append({})
    assert lazy["rows"] == [{"t": "a", "time": 1, "new": 1}, {"x": 1.5, "time": 2}, {}]
    assert fetched == [1]


def test_fifty_thousand_rows_are_built_quickly() -> None:
    count = 50_000
    table = pa.table(
        {
            "host": pa.array([f"h{i % 100}" for i in range(count)]).dictionary_encode(),
            "a": pa.array(range(count), pa.int64()),
            "b": pa.array([i * 0.5 for i in range(count)]),
            "c": pa.array(["text"] * count),
            "time": pa.array(range(count), pa.timestamp("ns")),
        }
    )
    start = time.perf_counter()
    rows = _values.rows_without_nulls(table)
    elapsed = time.perf_counter() - start
    print(f"{count} rows in {elapsed * 1000:.0f} ms")  # noqa: T201
    assert rows[7] == {"host": "h7", "a": 7, "b": 3.5, "c": "text", "time": 7}
    # Usually a third of this; the margin is for busy machines.
    assert elapsed < 0.5
