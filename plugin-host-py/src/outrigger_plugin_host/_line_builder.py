r"""How does a plugin build one line of line protocol?

Names, messages and attributes are those of InfluxDB 3. Where its builder made lines that the
server's parser refuses or reads differently, this one escapes properly, and what line protocol
cannot say at all raises an error that names the culprit:

* a tab or newline outside a string field (no escape exists for them),
* a name or tag value that ends in a backslash (the parser refuses it even as `\\`),
* a measurement that begins with `#` (the whole line would be a comment),
* an empty tag value, NaN and the infinities, integers beyond 64 bits,
* a tag or field named `time`, one name for a tag and a field, text that is no valid Unicode.
"""

from __future__ import annotations

import math
import operator
import re
from collections import OrderedDict
from typing import Any, Self

from outrigger_plugin_host._errors import (
    InfluxDBError,
    InvalidKeyError,
    InvalidLineError,
    InvalidMeasurementError,
)

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_UINT64_MAX = 2**64 - 1
_SURROGATES = "holds a lone surrogate, which UTF-8 cannot say"
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECIMAL_INTEGER = re.compile(r"-?[0-9]+")
_MEASUREMENT_ESCAPES = str.maketrans({"\\": r"\\", ",": r"\,", " ": r"\ "})
_ESCAPES = str.maketrans({"\\": r"\\", ",": r"\,", "=": r"\=", " ": r"\ "})


class LineBuilder:
    """Builds one line; every setter returns the builder, and it can be built repeatedly."""

    def __init__(self, measurement: str) -> None:
        """Start a line of `measurement`."""
        measurement = str(measurement)
        if " " in measurement:
            raise InvalidMeasurementError("Measurement name cannot contain spaces")
        if not measurement:
            raise InvalidMeasurementError("Measurement name cannot be empty")
        if measurement.startswith("#"):
            raise InvalidMeasurementError("Measurement name cannot begin with '#'")
        _check_writable("Measurement name", measurement, InvalidMeasurementError)
        if "\0" in measurement:
            raise InvalidMeasurementError("Measurement name cannot contain null characters")
        self.measurement = measurement
        self.tags: OrderedDict[str, str] = OrderedDict()
        self.fields: OrderedDict[str, str] = OrderedDict()
        self._timestamp_ns: Any = None

    def tag(self, key: str, value: Any) -> Self:
        """Set a tag; the value is turned into a string."""
        _check_key(key, "tag")
        self.tags[key] = str(value)
        return self

    def int64_field(self, key: str, value: Any) -> Self:
        """Set a signed integer field."""
        _check_key(key, "field")
        number = _integer(value, f"int64 field '{key}'")
        if not _INT64_MIN <= number <= _INT64_MAX:
            raise ValueError(f"int64 field '{key}' is out of range: {number}")
        self.fields[key] = f"{number}i"
        return self

    def uint64_field(self, key: str, value: Any) -> Self:
        """Set an unsigned integer field."""
        _check_key(key, "field")
        number = _integer(value, f"uint64 field '{key}'")
        if number < 0:
            raise ValueError(f"uint64 field '{key}' cannot be negative")
        if number > _UINT64_MAX:
            raise ValueError(f"uint64 field '{key}' is out of range: {number}")
        self.fields[key] = f"{number}u"
        return self

    def float64_field(self, key: str, value: Any) -> Self:
        """Set a float field."""
        _check_key(key, "field")
        self.fields[key] = _float_text(value, key)
        return self

    def string_field(self, key: str, value: str) -> Self:
        """Set a string field; any text will do."""
        _check_key(key, "field")
        if not isinstance(value, str):
            raise TypeError(
                f"string field '{key}' needs a str, not {type(value).__name__}; use str(value)"
            )
        if _has_surrogates(value):
            raise ValueError(f"string field '{key}' {_SURROGATES}")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        self.fields[key] = f'"{escaped}"'
        return self

    def bool_field(self, key: str, value: Any) -> Self:
        """Set a boolean field by the truth of `value`."""
        _check_key(key, "field")
        self.fields[key] = "t" if value else "f"
        return self

    def time_ns(self, timestamp_ns: Any) -> Self:
        """Set the time in nanoseconds since the epoch."""
        if timestamp_ns is not None:
            number = _integer(timestamp_ns, "the timestamp")
            if not _INT64_MIN <= number <= _INT64_MAX:
                raise ValueError(f"the timestamp is out of range: {number}")
        self._timestamp_ns = timestamp_ns
        return self

    def build(self) -> str:
        """Return the line; raises `InvalidLineError` if there is no field."""
        line = self.measurement.translate(_MEASUREMENT_ESCAPES)
        if self.tags:
            line += "".join(
                f",{_escape(key)}={_tag_value(key, self.tags[key])}" for key in self.tags
            )
        if not self.fields:
            raise InvalidLineError(f"At least one field is required: {line}")
        for key in self.tags.keys() & self.fields.keys():
            raise InvalidLineError(
                f"'{key}' is the key of a tag and of a field; a column can be only one of them"
            )
        line += " " + ",".join(f"{_escape(key)}={text}" for key, text in self.fields.items())
        if self._timestamp_ns is not None:
            line += f" {_integer(self._timestamp_ns, 'the timestamp')}"
        return line


