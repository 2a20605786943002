"""
{
  "plugin_type": ["scheduled"],
  "scheduled_args_config": [
    {"name": "source_table", "example": "climate", "required": true,
     "description": "The table to read."},
    {"name": "aggregations", "example": "avg max humidity:min", "required": true,
     "description": "What to compute, separated by spaces: FUNCTION for every numeric field, or FIELD:FUNCTION."},
    {"name": "interval", "example": "1h", "required": true,
     "description": "The width of a window: a number with s, m, h or d."},
    {"name": "target_table", "example": "climate_1h", "required": false,
     "description": "Where to write; default SOURCE_INTERVAL."},
    {"name": "target_database", "example": "archive", "required": false,
     "description": "The database to write to; default the trigger's own."},
    {"name": "tags", "example": "room site", "required": false,
     "description": "The tags to group by, separated by spaces; default all tags of the table."},
    {"name": "lookback", "example": "2h", "required": false,
     "description": "How far back windows are computed again for late rows; default one interval."},
    {"name": "backfill", "example": "30d", "required": false,
     "description": "How far back the first run begins; default the lookback."}
  ]
}
"""  # noqa: E501 - one description per line is what readers of this header expect

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

NANOSECONDS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
WINDOWS_PER_RUN = 1_000
"""How much one run catches up. The rest is left to the next ones, so that no run grows too long."""

ORDERED = {"first": "first_value", "last": "last_value"}
FUNCTIONS = ("avg", "sum", "min", "max", "count", "median", "stddev")
PERCENTILE = re.compile(r"p([1-9][0-9]?)")
KNOWN = ("source_table", "aggregations", "interval", "target_table", "target_database", "tags",
         "lookback", "backfill")  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The trigger's arguments, checked."""

    source: str
    aggregations: list[tuple[str | None, str]]
    interval_ns: int
    target: str
    database: str | None
    tags: list[str] | None
    lookback_ns: int
    backfill_ns: int


def process_scheduled_call(
    influxdb3_local, call_time: datetime, args: dict[str, str] | None = None
):
    settings = parse_arguments(args or {})
    columns = source_columns(influxdb3_local, settings.source)
    if not columns:
        influxdb3_local.info(f"table {settings.source!r} does not exist yet")
        return
    tags = chosen_tags(settings, columns)
    outputs = chosen_outputs(settings, columns)

    start, end = span(influxdb3_local, settings, call_time)
    if start >= end:
        return
    sql = query_text(settings, tags, outputs)
    limits = {"start": timestamp_text(start), "end": timestamp_text(end)}
    result = influxdb3_local.query_arrow(sql, limits)
    for line in lines(result, settings.target, tags):
        # Buffered: the windows of one run are stored all together or, if it fails, not at all.
        if settings.database is None:
            influxdb3_local.write(line)
        else:
            influxdb3_local.write_to_db(settings.database, line)
    if end != influxdb3_local.cache.get("done_until"):
        written = f"{result.num_rows} rows in {(end - start) // settings.interval_ns} windows"
        influxdb3_local.info(f"{settings.target}: {written} up to {limits['end']}")
    # Only now, so that a run that fails is made up for by the next one.
    influxdb3_local.cache.put("done_until", end)


def parse_arguments(args: dict[str, str]) -> Settings:
    """Check the arguments; every complaint names the argument and says what it may be."""
    unknown = sorted(set(args) - set(KNOWN))
    if unknown:
        raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
    missing = [name for name in ("source_table", "aggregations", "interval") if not args.get(name)]
    if missing:
        raise ValueError(f"the arguments {', '.join(missing)} are required")
    source, interval = args["source_table"], args["interval"]
    interval_ns = duration("interval", interval)
    lookback_ns = duration("lookback", args.get("lookback", interval))
    backfill_ns = duration("backfill", args["backfill"]) if "backfill" in args else lookback_ns
    target = args.get("target_table") or f"{source}_{interval.strip()}"
    database = args.get("target_database") or None
    if target == source and database is None:
        raise ValueError("target_table is the source_table: name another one, or a target_database")
    tags = args["tags"].split() if "tags" in args else None
    aggregations = [aggregation(text) for text in args["aggregations"].split()]
    return Settings(
        source, aggregations, interval_ns, target, database, tags, lookback_ns, backfill_ns
    )


def duration(name: str, text: str) -> int:
    """Turn `10m` into nanoseconds."""
    found = re.fullmatch(r"([1-9][0-9]*)([smhd])", text.strip())
    if found is None:
        raise ValueError(f"{name}={text!r}: expected a number with s, m, h or d, such as 10m")
    return int(found[1]) * NANOSECONDS[found[2]]


def aggregation(text: str) -> tuple[str | None, str]:
    """Split `FIELD:FUNCTION` or `FUNCTION`; the name of a field may hold colons."""
    field, _, function = text.rpartition(":")
    if function not in (*FUNCTIONS, *ORDERED) and not PERCENTILE.fullmatch(function):
        known = ", ".join((*FUNCTIONS, *ORDERED))
        raise ValueError(
            f"aggregations: {text!r} names no function; there are {known} and p1 to p99"
        )
    return field or None, function


def source_columns(influxdb3_local, table: str) -> dict[str, str]:
    """Return the names and types of the table's columns; empty if there is no such table."""
    sql = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $table"
    rows = influxdb3_local.query(sql, {"table": table})
    return {row["column_name"]: row["data_type"] for row in rows if row["column_name"] != "time"}


