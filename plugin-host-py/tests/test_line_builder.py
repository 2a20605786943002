"""Does every line parse back to what the plugin said?"""

from __future__ import annotations

import decimal
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from reference_parser import parse_line

from outrigger_plugin_host import (
    InfluxDBError,
    InvalidKeyError,
    InvalidLineError,
    InvalidMeasurementError,
    LineBuilder,
)


def test_a_line_is_built_in_the_order_of_the_calls() -> None:
    line = LineBuilder("m.x").tag("b", 1).tag("a", "x y,=\\z").int64_field("i", 5)
    line.uint64_field("u", 6).float64_field("f", 2).float64_field("g", 1e-07).bool_field("t", 1)
    line.string_field("s", 'a"\\b').tag("b", 2).time_ns(17)
    expected = r'm.x,b=2,a=x\ y\,\=\\z i=5i,u=6u,f=2.0,g=1e-07,t=t,s="a\"\\b" 17'
    assert line.build() == expected
    assert line.build() == expected
    assert list(line.tags) == ["b", "a"]
    assert line.fields["i"] == "5i"
    assert line._timestamp_ns == 17  # noqa: SLF001 - plugins read it


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: LineBuilder("a b"),
            InvalidMeasurementError,
            "Measurement name cannot contain spaces",
        ),
        (lambda: LineBuilder("#a"), InvalidMeasurementError, None),
        (lambda: LineBuilder(""), InvalidMeasurementError, None),
        (lambda: LineBuilder("a\nb"), InvalidMeasurementError, None),
        (lambda: LineBuilder("m").tag("", 1), InvalidKeyError, "tag key cannot be empty"),
        (
            lambda: LineBuilder("m").bool_field("a b", 1),
            InvalidKeyError,
            "field key 'a b' cannot contain spaces",
        ),
        (lambda: LineBuilder("m").tag("a=b", 1), InvalidKeyError, None),
        (
            lambda: LineBuilder("m").tag("time", 1),
            InvalidKeyError,
            "tag key cannot be 'time', which is the name of the timestamp; use time_ns()",
        ),
        (lambda: LineBuilder("m").int64_field("time", 1), InvalidKeyError, None),
        (
            lambda: LineBuilder("m").tag("k", 1).tag("j", 1).int64_field("k", 2).build(),
            InvalidLineError,
            "'k' is the key of a tag and of a field; a column can be only one of them",
        ),
        (
            lambda: LineBuilder("m").string_field("k", "a\ud800"),
            ValueError,
            "string field 'k' holds a lone surrogate, which UTF-8 cannot say",
        ),
        (
            lambda: LineBuilder("m").tag("k", "\ud800").int64_field("a", 1).build(),
            InvalidLineError,
            "the value of tag 'k' holds a lone surrogate, which UTF-8 cannot say",
        ),
        (lambda: LineBuilder("m\ud800"), InvalidMeasurementError, None),
        (lambda: LineBuilder("m").tag("k\ud800", 1), InvalidKeyError, None),
        (
            lambda: LineBuilder("m").tag("k", "v").build(),
            InvalidLineError,
            "At least one field is required: m,k=v",
        ),
        (
            lambda: LineBuilder("m").tag("k", "").int64_field("a", 1).build(),
            InvalidLineError,
            "tag 'k' has an empty value; leave the tag out instead",
        ),
        (
            lambda: LineBuilder("m").tag("k", "a\n").int64_field("a", 1).build(),
            InvalidLineError,
            None,
        ),
        (
            lambda: LineBuilder("m").uint64_field("k", -1),
            ValueError,
            "uint64 field 'k' cannot be negative",
        ),
        (lambda: LineBuilder("m").int64_field("k", 2**63), ValueError, None),
        (lambda: LineBuilder("m").int64_field("k", 1.5), TypeError, None),
        (lambda: LineBuilder("m").int64_field("k", "x"), TypeError, None),
        (
            lambda: LineBuilder("m").float64_field("k", float("nan")),
            ValueError,
            "float64 field 'k' cannot be nan",
        ),
        (lambda: LineBuilder("m").float64_field("k", "1.5"), TypeError, None),
        (lambda: LineBuilder("m").float64_field("k", 10**400), ValueError, None),
        (lambda: LineBuilder("m").string_field("k", 1), TypeError, None),  # type: ignore[arg-type]
        (lambda: LineBuilder("m").time_ns(1.5), TypeError, None),
    ],
)
def test_what_cannot_be_written_is_refused(
    call: Any, error: type[Exception], message: str | None
) -> None:
    with pytest.raises(error) as caught:
        call()
    if message is not None:
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "1i"), (np.int32(7), "7i"), (np.True_, "1i"), ("42", "42i"), (np.uint8(3), "3i")],
)
def test_integers_of_every_kind_are_accepted(value: Any, text: str) -> None:
    assert LineBuilder("m").int64_field("k", value).fields["k"] == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3.0"),
        (-0.0, "-0.0"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (decimal.Decimal("1E-10"), "1e-10"),
        (True, "1.0"),
    ],
)
def test_floats_of_every_kind_are_accepted(value: Any, text: str) -> None:
    assert LineBuilder("m").float64_field("k", value).fields["k"] == text


# Mostly the characters that matter to the grammar.
text = st.text(st.sampled_from('ab\\"=, \t\n#\0é') | st.characters(exclude_categories=["Cs"]))
field = st.one_of(
    st.tuples(st.just("int64_field"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("uint64_field"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("float64_field"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("string_field"), text),
    st.tuples(st.just("bool_field"), st.booleans()),
)


@hypothesis.settings(
    deadline=None,
    max_examples=500,
    # Most random text cannot be a key; that is what is tested, not a mistake of the test.
    suppress_health_check=[hypothesis.HealthCheck.filter_too_much],
)
@hypothesis.given(
    text,
    st.dictionaries(text, text, max_size=3),
    st.dictionaries(text, field, min_size=1, max_size=3),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)
def test_every_line_that_builds_parses_back(
    measurement: str, tags: dict[str, str], fields: dict[str, Any], time: int | None
) -> None:
    try:
        line = LineBuilder(measurement).time_ns(time)
        for key, value in tags.items():
            line.tag(key, value)
        for key, (method, value) in fields.items():
            getattr(line, method)(key, value)
        built = line.build()
    except (InfluxDBError, ValueError):
        hypothesis.reject()
    values = {key: value for key, (_, value) in fields.items()}
    assert parse_line(built) == (measurement, tags, values, time)