def _check_key(key: str, kind: str) -> None:
    if not isinstance(key, str):
        raise InvalidKeyError(f"{kind} key must be a str, not {type(key).__name__}")
    if not key:
        raise InvalidKeyError(f"{kind} key cannot be empty")
    for character, name in ((" ", "spaces"), (",", "commas"), ("=", "equals signs")):
        if character in key:
            raise InvalidKeyError(f"{kind} key '{key}' cannot contain {name}")
    if key == "time":
        raise InvalidKeyError(
            f"{kind} key cannot be 'time', which is the name of the timestamp; use time_ns()"
        )
    _check_writable(f"{kind} key '{key}'", key, InvalidKeyError)


def _check_writable(what: str, text: str, error: type[InfluxDBError]) -> None:
    """Refuse what has no escape in line protocol."""
    if "\n" in text:
        raise error(f"{what} cannot contain newlines")
    if "\t" in text:
        raise error(f"{what} cannot contain tabs")
    if text.endswith("\\"):
        raise error(f"{what} cannot end with a backslash")
    if _has_surrogates(text):
        raise error(f"{what} {_SURROGATES}")


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def _escape(text: str) -> str:
    return text.translate(_ESCAPES)


def _tag_value(key: str, value: str) -> str:
    if not value:
        raise InvalidLineError(f"tag '{key}' has an empty value; leave the tag out instead")
    _check_writable(f"the value of tag '{key}'", value, InvalidLineError)
    return _escape(value)


def _integer(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        pass
    # The 3.10 builder pasted the text of whatever it got, so digits in a string worked.
    if isinstance(value, str) and _DECIMAL_INTEGER.fullmatch(value):
        return int(value)
    if type(value).__name__ in ("bool", "bool_"):  # numpy's has no __index__
        return int(bool(value))
    raise TypeError(f"{what} needs an integer, not {value!r} ({type(value).__name__})")


def _float_text(value: Any, key: str) -> str:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"float64 field '{key}' needs a number, not {value!r}; use float(value)")
    try:
        number = float(value)
    except (TypeError, ValueError):
        name = type(value).__name__
        raise TypeError(f"float64 field '{key}' needs a number, not {name}") from None
    except OverflowError:
        raise ValueError(f"float64 field '{key}' is out of range") from None
    if not math.isfinite(number):
        raise ValueError(f"float64 field '{key}' cannot be {number}")
    if number.is_integer():
        sign = "-" if math.copysign(1.0, number) < 0 else ""
        return f"{sign}{abs(int(number))}.0"
    if type(value).__module__ == "numpy":
        # numpy.float32(0.1) is 0.1 to its user, not 0.10000000149011612.
        return str(value)
    return repr(number)
