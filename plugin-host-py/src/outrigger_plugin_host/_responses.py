"""Which HTTP response does a request plugin's return value stand for?

InfluxDB 3's forms in its order of checking, and beside them `bytes`, its alpha's tuple
`(status, headers, body)`, and Flask's own response objects. Iterables are read here, so what a
generator raises is the plugin's failure; nothing is streamed.
"""

from __future__ import annotations

import json
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _messages as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BODY_BYTES_MAX = 12 * 1024 * 1024
HEADERS_BYTES_MAX = 64 * 1024
HEADERS_MAX = 999
STATUS_MIN, STATUS_MAX = 200, 999
"""Below are the interim ones (100 to 199), which announce a response and are none."""

_HEADER_OVERHEAD_BYTES = len(": \r\n")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_HTML, _JSON, _PLAIN = "text/html", "application/json", "text/plain"
_BINARY = "application/octet-stream"
_BYTES = (bytes, bytearray, memoryview)
_TUPLE_LENGTH_MAX = 3
_OK = 200
_FAILED = 500
_INTERIM = range(100, 200)
_UINT16 = range(1 << 16)

_Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Body:
    """A body and the content type that it has unless a header says otherwise."""

    text: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the plugin wants to answer; the headers are a mapping or pairs, the status anything."""

    status: Any
    headers: Any
    body: _Body


def response(returned: Any, warn: Callable[[str], None]) -> Any:
    """Turn what `process_request` returned into a Response; raises if it stands for none.

    `warn` is told what cannot be sent as it is, and what is sent instead.
    """
    answer = _answer(returned)
    body = answer.body
    _check_body(len(body.text))
    headers = _pairs(answer.headers, warn)
    if body.content_type is not None and all(name.lower() != "content-type" for name, _ in headers):
        headers = [("Content-Type", body.content_type), *headers]
    return pb.Response(
        status=_sent_status(answer.status, warn),
        headers=[{"name": name, "value": value} for name, value in headers],
        body=body.text,
    )


def _answer(returned: Any) -> _Answer:
    if _is_flask_response(returned):
        return _from_flask(returned)
    if isinstance(returned, tuple) and 1 <= len(returned) <= _TUPLE_LENGTH_MAX:
        return _from_tuple(returned)
    body = _plain_body(returned)
    if body is None:
        if _looks_like_a_flask_response(returned):
            return _from_flask(returned)
        body = _joined(returned)
    return _Answer(_OK, (), body)


def _is_flask_response(returned: Any) -> bool:
    """Whether it says so itself, as InfluxDB 3 asks."""
    claim = getattr(returned, "__flask_response__", None)
    return callable(claim) and claim() is True


def _looks_like_a_flask_response(returned: Any) -> bool:
    """Whether it can be used as one, as Flask's and Werkzeug's own can."""
    return (
        hasattr(returned, "status_code")
        and hasattr(returned, "headers")
        and callable(getattr(returned, "get_data", None))
    )


def _from_flask(returned: Any) -> _Answer:
    text = returned.get_data()
    if isinstance(text, str):
        text = text.encode()
    if not isinstance(text, _BYTES):
        raise TypeError(f"get_data() of a response must return bytes or str, not {_kind(text)}")
    return _Answer(returned.status_code, returned.headers, _Body(bytes(text), None))


def _from_tuple(returned: tuple[Any, ...]) -> _Answer:
    if _is_alpha_order(returned):
        status, headers, value = returned
        return _Answer(status, headers, _tuple_body(value))
    value, second, third = (*returned, None, None)[:_TUPLE_LENGTH_MAX]
    if len(returned) == _TUPLE_LENGTH_MAX and not isinstance(third, dict):
        raise TypeError("expected a dictionary in header item")
    # A second item that is neither is ignored, as InfluxDB 3 does.
    status = second if _is_integer(second) else _OK
    headers = {**(second if isinstance(second, dict) else {}), **(third or {})}
    return _Answer(status, headers, _tuple_body(value))


def _is_alpha_order(returned: tuple[Any, ...]) -> bool:
    if len(returned) != _TUPLE_LENGTH_MAX:
        return False
    status, headers, value = returned
    return (
        isinstance(status, int)
        and not isinstance(status, bool)
        and isinstance(headers, dict)
        and isinstance(value, (str, dict, list, *_BYTES))
    )


def _tuple_body(value: Any) -> _Body:
    return _plain_body(value) or _Body(str(value).encode(), _PLAIN)


def _plain_body(value: Any) -> _Body | None:
    if isinstance(value, str):
        return _Body(value.encode(), _HTML)
    if isinstance(value, (dict, list)):
        return _Body(json.dumps(value).encode(), _JSON)
    if isinstance(value, _BYTES):
        return _Body(bytes(value), _BINARY)
    return None


def _joined(returned: Any) -> _Body:
    """Put the texts of an iterable together; items of other types are skipped."""
    text = bytearray()
    for item in _items(returned):
        if isinstance(item, str):
            text += item.encode()
        elif isinstance(item, _BYTES):
            text += item
        # Checked here too, since a generator may have no end.
        _check_body(len(text))
    return _Body(bytes(text), _HTML)


def _items(returned: Any) -> Iterable[Any]:
    try:
        items: Iterable[Any] = iter(returned)
    except TypeError as error:
        # Raised in an __iter__ of the plugin's it says something else, and has that frame.
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
    else:
        return items
    raise TypeError("Unsupported return type from Python function")


def _sent_status(status: Any, warn: Callable[[str], None]) -> int:
    if not _is_integer(status):
        raise TypeError(f"the status of a response must be an int, not {_kind(status)}")
    number = operator.index(status)
    if STATUS_MIN <= number <= STATUS_MAX:
        return number
    wrong = f"the status of a response must be from {STATUS_MIN} to {STATUS_MAX}, not {number}"
    if number in _INTERIM or number not in _UINT16:
        raise ValueError(wrong)
    # As InfluxDB 3 does: the body is of use to whoever looks for the mistake.
    warn(f"{wrong}; {_FAILED} is sent with the plugin's headers and body")
    return _FAILED


def _is_integer(value: Any) -> bool:
    """Whether it counts as an int; numpy's integers do, and so does a bool."""
    return hasattr(type(value), "__index__")


