"""
{
  "plugin_type": ["onwrite"],
  "onwrite_args_config": [
    {"name": "target_database", "example": "clean", "required": true,
     "description": "The database to write to; not the trigger's own. It is created if needed."},
    {"name": "conversions", "example": "temp:degF:degC pressure:psi:hPa", "required": false,
     "description": "FIELD:FROM:TO, separated by spaces; the units are those of pint."},
    {"name": "renames", "example": "temp:temperature", "required": false,
     "description": "OLD:NEW for tags and fields, separated by spaces."},
    {"name": "drop", "example": "debug raw", "required": false,
     "description": "Tags and fields to leave out, separated by spaces."},
    {"name": "target_table", "example": "climate", "required": false,
     "description": "The table to write to; default the name of the source."},
    {"name": "digits", "example": "3", "required": false,
     "description": "To how many digits converted values are rounded; default not at all."}
  ]
}
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pint
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = ("target_database", "conversions", "renames", "drop", "target_table", "digits")
DIGITS_MAX = 15


@dataclass(frozen=True)
class Settings:
    """The trigger's arguments, checked."""

    database: str
    conversions: dict[str, tuple[str, str]]
    renames: dict[str, str]
    dropped: set[str]
    table: str | None
    digits: int | None


def process_writes(influxdb3_local, table_batches: list, args: dict[str, str] | None = None):
    settings = parse_arguments(args or {})
    units = unit_registry(influxdb3_local)
    check_units(settings, units)
    for batch in table_batches:
        # Arrow, not `rows`: whole columns are converted at once, and they have types.
        source = batch.to_arrow()
        columns = {name: source[name] for name in source.column_names if name != "time"}
        convert(settings, units, batch, columns)
        target = settings.table or batch["table_name"]
        times = source["time"].cast(pa.timestamp("ns")).cast(pa.int64()).to_pylist()
        for line in lines(target, times, renamed(settings, columns)):
            # Buffered: each row arrives once, together with the note that it was dealt with.
            influxdb3_local.write_to_db(settings.database, line)


def parse_arguments(args: dict[str, str]) -> Settings:
    """Check the arguments; every complaint names the argument and says what it may be."""
    unknown = sorted(set(args) - set(KNOWN))
    if unknown:
        raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
    if not args.get("target_database"):
        raise ValueError("the argument target_database is required: another one than the trigger's")
    conversions = {}
    for part in args.get("conversions", "").split():
        pieces = part.rsplit(":", 2)
        if len(pieces) != 3 or not all(pieces):  # noqa: PLR2004 - field and two units
            raise ValueError(f"conversions: expected FIELD:FROM:TO, not {part!r}")
        conversions[pieces[0]] = (pieces[1], pieces[2])
    renames = {}
    for part in args.get("renames", "").split():
        old, separator, new = part.rpartition(":")
        if not separator or not old or not new or new == "time":
            raise ValueError(f"renames: expected OLD:NEW, not {part!r}")
        renames[old] = new
    digits = args.get("digits")
    if digits is not None and not (digits.isdecimal() and int(digits) <= DIGITS_MAX):
        raise ValueError(f"digits={digits!r}: expected a whole number from 0 to {DIGITS_MAX}")
    return Settings(
        database=args["target_database"],
        conversions=conversions,
        renames=renames,
        dropped=set(args.get("drop", "").split()),
        table=args.get("target_table") or None,
        digits=None if digits is None else int(digits),
    )


def unit_registry(influxdb3_local) -> pint.UnitRegistry:
    """Return the registry of units. It takes long to make, so it stays in the cache."""
    units = influxdb3_local.cache.get("units")
    if units is None:
        units = pint.UnitRegistry()
        influxdb3_local.cache.put("units", units)
    return units


def check_units(settings: Settings, units: pint.UnitRegistry) -> None:
    """Refuse units that do not exist or do not fit, whether or not there are rows to convert."""
    for field, (old, new) in settings.conversions.items():
        try:
            if not units.Unit(old).is_compatible_with(units.Unit(new)):
                raise ValueError(f"conversions: {field}: {old} cannot be converted to {new}")
        except pint.UndefinedUnitError as error:
            raise ValueError(f"conversions: {field}: {error}") from None


def convert(settings: Settings, units: pint.UnitRegistry, batch, columns: dict[str, Any]) -> None:
    """Convert the columns that have units."""
    wanted = [name for name in settings.conversions if name in columns]
    for name in wanted:
        kind = columns[name].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise TypeError(f"conversions: {name!r} is {kind}, and only numbers can be converted")
    if not wanted:
        return
    # Pandas for arithmetic only: it turns integers with gaps into floats, which is right here and
    # would be wrong for the columns that pass unchanged.
    frame = batch.to_pandas()
    for name in wanted:
        old, new = settings.conversions[name]
        numbers = frame[name].to_numpy(dtype="float64", na_value=float("nan"))
        converted = units.Quantity(numbers, old).to(new).magnitude
        if settings.digits is not None:
            converted = converted.round(settings.digits)
        columns[name] = pa.chunked_array([pa.array(converted, from_pandas=True)])


def renamed(settings: Settings, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns under their new names, without those that are dropped."""
    kept = {name: column for name, column in columns.items() if name not in settings.dropped}
    names = {name: settings.renames.get(name, name) for name in kept}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ValueError(f"renames: the columns {twice} would exist twice")
    return {names[name]: column for name, column in kept.items()}


def lines(table: str, times: list[int], columns: dict[str, Any]) -> Iterator[Any]:
    """Make a line of every row that has a field."""
    setters = {name: setter_name(column.type) for name, column in columns.items()}
    values = {name: column.to_pylist() for name, column in columns.items()}
    for index, time_ns in enumerate(times):
        line = LineBuilder(table).time_ns(time_ns)
        for name, column in values.items():
            if column[index] is not None:
                getattr(line, setters[name])(name, column[index])
        if line.fields:
            yield line


def setter_name(kind: pa.DataType) -> str:
    """Return the builder's method for a column: dictionaries are tags."""
    if pa.types.is_dictionary(kind):
        return "tag"
    if pa.types.is_unsigned_integer(kind):
        return "uint64_field"
    if pa.types.is_integer(kind):
        return "int64_field"
    if pa.types.is_floating(kind):
        return "float64_field"
    return "bool_field" if pa.types.is_boolean(kind) else "string_field"
