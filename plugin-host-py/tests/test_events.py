"""Does a plugin get scheduled calls and requests as it expects them?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fake_server import FakeServer

LINE = "influxdb3_local.write(LineBuilder('m').int64_field('v', 1))"


def scheduled(*lines: str) -> str:
    # The name of the parameter is the plugin's choice, and there is no default.
    return function("process_scheduled_call(influxdb3_local, when, arguments)", lines)


def requested(*lines: str) -> str:
    return function("process_request(influxdb3_local, query, headers, body, args)", lines)


def function(signature: str, lines: tuple[str, ...]) -> str:
    return f"def {signature}:\n" + "".join(f"    {line}\n" for line in lines)


def texts(messages: list[Any]) -> list[str]:
    return [message.text for message in messages if message.DESCRIPTOR.name == "Log"]


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (1_767_225_600_999_999_999, "datetime.datetime(2026, 1, 1, 0, 0)"),
        (0, "datetime.datetime(1970, 1, 1, 0, 0)"),
        (-1, "datetime.datetime(1969, 12, 31, 23, 59, 59)"),
    ],
)
def test_a_scheduled_call_gets_a_naive_time_in_utc(
    server: FakeServer, time_ns: int, expected: str
) -> None:
    server.bind(scheduled("influxdb3_local.info(repr(when), arguments)", LINE, "return 'ignored'"))
    completed, before = server.schedule(time_ns)
    assert completed.WhichOneof("outcome") == "ok", completed
    assert not completed.ok.HasField("response")
    assert texts(before) == [f"{expected} None"]
    assert before[1].text == b"m v=1i"


def test_a_request_arrives_in_plain_types_that_are_the_plugins_own(server: FakeServer) -> None:
    source = requested(
        "influxdb3_local.info(query, headers, body, args)",
        "influxdb3_local.info([type(x).__name__ for x in (query, headers, body, args)])",
        "query['new'] = headers['new'] = args['new'] = 'x'",
        LINE,
        "return {'status': 'fine'}",
    )
    server.bind(source, {"a": "b"})
    for _ in range(2):
        completed, before = server.request(query={"q": "ä"}, headers={"h": "1"}, body=b"\xff")
        assert texts(before) == [
            "{'q': 'ä'} {'h': '1'} b'\\xff' {'a': 'b'}",
            "['dict', 'dict', 'bytes', 'dict']",
        ]
        assert before[2].text == b"m v=1i"
        response = completed.ok.response
        assert (response.status, response.body) == (200, b'{"status": "fine"}')
        assert [(h.name, h.value) for h in response.headers] == [
            ("Content-Type", "application/json")
        ]


def test_an_empty_request_is_empty(server: FakeServer) -> None:
    server.bind(requested("influxdb3_local.info(query, headers, body, args)", "return ''"))
    completed, before = server.request()
    assert texts(before) == ["{} {} b'' None"]
    assert completed.ok.response.status == 200


@pytest.mark.parametrize(
    ("event", "name", "parameters"),
    [
        ("schedule", "process_scheduled_call", "influxdb3_local, call_time, args=None"),
        ("persisted", "process_persisted", "influxdb3_local, files, args=None"),
        (
            "request",
            "process_request",
            "influxdb3_local, query_parameters, request_headers, request_body, args=None",
        ),
    ],
)
def test_a_missing_entry_point_is_explained(
    server: FakeServer, event: str, name: str, parameters: str
) -> None:
    server.bind("x = 1\n")
    events = {"schedule": lambda: server.schedule(0), "persisted": server.persisted}
    completed, _ = events.get(event, server.request)()
    assert completed.error.message == (
        f"the {name} function is not present in the plugin. "
        f"Should be defined as: {name}({parameters})"
    )


def test_one_file_serves_every_kind_of_event(server: FakeServer) -> None:
    source = function("process_writes(influxdb3_local, batches, args)", ("pass",))
    server.bind(source + scheduled("pass") + requested("return 'x'"))
    assert server.invoke()[0].WhichOneof("outcome") == "ok"
    assert server.schedule(0)[0].WhichOneof("outcome") == "ok"
    assert server.request()[0].ok.response.body == b"x"
    assert server.drain() == 0


def test_a_generator_runs_inside_the_invocation(server: FakeServer) -> None:
    server.bind(requested("yield 'a'", LINE, "influxdb3_local.info('on')", "yield b'b'"))
    completed, before = server.request()
    assert completed.ok.response.body == b"ab"
    assert texts(before) == ["on"]
    assert before[1].text == b"m v=1i"


def test_what_a_generator_raises_is_the_plugins_failure(server: FakeServer) -> None:
    server.bind(requested("yield 'a'", LINE, "raise ValueError('no')"))
    completed, before = server.request()
    assert (completed.error.type, completed.error.message) == ("ValueError", "no")
    assert 'File "plugin.py", line 4, in process_request' in completed.error.traceback
    assert "outrigger_plugin_host" not in completed.error.traceback
    assert before == []


def test_a_generator_can_be_cancelled(server: FakeServer) -> None:
    server.bind(
        requested("yield 'a'", "influxdb3_local.info('on')", "import time", "time.sleep(600)")
    )
    name = server.start_event(request={})
    server.next()
    server.send(cancel={"invocation": name})
    assert server.finish()[0].error.type == "KeyboardInterrupt"


def test_a_value_that_is_no_response_is_the_plugins_failure(server: FakeServer) -> None:
    server.bind(requested(LINE, "return None"))
    completed, before = server.request()
    assert completed.error.type == "TypeError"
    assert completed.error.message == "Unsupported return type from Python function"
    assert completed.error.traceback == f"TypeError: {completed.error.message}\n"
    # What it had buffered does not count.
    assert before == []
    server.bind(requested("return {'a': object()}"))
    completed, _ = server.request()
    assert completed.error.message == "Object of type object is not JSON serializable"


def test_text_that_is_no_unicode_is_the_plugins_failure(server: FakeServer) -> None:
    server.bind(requested("return 'x', {'A': '\\udc80'}"))
    assert server.request()[0].error.type == "UnicodeEncodeError"
    assert server.drain() == 0
