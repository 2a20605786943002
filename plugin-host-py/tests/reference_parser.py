"""How does the server read one line?

A port of the parser of the influxdb-line-protocol crate, written without a look at LineBuilder, so
that the two can disagree.
"""

from __future__ import annotations

import re
from typing import Any

_BOUNDARY = " \t\n"
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class RefusedError(Exception):
    """The server would refuse the line."""


def _name(text: str, at: int, stops: str, escapable: str) -> tuple[str, int]:
    result = ""
    start = at
    while at < len(text) and text[at] not in stops:
        if text[at] != "\\":
            result += text[at]
            at += 1
        elif at + 1 < len(text) and text[at + 1] in escapable:
            result += text[at + 1]
            at += 2
        else:
            result += text[at : at + 2]
            at += 2
    if at == start or result.endswith("\\"):
        raise RefusedError(text)
    return result, at


def _expect(text: str, at: int, character: str) -> int:
    if text[at : at + 1] != character:
        raise RefusedError(text)
    return at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    if text[at] == '"':
        result, at = "", at + 1
        while text[at] != '"':
            if text[at] == "\\" and text[at + 1] in '"\\':
                at += 1
            result += text[at]
            at += 1
        return result, at + 1
    end = at
    while end < len(text) and text[end] not in ", ":
        end += 1
    raw = text[at:end]
    if raw in ("t", "f"):
        return raw == "t", end
    if re.fullmatch(r"-?[0-9]+i|[0-9]+u", raw):
        return int(raw[:-1]), end
    if _FLOAT.fullmatch(raw):
        return float(raw), end
    raise RefusedError(text)


def parse_line(text: str) -> tuple[str, dict[str, str], dict[str, Any], int | None]:
    """Return measurement, tags, fields and time of the only line in `text`."""
    if text[0] == "#" or text[0] in _BOUNDARY:
        raise RefusedError(text)
    measurement, at = _name(text, 0, _BOUNDARY + ",\0", ", \\")
    tags: dict[str, str] = {}
    while text[at] == ",":
        key, at = _name(text, at + 1, _BOUNDARY + "=", "\\,= ")
        at = _expect(text, at, "=")
        tags[key], at = _name(text, at, _BOUNDARY + ",", "\\,= ")
    at = _expect(text, at, " ")
    fields: dict[str, Any] = {}
    while True:
        key, at = _name(text, at, _BOUNDARY + "=", "\\,= ")
        at = _expect(text, at, "=")
        fields[key], at = _value(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    if at == len(text):
        return measurement, tags, fields, None
    return measurement, tags, fields, int(text[_expect(text, at, " ") :])
