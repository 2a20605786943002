"""Which lines does `LineBuilder` make of arbitrary values, and what must the server read in them?

As a program, `python line_builder_cases.py SEED COUNT` prints one JSON object per case: what was
given, and the line or the error that came of it. As a plugin it writes cases to the server it runs
in and compares what comes back.
"""

from __future__ import annotations

import collections
import json
import math
import random
import struct
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

# What matters to the grammar, and what other parsers take for a space or the end of a line.
SPECIAL = [*'\\",= #_\n\t\r\0\x0b\x0c\x1f', "\x85", "\xa0", "\u2028", "\u3000", "\ufeff"]
PIECES = [*SPECIAL, "\\n", "\\\\", '\\"', "\\,", "\\ ", "\\=", "é", "\U0001f600", "e\u0301", "1i"]
PLAIN = ["a", "b", "Z", "0", "9", ".", "-", ":", "'", "$", "t", "true", "time", "NaN", "1e5"]
EDGES_I = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 10**18]
EDGES_U = [0, 1, 2**64 - 1, 2**63, 2**53 + 1]
EDGES_F = [
    *(0.0, -0.0, 1.0, -1.5, 0.1, 1e-7, 1e15, 1e16, 1e17, 1e22, 2.0**53, 2.0**63, -(2.0**64)),
    *(sys.float_info.max, sys.float_info.min, 5e-324, -5e-324, 1e308, 123456789012345680.0),
]
NOT_FINITE = [math.nan, math.inf, -math.inf]


def text(chance: random.Random, *, clean: bool = False) -> str:
    """Return a text; mostly short, often nasty unless `clean`."""
    kind = chance.random()
    if clean or kind < 0.25:
        return "".join(chance.choices(PLAIN, k=chance.randint(1, 4)))
    if kind < 0.3:
        return chance.choice(["", " ", "   ", "\\", "\\\\", "\n", '"', "=", ",", "#", "_", "\r\n"])
    if kind < 0.35:
        return "".join(chr(chance.choice([chance.randrange(0xD800), 0x10FFFF])) for _ in range(3))
    weights = (PIECES, PLAIN) if kind < 0.8 else (PLAIN, PLAIN)
    made = "".join(chance.choice(chance.choice(weights)) for _ in range(chance.randint(1, 8)))
    ends = ["", "", "", "", "\\", "\\\\", " ", "\r", "="]
    starts = ["", "", "", "", "#", "_", " ", "\r", '"']
    return chance.choice(starts) + made + chance.choice(ends)


def integer(chance: random.Random) -> tuple[Any, int]:
    """Return a signed integer as a plugin may have it, and as a number."""
    number = chance.choice([*EDGES_I, chance.randint(-(2**63), 2**63 - 1), chance.randint(-99, 99)])
    kinds = [int, np.int64, str]
    kinds += [kind for kind in (np.int8, np.int16, np.int32) if fits(number, kind)]
    return chance.choice([(kind(number), number) for kind in kinds] + [(True, 1), (np.False_, 0)])


def unsigned(chance: random.Random) -> tuple[Any, int]:
    """Return an unsigned integer likewise."""
    number = chance.choice([*EDGES_U, chance.randint(0, 2**64 - 1), chance.randint(0, 99)])
    kinds = [int, np.uint64, str]
    kinds += [kind for kind in (np.uint8, np.uint16, np.uint32) if fits(number, kind)]
    return chance.choice([(kind(number), number) for kind in kinds])


def fits(number: int, kind: Any) -> bool:
    """Tell whether a numpy type can hold the number."""
    return bool(np.iinfo(kind).min <= number <= np.iinfo(kind).max)


