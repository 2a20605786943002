"""Does every form that a request plugin may return become the response it stands for?"""

from __future__ import annotations

import http
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from outrigger_plugin_host import _responses
from outrigger_plugin_host._responses import BODY_BYTES_MAX, HEADERS_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

HTML = [("Content-Type", "text/html")]
JSON = [("Content-Type", "application/json")]
PLAIN = [("Content-Type", "text/plain")]
BINARY = [("Content-Type", "application/octet-stream")]
UNSUPPORTED = "Unsupported return type from Python function"


def response(returned: Any) -> Any:
    """Turn it into a response about which there is nothing to say."""
    warnings: list[str] = []
    found = _responses.response(returned, warnings.append)
    assert warnings == []
    return found


def response_with_warning(returned: Any) -> tuple[Any, str]:
    warnings: list[str] = []
    found = _responses.response(returned, warnings.append)
    (warning,) = warnings
    return found, warning


def check(
    returned: Any, status: int, headers: list[tuple[str, str]], body: bytes | str = b""
) -> None:
    found = response(returned)
    assert found.status == status
    assert [(header.name, header.value) for header in found.headers] == headers
    assert found.body == (body.encode() if isinstance(body, str) else body)


class FlaskLike:
    """What Flask's and Werkzeug's responses look like from outside."""

    def __init__(self, text: Any = b"x", status: Any = 201, headers: Any = ()) -> None:
        self._text = text
        self.status_code = status
        self.headers = headers

    def get_data(self) -> Any:
        return self._text


class Claiming(FlaskLike):
    """What InfluxDB 3 takes for a Flask response; iterable, to see that this is not used."""

    claim: Any = True

    def __flask_response__(self) -> Any:
        return self.claim

    def __iter__(self) -> Iterator[str]:
        return iter(["iterated"])


class Denying(Claiming):
    claim = False

    get_data = None  # type: ignore[assignment]


class PairHeaders:
    """As werkzeug.datastructures.Headers: items() may repeat a name."""

    def items(self) -> Iterator[tuple[str, str]]:
        yield "Set-Cookie", "a=1"
        yield "Set-Cookie", "b=2"


def test_text_is_html() -> None:
    check("häh", 200, HTML, "häh")
    check("", 200, HTML)


@pytest.mark.parametrize(
    ("returned", "body"),
    [
        ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
        ([], "[]"),
        ({}, "{}"),
        (["ä", 1.5], '["\\u00e4", 1.5]'),
        ([float("nan"), float("inf")], "[NaN, Infinity]"),
    ],
)
def test_dicts_and_lists_are_json_as_python_writes_it(returned: Any, body: str) -> None:
    check(returned, 200, JSON, body)
    check((returned,), 200, JSON, body)


@pytest.mark.parametrize("returned", [b"\xff", bytearray(b"\xff"), memoryview(b"\xff")])
def test_bytes_are_sent_as_they_are(returned: Any) -> None:
    check(returned, 200, BINARY, b"\xff")
    check((returned, 202), 202, BINARY, b"\xff")
    check((returned, {"content-type": "image/png"}), 200, [("content-type", "image/png")], b"\xff")


def test_tuples_have_flasks_order() -> None:
    check(("x",), 200, HTML, "x")
    check(("x", 404), 404, HTML, "x")
    check(("x", {"A": "b"}), 200, [*HTML, ("A", "b")], "x")
    check(("x", 500, {"A": "b"}), 500, [*HTML, ("A", "b")], "x")
    check(({"e": 1}, http.HTTPStatus.CREATED), 201, JSON, '{"e": 1}')
    check(("x", np.int64(404)), 404, HTML, "x")
    check(("x", {"A": "b"}, {"C": "d"}), 200, [*HTML, ("A", "b"), ("C", "d")], "x")


def test_other_bodies_in_a_tuple_are_plain_text() -> None:
    check((None, 204), 204, PLAIN, "None")
    check((1.5,), 200, PLAIN, "1.5")
    check((True, {}, {}), 200, PLAIN, "True")


@pytest.mark.parametrize("second", [None, "404", 404.0, [("A", "b")]])
def test_a_second_item_of_another_type_is_ignored(second: Any) -> None:
    check(("x", second), 200, HTML, "x")
    check(("x", second, {"A": "b"}), 200, [*HTML, ("A", "b")], "x")


@pytest.mark.parametrize(
    ("value", "default", "body"),
    [("x", HTML, "x"), (b"x", BINARY, "x"), ({"a": 1}, JSON, '{"a": 1}'), ([1], JSON, "[1]")],
)
def test_the_alphas_order_is_understood(
    value: Any, default: list[tuple[str, str]], body: str
) -> None:
    check((500, {"A": "b"}, value), 500, [*default, ("A", "b")], body)
    check((500, {}, value), 500, default, body)


def test_a_content_type_of_any_case_replaces_the_default() -> None:
    for name in ("Content-Type", "content-type", "CONTENT-TYPE"):
        check(("x", 200, {name: "text/csv"}), 200, [(name, "text/csv")], "x")
        check((200, {name: "text/csv"}, "x"), 200, [(name, "text/csv")], "x")


@pytest.mark.parametrize("kind", [FlaskLike, Claiming])
def test_flask_responses_are_used(kind: type[FlaskLike]) -> None:
    check(kind(b"\xff", 404, {"A": "b"}), 404, [("A", "b")], b"\xff")
    check(kind("ä", 200, [("A", "b"), ("A", "c")]), 200, [("A", "b"), ("A", "c")], "ä")
    check(kind(headers=PairHeaders()), 201, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], "x")


