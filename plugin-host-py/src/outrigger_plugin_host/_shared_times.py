"""How do dates, times and durations travel through the global cache?"""

from __future__ import annotations

import datetime as dt
import re
import struct
import zoneinfo
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host._shared_bytes import CorruptValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outrigger_plugin_host._shared_bytes import ByteReader
    from outrigger_plugin_host._shared_values import Writer

_DATE = "<HBB"
_TIME = "<BBBIB"
"""Hour, minute, second, microsecond, fold."""
_DURATION = "<iII"
"""Days, seconds, microseconds, as `timedelta` has them."""
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")


def _encode_date(writer: Writer, value: dt.date) -> None:
    writer.put(b"D" + _date(value))


def _encode_datetime(writer: Writer, value: dt.datetime) -> None:
    writer.put(b"A" + _date(value) + _time(value))
    _encode_zone(writer, value)


def _encode_time(writer: Writer, value: dt.time) -> None:
    writer.put(b"t" + _time(value))
    _encode_zone(writer, value)


def _encode_duration(writer: Writer, value: dt.timedelta) -> None:
    writer.put(b"y" + _duration(value))


def _date(value: dt.date) -> bytes:
    return struct.pack(_DATE, value.year, value.month, value.day)


def _time(value: dt.datetime | dt.time) -> bytes:
    parts = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return struct.pack(_TIME, *parts)


def _duration(value: dt.timedelta) -> bytes:
    return struct.pack(_DURATION, value.days, value.seconds, value.microseconds)


def _encode_zone(writer: Writer, value: dt.datetime | dt.time) -> None:
    """Append no zone, a fixed offset with its name, or the name of a zone."""
    zone = value.tzinfo
    if zone is None:
        writer.put(b"-")
    elif type(zone) is dt.timezone:
        writer.put(b"o" + _duration(zone.utcoffset(None)))
        writer.text(zone.tzname(None))
    elif type(zone) is zoneinfo.ZoneInfo and _ZONE_NAME.fullmatch(zone.key or ""):
        writer.put(b"z")
        writer.text(zone.key)
    else:
        why = "its tzinfo must be None, a datetime.timezone or a named zoneinfo.ZoneInfo"
        raise writer.refusal(value, f"{why}, not {zone!r}")


def _decode_date(reader: ByteReader) -> dt.date:
    return dt.date(*reader.unpack(_DATE))


def _decode_datetime(reader: ByteReader) -> dt.datetime:
    day = reader.unpack(_DATE)
    clock = _decode_time(reader)
    return dt.datetime.combine(dt.date(*day), clock)


def _decode_time(reader: ByteReader) -> dt.time:
    hour, minute, second, microsecond, fold = reader.unpack(_TIME)
    zone = _decode_zone(reader)
    return dt.time(hour, minute, second, microsecond, fold=fold, tzinfo=zone)


def _decode_duration(reader: ByteReader) -> dt.timedelta:
    days, seconds, microseconds = reader.unpack(_DURATION)
    return dt.timedelta(days, seconds, microseconds)


def _decode_zone(reader: ByteReader) -> dt.tzinfo | None:
    kind = reader.take(1)
    if kind == b"-":
        return None
    if kind == b"o":
        offset, name = _decode_duration(reader), reader.text()
        unnamed = dt.timezone(offset)
        return unnamed if unnamed.tzname(None) == name else dt.timezone(offset, name)
    if kind == b"z":
        name = reader.text()
        if not _ZONE_NAME.fullmatch(name):
            raise CorruptValueError("it has an impossible name of a time zone")
        return zoneinfo.ZoneInfo(name)
    raise CorruptValueError(f"it has the unknown kind of time zone {kind!r}")


ENCODERS: dict[type, Callable[[Writer, Any], None]] = {
    dt.date: _encode_date,
    dt.datetime: _encode_datetime,
    dt.time: _encode_time,
    dt.timedelta: _encode_duration,
}

DECODERS: dict[bytes, Callable[[ByteReader], Any]] = {
    b"D": _decode_date,
    b"A": _decode_datetime,
    b"t": _decode_time,
    b"y": _decode_duration,
}