def _pairs(headers: Any, warn: Callable[[str], None]) -> _Headers:
    """Check headers given as a mapping or as pairs; the same name may be there twice."""
    items = getattr(headers, "items", None)
    pairs: _Headers = []
    total = 0
    for item in items() if callable(items) else headers:
        name, value = _sent_header(item, warn)
        total += len(name.encode()) + len(value.encode()) + _HEADER_OVERHEAD_BYTES
        if total > HEADERS_BYTES_MAX:
            raise ValueError(
                f"the headers of a response can have {HEADERS_BYTES_MAX} bytes at most"
            )
        pairs.append((name, value))
        if len(pairs) > HEADERS_MAX:
            raise ValueError(f"a response can have {HEADERS_MAX} headers at most")
    return pairs


def _sent_header(item: Any, warn: Callable[[str], None]) -> tuple[str, str]:
    name, value = item
    if not isinstance(name, str):
        raise TypeError(f"the name of a header must be a str, not {_kind(name)}")
    if not isinstance(value, str):
        raise TypeError(f"the value of header {name!r} must be a str, not {_kind(value)}")
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a header")
    if not _HEADER_VALUE.fullmatch(value):
        warn(
            f"the value of header {name!r} cannot contain line breaks or other control "
            f"characters: {value!r}; the header is sent empty"
        )
        return name, ""
    return name, value


def _check_body(size: int) -> None:
    if size > BODY_BYTES_MAX:
        raise ValueError(f"the body of a response can have {BODY_BYTES_MAX} bytes (12 MiB) at most")


def _kind(value: Any) -> str:
    return type(value).__name__