def is_tag(data_type: str) -> bool:
    """Only tags are dictionaries."""
    return data_type.startswith("Dictionary")


def chosen_tags(settings: Settings, columns: dict[str, str]) -> list[str]:
    """Return the tags to group by."""
    available = [name for name, kind in columns.items() if is_tag(kind)]
    if settings.tags is None:
        return available
    unknown = [name for name in settings.tags if name not in available]
    if unknown:
        raise ValueError(f"tags: {settings.source!r} has no tags {unknown}, only {available}")
    return settings.tags


def chosen_outputs(settings: Settings, columns: dict[str, str]) -> dict[str, str]:
    """Return the SQL expression of every column to write, by its name."""
    numeric = [name for name, kind in columns.items() if kind in ("Int64", "UInt64", "Float64")]
    fields = [name for name, kind in columns.items() if not is_tag(kind)]
    outputs = {}
    for field, function in settings.aggregations:
        if field is not None and field not in fields:
            raise ValueError(
                f"aggregations: {settings.source!r} has no field {field!r}, only {fields}"
            )
        for name in numeric if field is None else [field]:
            outputs[f"{name}_{function}"] = expression(name, function)
    if not outputs:
        raise ValueError(f"aggregations: {settings.source!r} has no numeric field, only {fields}")
    return outputs


def expression(field: str, function: str) -> str:
    """Write one aggregation in SQL."""
    column = quoted(field)
    if function in ORDERED:
        return f"{ORDERED[function]}({column} ORDER BY time) FILTER (WHERE {column} IS NOT NULL)"
    percentile = PERCENTILE.fullmatch(function)
    if percentile:
        return (
            f"approx_percentile_cont(0.{int(percentile[1]):02d}) WITHIN GROUP (ORDER BY {column})"
        )
    return f"{function}({column})"


def quoted(name: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def span(influxdb3_local, settings: Settings, call_time: datetime) -> tuple[int, int]:
    """Return which whole windows to compute: those since the last run, and the lookback.

    The end of the last run is in the cache. After the worker's end it is gone, and what the target
    holds takes its place.
    """
    step = settings.interval_ns
    call_ns = int(call_time.replace(tzinfo=UTC).timestamp()) * 10**9
    now = call_ns - call_ns % step
    done = influxdb3_local.cache.get("done_until")
    if done is None:
        done = newest_window(influxdb3_local, settings)
    begin = now - settings.backfill_ns if done is None else done - settings.lookback_ns
    begin = min(begin, now - settings.lookback_ns)
    begin -= begin % step
    end = min(now, max(begin, done or begin) + WINDOWS_PER_RUN * step)
    return begin, end


def newest_window(influxdb3_local, settings: Settings) -> int | None:
    """Return the end of the newest window in the target, if there is one."""
    exists = "SELECT 1 FROM information_schema.tables WHERE table_name = $table"
    names = {"table": settings.target}
    try:
        if not influxdb3_local.query(exists, names, database=settings.database):
            return None
    except Exception as error:  # noqa: BLE001 - the exceptions of other servers have no names
        influxdb3_local.info(f"nothing in the target yet: {error}")
        return None
    sql = f"SELECT max(time) AS newest FROM {quoted(settings.target)}"  # noqa: S608 - quoted
    newest = influxdb3_local.query(sql, database=settings.database)[0]["newest"]
    return None if newest is None else newest + settings.interval_ns


def query_text(settings: Settings, tags: list[str], outputs: dict[str, str]) -> str:
    """Write the query. Names are quoted, the limits are parameters."""
    window = f"date_bin(INTERVAL '{settings.interval_ns // 10**9} seconds', time)"
    selected = [f"{window} AS _window", *map(quoted, tags)]
    selected += [f"{text} AS {quoted(name)}" for name, text in outputs.items()]
    groups = ", ".join(["_window", *map(quoted, tags)])
    return (
        f"SELECT {', '.join(selected)} FROM {quoted(settings.source)} "  # noqa: S608 - quoted
        f"WHERE time >= $start AND time < $end GROUP BY {groups} ORDER BY _window"
    )


def timestamp_text(nanoseconds: int) -> str:
    """Write a time as SQL compares it."""
    return str(pa.scalar(nanoseconds, pa.timestamp("ns")).cast(pa.string())) + "Z"


def lines(result: pa.Table, table: str, tags: list[str]) -> Iterator[Any]:
    """Make a line of every row, at the time of its window: computed again, it replaces itself."""
    times = result["_window"].cast(pa.timestamp("ns")).cast(pa.int64()).to_pylist()
    columns = {name: result[name].to_pylist() for name in result.column_names if name != "_window"}
    setters = {name: setter_name(result.schema.field(name).type) for name in columns}
    for index, time_ns in enumerate(times):
        line = LineBuilder(table).time_ns(time_ns)
        for name, values in columns.items():
            value = values[index]
            if value is None or value == "":
                continue
            if name in tags:
                line.tag(name, value)
            else:
                getattr(line, setters[name])(name, value)
        if line.fields:
            yield line


def setter_name(kind: pa.DataType) -> str:
    """Return the builder's method for a type: a field must keep its type from window to window."""
    if pa.types.is_unsigned_integer(kind):
        return "uint64_field"
    if pa.types.is_integer(kind):
        return "int64_field"
    if pa.types.is_floating(kind):
        return "float64_field"
    return "bool_field" if pa.types.is_boolean(kind) else "string_field"