def floating(chance: random.Random) -> tuple[Any, float]:
    """Return a float as a plugin may have it, and what must be stored."""
    any_bits = struct.unpack("<d", chance.randbytes(8))[0]
    number = chance.choice([*EDGES_F, any_bits, chance.uniform(-1e3, 1e3), *NOT_FINITE])
    with np.errstate(over="ignore", under="ignore"):
        small = np.float32(number)
        half = np.float16(number)
    narrow = small if chance.random() < 0.5 else half
    # A narrow float is what its own shortest text says, except that a whole number is itself
    # (InfluxDB's builder writes int(value)).
    is_whole = math.isfinite(narrow) and narrow % 1 == 0
    return chance.choice(
        [(number, number)] * 3
        + [(np.float64(number), number), (np.longdouble(number), number)]
        + [
            (narrow, float(narrow if is_whole else str(narrow))),
            (chance.choice([7, np.int8(7), True]), None),
        ]
    )


def field(chance: random.Random) -> tuple[str, Any, Any]:
    """Return a setter, what it is given, and what must be stored, as JSON."""
    kind = chance.choice("iufsb")
    if kind == "i":
        given, number = integer(chance)
        return "int64_field", given, ["i", str(number)]
    if kind == "u":
        given, number = unsigned(chance)
        return "uint64_field", given, ["u", str(number)]
    if kind == "f":
        given, number = floating(chance)
        number = float(given) if number is None else number
        return "float64_field", given, ["f", struct.pack(">d", number).hex()]
    if kind == "s":
        given = text(chance)
        return "string_field", given, ["s", given]
    given = chance.choice([True, False, np.True_, np.False_, 0, 1, "x", ""])
    return "bool_field", given, ["b", bool(given)]


class Case:
    """One point as a plugin means it."""

    def __init__(self, chance: random.Random, *, clean_names: bool) -> None:
        """Make up a point; with clean names, most of them can be written."""
        self.measurement = text(chance, clean=clean_names)
        self.tags: dict[str, Any] = {}
        for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
            value = text(chance) if chance.random() < 0.8 else chance.choice([1, None, 2.5, True])
            self.tags[text(chance, clean=clean_names)] = value
        self.fields: dict[str, tuple[str, Any, Any]] = {}
        for _ in range(chance.choice([1, 1, 2, 3, 5])):
            self.fields[text(chance, clean=clean_names)] = field(chance)
        self.time = integer(chance) if chance.random() < 0.7 else None

    def build(self, line_builder: Any) -> str:
        """Build the line."""
        line = line_builder(self.measurement)
        for key, value in self.tags.items():
            line.tag(key, value)
        for key, (method, value, _) in self.fields.items():
            getattr(line, method)(key, value)
        if self.time is not None:
            line.time_ns(self.time[0])
        return line.build()

    def problem(self) -> str | None:
        """Return why line protocol cannot say this, found without LineBuilder's help."""
        names = [*self.tags, *self.fields]
        texts = [self.measurement, *names, *map(str, self.tags.values())]
        checks = {
            "space in the measurement": " " in self.measurement,
            "comment": self.measurement.startswith("#"),
            "NUL in the measurement": "\0" in self.measurement,
            "key": any(character in name for name in names for character in " ,="),
            "empty": "" in texts,
            "no escape": any(character in part for part in texts for character in "\n\t"),
            "backslash at an end": any(part.endswith("\\") for part in texts),
            "reserved": "time" in names,
            "twice": len(set(names)) < len(names),
            "not finite": any(
                method == "float64_field" and not math.isfinite(value)
                for method, value, _ in self.fields.values()
            ),
        }
        return next((name for name, applies in checks.items() if applies), None)

    def expected(self) -> dict[str, Any]:
        """Return what the server must read."""
        return {
            "measurement": self.measurement,
            "tags": [[key, str(value)] for key, value in self.tags.items()],
            "fields": [[key, *stored] for key, (_, _, stored) in self.fields.items()],
            "time": None if self.time is None else str(self.time[1]),
        }


