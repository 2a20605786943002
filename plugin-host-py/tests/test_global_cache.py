"""Does a plugin reach the server's cache, and does it hear of what goes wrong?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from test_worker import check_error, plugin, run

from outrigger_plugin_host._shared_values import decode, encode

if TYPE_CHECKING:
    from fake_server import FakeServer


def logs(server: FakeServer, *lines: str) -> list[str]:
    completed, before = run(server, *lines)
    assert completed.WhichOneof("outcome") == "ok", completed
    return [message.text for message in before]


def test_values_go_to_the_server_and_copies_come_back(server: FakeServer) -> None:
    said = logs(
        server,
        "cache = influxdb3_local.cache",
        "value = {'a': [1]}",
        "cache.put('k', value, 2.5, True)",
        "value['a'].append(2)",
        "influxdb3_local.info(cache.get('k', use_global=True), cache.get('k'))",
        "influxdb3_local.info(cache.get('none', 'absent', True))",
        "cache.put('empty', None, use_global=True)",
        "influxdb3_local.info(cache.get('empty', 'absent', True))",
        "influxdb3_local.info(cache.delete('k', True), cache.delete('k', use_global=True))",
    )
    assert said == ["{'a': [1]} None", "absent", "None", "True False"]
    put = server.cache_requests[0]
    assert (put.invocation, put.key, put.name) == ("i1", b"k" * 16, "k")
    assert decode(put.value) == {"a": [1]}
    assert put.ttl_s == 2.5
    assert not server.cache_requests[3].HasField("ttl_s")


def check_raises(server: FakeServer, line: str, kind: str, message: str) -> None:
    completed, _ = run(server, "cache = influxdb3_local.cache", line)
    check_error(completed, kind, message)


def test_the_server_says_why_it_refuses(server: FakeServer) -> None:
    server.cache_answer = "the global cache is full"
    check_raises(
        server,
        "cache.put('k', 1, use_global=True)",
        "CacheError",
        "the value of 'k' was not stored: the global cache is full",
    )
    check_raises(
        server,
        "cache.get('forbidden', use_global=True)",
        "CacheError",
        "the global cache cannot be used: not running here",
    )


def test_what_another_worker_has_made_up_is_an_error_and_no_value(server: FakeServer) -> None:
    server.cache["k"] = b"\1n" + encode("no array")
    completed, _ = run(server, "influxdb3_local.cache.get('k', use_global=True)")
    assert completed.error.type == "CacheError"
    assert completed.error.message.startswith(
        "the value of 'k' in the global cache cannot be read: "
    )


def test_bad_calls_do_not_reach_the_server(server: FakeServer) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("cache.put('k', print, use_global=True)", "TypeError", "of type builtin_function"),
        ("cache.put('k', 1, -1, True)", "ValueError", "ttl cannot be negative or NaN: -1"),
        ("cache.put('k' * 1025, 1, None, True)", "ValueError", "1024 bytes, not 1025"),
        ("cache.get('\\ud800', use_global=True)", "ValueError", "must be valid Unicode"),
        ("cache.delete(5, True)", "TypeError", "a cache key must be a str, not int"),
    ]
    for line, kind, part in calls:
        completed, _ = run(server, "cache = influxdb3_local.cache", line)
        assert completed.error.type == kind
        assert part in completed.error.message
    assert server.cache_requests == []


def test_a_thread_that_outlives_its_run_cannot_use_it(server: FakeServer) -> None:
    source = "import threading\n" + plugin(
        "kept = influxdb3_local.cache.get('kept')",
        "if kept is None:",
        "    influxdb3_local.cache.put('kept', influxdb3_local.cache)",
        "    influxdb3_local.cache.put('own', 5)",
        "else:",
        "    influxdb3_local.info(kept.get('own'))",
        "    kept.get('k', use_global=True)",
    )
    server.bind(source)
    server.invoke()
    completed, before = server.invoke()
    assert before[0].text == "5"
    assert completed.error.type == "RunEndedError"
    assert server.cache_requests == []
