"""Which line does a record become?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from .paths import Path, find

REQUIRED = ("table", "fields")
KNOWN = (*REQUIRED, "tags", "time", "time_format", "records", "partial", "max_records")
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
FORMATS = ("auto", "iso", *UNITS)
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)
FRACTION = re.compile(r"(?<=:\d\d)[.,](\d{1,9})\d*")


class RecordError(Exception):
    """A record cannot become a line."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Column:
    """A tag or a field, and where its value is."""

    name: str
    path: Path
    kind: str


@dataclass(frozen=True)
class Mapping:
    """The trigger's arguments, checked."""

    table: str
    columns: list[Column]
    time: Path | None
    time_format: str
    records: Path
    partial: bool
    max_records: int

    @classmethod
    def from_arguments(cls, args: dict[str, str]) -> Self:
        """Check the arguments; every complaint names the argument and says what it may be."""
        unknown = sorted(set(args) - set(KNOWN))
        if unknown:
            raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
        missing = [name for name in REQUIRED if not args.get(name, "").strip()]
        if missing:
            raise ValueError(f"the arguments {', '.join(missing)} are required")
        columns = [_tag(text) for text in args.get("tags", "").split()]
        columns += [_field(text) for text in args["fields"].split()]
        names = [column.name for column in columns]
        twice = sorted({name for name in names if names.count(name) > 1 or name == "time"})
        if twice:
            raise ValueError(f"tags, fields: the names {twice} come twice or are reserved")
        time_format = args.get("time_format", "auto")
        if time_format not in FORMATS:
            raise ValueError(f"time_format={time_format!r}: expected one of {', '.join(FORMATS)}")
        partial = args.get("partial", "false")
        if partial not in ("true", "false"):
            raise ValueError(f"partial={partial!r}: expected true or false")
        max_records = args.get("max_records", "10000")
        if not max_records.isdecimal() or int(max_records) < 1:
            raise ValueError(f"max_records={max_records!r}: expected a whole number from 1 on")
        return cls(
            table=args["table"],
            columns=columns,
            time=Path.parse("time", args["time"]) if args.get("time") else None,
            time_format=time_format,
            records=Path.parse("records", args.get("records", "")),
            partial=partial == "true",
            max_records=int(max_records),
        )

    def line(self, line: Any, record: Any) -> Any:
        """Fill the line from the record."""
        if not isinstance(record, dict):
            raise RecordError("", f"expected an object, not {_json_name(record)}")
        for column in self.columns:
            found, value = find(record, column.path)
            if found and value is not None:
                try:
                    _SETTERS[column.kind](line, column.name, value)
                except (OverflowError, TypeError, ValueError) as error:
                    raise RecordError(column.path.text, str(error)) from None
            elif not column.path.is_optional:
                raise RecordError(column.path.text, "is missing")
        if not line.fields:
            raise RecordError("", "has none of the fields")
        self._set_time(line, record)
        try:
            line.build()
        except Exception as error:  # noqa: BLE001 - the builder's errors have no common name elsewhere
            raise RecordError("", str(error)) from None
        return line

    def _set_time(self, line: Any, record: dict[str, Any]) -> None:
        if self.time is None:
            return
        found, value = find(record, self.time)
        if not found or value is None:
            if self.time.is_optional:
                return
            raise RecordError(self.time.text, "is missing")
        try:
            line.time_ns(nanoseconds(value, self.time_format))
        except (OverflowError, TypeError, ValueError) as error:
            raise RecordError(self.time.text, f"is no time: {error}") from None


def _tag(text: str) -> Column:
    name, separator, path = text.partition(":")
    if not separator or not name or not path:
        raise ValueError(f"tags: expected NAME:PATH, not {text!r}")
    return Column(name, Path.parse("tags", path), "tag")


def _field(text: str) -> Column:
    name, _, rest = text.partition(":")
    path, separator, kind = rest.rpartition(":")
    if not separator or not name or not path or kind not in _SETTERS or kind == "tag":
        raise ValueError(
            f"fields: expected NAME:PATH:TYPE, not {text!r}; TYPE: float, int, uint, bool, string"
        )
    return Column(name, Path.parse("fields", path), kind)


def nanoseconds(value: Any, time_format: str) -> int:
    """Read a time: ISO 8601 text, or a number since the epoch, which may be text too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"expected text or a number, not {_json_name(value)}")
    if isinstance(value, str):
        text = value.strip()
        if time_format == "iso" or (time_format == "auto" and not _is_number(text)):
            return _from_iso(text)
        value = int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    elif time_format == "iso":
        raise TypeError(f"expected text such as 2026-01-31T12:00:00Z, not {value}")
    unit = UNITS[_unit_of(value) if time_format == "auto" else time_format]
    return value * unit if isinstance(value, int) else round(value * unit)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def _unit_of(value: float) -> str:
    """Guess the unit as the server guesses it for line protocol: by the size of the number."""
    seconds = abs(value) / 10**9
    if seconds < 5:  # noqa: PLR2004 - until the year 2128
        return "s"
    if seconds < 5 * 10**3:
        return "ms"
    return "us" if seconds < 5 * 10**6 else "ns"


def _from_iso(text: str) -> int:
    """Read ISO 8601; without a zone it is UTC. Python keeps microseconds, the rest is added."""
    fraction = FRACTION.search(text)
    whole = datetime.fromisoformat(FRACTION.sub("", text))
    whole = whole.replace(tzinfo=UTC) if whole.tzinfo is None else whole
    return int(whole.timestamp()) * 10**9 + (int(fraction[1].ljust(9, "0")) if fraction else 0)


def _json_name(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def _set_tag(line: Any, name: str, value: Any) -> None:
    if isinstance(value, (dict, list)) or value == "":
        raise TypeError(
            f"expected text or a number, not {_json_name(value) if value else 'nothing'}"
        )
    line.tag(name, str(value).lower() if isinstance(value, bool) else value)


def _set_float(line: Any, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, not {_json_name(value)}")
    line.float64_field(name, float(value))


def _whole(value: Any, limits: range) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a whole number, not {_json_name(value)}")
    if int(value) != value or int(value) not in limits:
        raise ValueError(f"expected a whole number from {limits[0]} to {limits[-1]}, not {value}")
    return int(value)


def _set_int(line: Any, name: str, value: Any) -> None:
    line.int64_field(name, _whole(value, INT64))


def _set_uint(line: Any, name: str, value: Any) -> None:
    line.uint64_field(name, _whole(value, UINT64))


def _set_bool(line: Any, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, not {_json_name(value)}")
    line.bool_field(name, value)


def _set_string(line: Any, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {_json_name(value)}")
    line.string_field(name, value)


_SETTERS = {
    "tag": _set_tag,
    "float": _set_float,
    "int": _set_int,
    "uint": _set_uint,
    "bool": _set_bool,
    "string": _set_string,
}