def cases(seed: int, count: int, line_builder: Any) -> Iterator[dict[str, Any]]:
    """Yield what came of so many cases."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(count):
        case = Case(chance, clean_names=chance.random() < 0.7)
        outcome = {"problem": case.problem(), **case.expected()}
        try:
            yield {**outcome, "line": case.build(line_builder)}
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            yield {**outcome, "error": kinds, "message": str(error)}


# What it does as a plugin: the values go through the log, the columns and the query, too.

TABLES = 6
COLUMNS = {"int64_field": "i", "uint64_field": "u", "float64_field": "f", "string_field": "s"}


class Lines:
    """Many lines, written at once."""

    def __init__(self, lines: list[str]) -> None:
        """Join them."""
        self._lines = lines

    def build(self) -> str:
        """Return them all."""
        return "\n".join(self._lines)


def process_request(influxdb3_local, query_parameters, _headers, _body, _args=None):
    """Write cases and return the differences between them and what a query finds."""
    seed, count = int(query_parameters["seed"]), int(query_parameters["count"])
    chance = random.Random(seed)  # noqa: S311
    wanted = collections.defaultdict(list)
    lines = []
    names = set()
    while len(names) < TABLES:
        name = "m" + text(chance).replace(" ", "").strip("\n\t\r\\").replace("\0", "")
        if not set("\n\t") & set(name):
            names.add(name)
    names = sorted(names)
    while len(lines) < count:
        time, table = len(lines) + 1, chance.choice(names)
        try:
            line, row = row_case(chance, table, time)
        except (ValueError, *line_errors()):
            continue
        lines.append(line)
        wanted[table].append(row)
    for first in range(0, len(lines), 500):
        influxdb3_local.write_sync(Lines(lines[first : first + 500]), no_sync=False)
    differences = []
    for table, rows in wanted.items():
        quoted = table.replace('"', '""')
        found = influxdb3_local.query(f'SELECT * FROM "{quoted}" ORDER BY time')
        found = [{key: v for key, v in row.items() if v is not None} for row in found]
        if len(found) != len(rows):
            differences.append(f"{table!r}: {len(found)} rows instead of {len(rows)}")
        for row, expected in zip(found, rows, strict=False):
            if comparable(row) != comparable(expected):
                differences.append(f"{table!r}: {row!r} instead of {expected!r}")
    return {"rows": len(lines), "tables": len(wanted), "differences": differences[:20]}


def row_case(chance: random.Random, table: str, time: int) -> tuple[str, dict[str, Any]]:
    """Return a line for `table`, and the row that it must become."""
    line = LineBuilder(table).time_ns(time)
    row: dict[str, Any] = {"time": time}
    for key in chance.sample(["tag", "T'é", "_t", '"'], k=chance.randint(0, 3)):
        value = text(chance)
        line.tag(key, value)
        row[key] = value
    for _ in range(chance.randint(1, 4)):
        method, given, stored = field(chance)
        key = COLUMNS.get(method, "b") + chance.choice(['"', "'", "\\x", ".é", "#", "1"])
        getattr(line, method)(key, given)
        row[key] = value_of(stored)
    return line.build(), row


def value_of(stored: list[Any]) -> Any:
    """Return a stored value as a query gives it."""
    kind, value = stored
    if kind in "iu":
        return int(value)
    return struct.unpack(">d", bytes.fromhex(value))[0] if kind == "f" else value


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Make values of different types different: 1 is not 1.0, and 0.0 is not -0.0."""
    return {key: (type(value).__name__, repr(value)) for key, value in sorted(row.items())}


def line_errors() -> tuple[type[Exception], ...]:
    """Return what LineBuilder raises; as a program, its package is found by PYTHONPATH."""
    from outrigger_plugin_host import InfluxDBError  # noqa: PLC0415

    return (InfluxDBError,)


if __name__ == "__main__":
    from outrigger_plugin_host import LineBuilder

    for made in cases(int(sys.argv[1]), int(sys.argv[2]), LineBuilder):
        sys.stdout.write(json.dumps(made) + "\n")