def test_an_object_that_denies_being_a_flask_response_is_none() -> None:
    check(Denying(), 200, HTML, "iterated")


@pytest.mark.parametrize(
    ("returned", "body"),
    [
        ((text for text in ("a", b"b", "ä")), "abä"),
        (iter(["a", 1, None, bytearray(b"b")]), "ab"),
        ((), ""),
        (("a", "b", "c", "d"), "abcd"),
        ({"a"}, "a"),
        (range(3), ""),
        (types.MappingProxyType({"a": 1}), "a"),
    ],
)
def test_iterables_are_put_together(returned: Any, body: str) -> None:
    check(returned, 200, HTML, body)


class Uniterable:
    def __iter__(self) -> Iterator[str]:
        raise TypeError("from within")


async def coroutine() -> None:
    """Stand for a process_request that is async by mistake."""


@pytest.mark.parametrize(
    "returned", [None, 5, 1.5, True, object(), len, np.float64(1), np.ones(())]
)
def test_other_values_stand_for_no_response(returned: Any) -> None:
    check_error(returned, TypeError, UNSUPPORTED)


def test_a_coroutine_stands_for_no_response() -> None:
    never_awaited = coroutine()
    check_error(never_awaited, TypeError, UNSUPPORTED)
    never_awaited.close()


def check_error(returned: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        response(returned)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (Uniterable(), "from within"),
        ({"a": object()}, "Object of type object is not JSON serializable"),
        (({"a": {1}}, 200), "Object of type set is not JSON serializable"),
        (("x", 200, None), "expected a dictionary in header item"),
        (("x", 200, [("A", "b")]), "expected a dictionary in header item"),
        ((500, {}, None), "expected a dictionary in header item"),
        ((True, {}, "x"), "expected a dictionary in header item"),
        (("x", {"A": 1}), "the value of header 'A' must be a str, not int"),
        ((200, {"A": b"b"}, "x"), "the value of header 'A' must be a str, not bytes"),
        (("x", {1: "a"}), "the name of a header must be a str, not int"),
        (FlaskLike(status="200 OK"), "the status of a response must be an int, not str"),
        (FlaskLike(text=None), "get_data() of a response must return bytes or str, not NoneType"),
    ],
)
def test_a_wrong_type_is_explained(returned: Any, message: str) -> None:
    check_error(returned, TypeError, message)


@pytest.mark.parametrize("status", [100, 101, 103, 199, -1, 1 << 16, 1 << 70])
def test_a_status_that_is_none_or_an_interim_one_is_refused(status: int) -> None:
    message = f"the status of a response must be from 200 to 999, not {status}"
    check_error(("x", status), ValueError, message)
    check_error(FlaskLike(status=status), ValueError, message)


@pytest.mark.parametrize("status", [0, 99, 1000, (1 << 16) - 1, True, False])
def test_a_status_that_http_does_not_know_keeps_headers_and_body(status: int) -> None:
    for returned in (("x", status, {"A": "b"}), FlaskLike("x", status, {"A": "b"})):
        found, warning = response_with_warning(returned)
        assert (found.status, found.body) == (500, b"x")
        assert ("A", "b") in [(header.name, header.value) for header in found.headers]
        assert f"must be from 200 to 999, not {int(status)}; 500 is sent" in warning


@pytest.mark.parametrize("status", [200, 999])
def test_the_outermost_statuses_are_accepted(status: int) -> None:
    check(("x", status), status, HTML, "x")


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "a\r\nB: c", "\x1f", "\x7f"])
def test_headers_cannot_be_smuggled(bad: str) -> None:
    for returned in (("x", {"A": bad}), (200, {"A": bad}, "x"), FlaskLike(headers={"A": bad})):
        found, warning = response_with_warning(returned)
        assert ("A", "") in [(header.name, header.value) for header in found.headers]
        assert repr(bad) in warning
    for returned in (("x", {bad: "b"}), (200, {bad: "b"}, "x"), FlaskLike(headers={bad: "b"})):
        check_error(returned, ValueError, f"{bad!r} cannot be the name of a header")


def test_a_header_may_contain_tabs_and_unicode() -> None:
    check(("x", {"A": "a\tbä€"}), 200, [*HTML, ("A", "a\tbä€")], "x")


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä"])
def test_a_header_needs_a_name_that_http_knows(name: str) -> None:
    check_error(("x", {name: "b"}), ValueError, f"{name!r} cannot be the name of a header")


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(1 << 20)


@pytest.mark.parametrize(
    "returned",
    [
        bytes(BODY_BYTES_MAX + 1),
        "ä" * (BODY_BYTES_MAX // 2 + 1),
        [" " * BODY_BYTES_MAX],
        endless(),
        FlaskLike(bytes(BODY_BYTES_MAX + 1)),
    ],
    ids=["bytes", "str", "json", "generator", "flask"],
)
def test_a_body_has_a_limit(returned: Any) -> None:
    message = "the body of a response can have 12582912 bytes (12 MiB) at most"
    check_error(returned, ValueError, message)


def test_a_body_may_reach_its_limit() -> None:
    assert len(response(bytes(BODY_BYTES_MAX)).body) == BODY_BYTES_MAX


def test_headers_have_a_limit() -> None:
    message = "the headers of a response can have 65536 bytes at most"
    check_error(("x", {"A": "b" * HEADERS_BYTES_MAX}), ValueError, message)
    check_error(("x", {f"a{n}": "b" * 100 for n in range(990)}), ValueError, message)
    message = "a response can have 999 headers at most"
    check_error(("x", {f"a{n}": "" for n in range(20_000)}), ValueError, message)
