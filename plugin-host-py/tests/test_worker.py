"""Does a worker follow the protocol, and does a plugin see what it expects?"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from fake_server import DEADLINE_S, TRACE_PARENT

from outrigger_plugin_host import _plugin

if TYPE_CHECKING:
    from fake_server import FakeServer

PRELUDE = "def process_writes(influxdb3_local, table_batches, args):\n"


def plugin(*lines: str) -> str:
    return PRELUDE + "".join(f"    {line}\n" for line in lines)


def run(server: FakeServer, *lines: str) -> tuple[Any, list[Any]]:
    assert server.bind(plugin(*lines)).revision == "r1"
    return server.invoke()


def check_error(completed: Any, kind: str, message: str) -> None:
    assert completed.WhichOneof("outcome") == "error"
    assert (completed.error.type, completed.error.message) == (kind, message)


def test_logs_lines_and_completion_arrive_in_order(server: FakeServer) -> None:
    completed, before = run(
        server,
        "influxdb3_local.info('text', {'a': 1})",
        "influxdb3_local.write(LineBuilder('m').int64_field('v', 1))",
        "influxdb3_local.write_to_db('other', LineBuilder('n').int64_field('v', 2))",
        "influxdb3_local.warn()",
        "influxdb3_local.error(args)",
    )
    assert completed.WhichOneof("outcome") == "ok"
    logs = [(m.level, m.text) for m in before if m.DESCRIPTOR.name == "Log"]
    assert logs == [(1, "text {'a': 1}"), (2, ""), (3, "None")]
    lines = [(m.target, m.text) for m in before if m.DESCRIPTOR.name == "Lines"]
    assert lines == [("", b"m v=1i"), ("other", b"n v=2i")]
    assert server.drain() == 0


def test_a_plugin_can_pass_its_trace_on(server: FakeServer) -> None:
    _, before = run(server, "influxdb3_local.info(influxdb3_local.trace_parent)")
    assert before[0].text == TRACE_PARENT


def test_each_run_has_fresh_globals_and_fresh_arguments(server: FakeServer) -> None:
    source = "runs = []\n" + plugin(
        "runs.append(1)",
        "args['seen'] = 'x' if 'seen' not in args else 'again'",
        "influxdb3_local.info(len(runs), args, '__file__' in globals(), __name__)",
    )
    server.bind(source, {"a": "b"})
    for _ in range(2):
        _, before = server.invoke()
        assert before[0].text == "1 {'a': 'b', 'seen': 'x'} False builtins"


def test_a_dataclass_with_postponed_annotations_works(server: FakeServer) -> None:
    source = (
        "from __future__ import annotations\nimport dataclasses\nfrom __main__ import "
        "InvalidLineError\n@dataclasses.dataclass\nclass A:\n    x: int\n"
        "def helper() -> list[LineBuilder]: ...\n"
    )
    server.bind(source + plugin("influxdb3_local.info(A(1))"))
    _, before = server.invoke()
    assert before[0].text == "A(x=1)"


def test_the_cache_keeps_the_object_itself(server: FakeServer) -> None:
    server.bind(
        plugin(
            "found = influxdb3_local.cache.get('k', default=None)",
            "if found is None:",
            "    influxdb3_local.cache.put('k', found := [])",
            "found.append(1)",
            "influxdb3_local.info(found)",
        )
    )
    assert server.invoke()[1][0].text == "[1]"
    assert server.invoke()[1][0].text == "[1, 1]"


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("raise ValueError('no')", "ValueError", "no"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise GeneratorExit('g')", "GeneratorExit", "g"),
    ],
)
def test_no_exception_ends_the_worker(
    server: FakeServer, statement: str, kind: str, message: str
) -> None:
    for _ in range(2):
        completed, _ = run(server, statement)
        check_error(completed, kind, message)
        first, frame, source, *_ = completed.error.traceback.splitlines()
        assert first.startswith("Traceback")
        assert frame == '  File "plugin.py", line 2, in process_writes'
        assert source.strip() == statement
        assert "outrigger_plugin_host" not in completed.error.traceback
    assert server.drain() == 0


def test_a_missing_entry_point_is_explained(server: FakeServer) -> None:
    server.bind("x = 1\n")
    completed, _ = server.invoke()
    assert completed.error.message == (
        "the process_writes function is not present in the plugin. Should be defined as: "
        "process_writes(influxdb3_local, table_batches, args=None)"
    )


def test_a_source_that_does_not_compile_leaves_the_last_good_one(server: FakeServer) -> None:
    server.bind(plugin("influxdb3_local.info('good')"))
    failed = server.bind("def broken(:\n", revision="r2")
    assert (failed.revision, failed.error.type) == ("r2", "SyntaxError")
    assert "def broken(:" in failed.error.traceback
    assert server.invoke()[1][0].text == "good"
    ready = server.bind(plugin("influxdb3_local.info('better')"), revision="r3")
    assert ready.revision == "r3"
    assert server.invoke()[1][0].text == "better"


def test_cancel_interrupts_the_plugin(server: FakeServer) -> None:
    server.bind(plugin("influxdb3_local.info('on')", "import time", "time.sleep(600)"))
    name = server.start_invocation()
    assert server.next().text == "on"
    server.send(cancel={"invocation": "another"})
    server.send(cancel={"invocation": name})
    completed, _ = server.finish()
    check_error(completed, "KeyboardInterrupt", "")


def test_cancel_interrupts_asyncio_and_queries(server: FakeServer) -> None:
    server.bind(
        "import asyncio\n" + plugin("influxdb3_local.info('on')", "asyncio.run(asyncio.sleep(600))")
    )
    name = server.start_invocation()
    server.next()
    server.send(cancel={"invocation": name})
    check_error(server.finish()[0], "KeyboardInterrupt", "")

    entered = _blocking_query(server)
    server.bind(plugin("influxdb3_local.query('SELECT 1')"))
    name = server.start_invocation()
    assert entered.wait(DEADLINE_S)
    server.send(cancel={"invocation": name})
    check_error(server.finish()[0], "KeyboardInterrupt", "")
    server.release.set()


def _blocking_query(server: FakeServer) -> Any:
    entered = threading.Event()

    def answer(_: Any) -> pa.Table:
        entered.set()
        server.release.wait(DEADLINE_S)
        return pa.table({"a": [1]})

    server.flight.answer = answer
    return entered


def test_cancel_breaks_nothing_wherever_it_strikes(server: FakeServer) -> None:
    line = "LineBuilder('m').int64_field('v', 1)"
    server.bind(
        plugin(
            "while True:",
            "    influxdb3_local.info('on')",
            f"    influxdb3_local.write({line})",
            f"    influxdb3_local.write_sync({line})",
        )
    )
    for _ in range(50):
        name = server.start_invocation()
        server.next()
        server.send(cancel={"invocation": name})
        completed, _ = server.finish()
        assert completed.error.type == "KeyboardInterrupt", completed
    assert server.drain() == 0


def test_a_late_cancel_does_nothing(server: FakeServer) -> None:
    server.bind(plugin("influxdb3_local.info('on')"))
    for _ in range(20):
        name = server.start_invocation()
        server.finish()
        server.send(cancel={"invocation": name})
    completed, _ = server.invoke()
    assert completed.WhichOneof("outcome") == "ok"
    assert server.drain() == 0


def test_rows_are_fetched_only_when_touched(server: FakeServer) -> None:
    server.flight.answer = lambda _: pa.table({"t": ["a", None], "time": [1, 2]})
    server.bind(
        plugin(
            "names = [b['table_name'] for b in table_batches]",
            "influxdb3_local.info(names, table_batches[0].row_count)",
            "influxdb3_local.info(table_batches[1]['rows'])",
        )
    )
    _, before = server.invoke(("x", 9), ("y", 2))
    texts = [m.text for m in before]
    assert texts == ["['x', 'y'] 9", "[{'t': 'a', 'time': 1}, {'time': 2}]"]
    (ticket,) = server.flight.tickets
    assert (ticket.invocation, ticket.key, ticket.batch) == ("i1", b"k" * 16, 1)


def test_a_query_sends_its_parameters_and_returns_rows(server: FakeServer) -> None:
    server.flight.answer = lambda _: pa.table({"a": [1, None]})
    completed, before = run(
        server,
        "rows = influxdb3_local.query('SELECT $p', {'p': 'x', 'q': 2.5}, database='d')",
        "influxdb3_local.info(rows, influxdb3_local.query_arrow('SELECT 2').num_rows)",
    )
    assert completed.WhichOneof("outcome") == "ok", completed
    assert before[0].text == "[{'a': 1}, {'a': None}] 2"
    query = server.flight.tickets[0].query
    assert (query.sql, query.target) == ("SELECT $p", "d")
    assert query.parameters["p"].text == "x"
    assert query.parameters["q"].float == 2.5


def test_a_failed_query_raises_the_servers_words(server: FakeServer) -> None:
    def refuse(_: Any) -> pa.Table:
        raise pa.ArrowInvalid("table 'x' not found, with message: none. Really")

    server.flight.answer = refuse
    completed, _ = run(
        server,
        "from outrigger_plugin_host import QueryError",
        "try:",
        "    influxdb3_local.query('SELECT')",
        "except QueryError as error:",
        "    raise RuntimeError(str(error))",
    )
    check_error(completed, "RuntimeError", "table 'x' not found, with message: none. Really")


def test_write_sync_says_how_much_it_takes(server: FakeServer) -> None:
    line = "type('L', (), {'build': lambda self: 'm f=1\\n' * 3_000_000})()"
    completed, _ = run(server, f"influxdb3_local.write_sync({line}, no_sync=True)")
    check_error(
        completed,
        "WriteError",
        "error writing line protocol to the plugin's own database: "
        "18000000 bytes in one call; at most 16711680 are taken: divide the lines",
    )


def test_write_sync_reports_the_reason(server: FakeServer) -> None:
    line = "LineBuilder('m').int64_field('v', 1)"
    completed, _ = run(server, f"influxdb3_local.write_sync({line}, no_sync=True)")
    assert completed.WhichOneof("outcome") == "ok"
    (write,) = server.writes
    assert (write.text, write.target, write.no_sync) == (b"m v=1i", "", True)
    server.write_answer = "error writing line protocol to d: Cannot write: disk full"
    completed, _ = run(server, f"influxdb3_local.write_sync_to_db('d', {line})")
    check_error(completed, "WriteError", server.write_answer)


def test_the_output_of_a_run_is_limited(server: FakeServer) -> None:
    server.bind(plugin("while True: influxdb3_local.write(LineBuilder('m').int64_field('v', 1))"))
    completed, before = server.invoke(lines_bytes_max=600_000)
    assert completed.error.type == "LinesLimitError"
    assert "600000 bytes" in completed.error.message
    assert all(len(m.text) <= 256 * 1024 for m in before)


def test_a_write_without_build_is_a_type_error(server: FakeServer) -> None:
    completed, _ = run(server, "influxdb3_local.write('m v=1i')")
    check_error(
        completed, "TypeError", "only objects with a build() method can be written, not str"
    )


def test_threads_may_log_but_not_beyond_their_run(server: FakeServer) -> None:
    source = "import threading\n" + plugin(
        "keep = influxdb3_local.cache",
        "late = keep.get('late')",
        "if late:",
        "    late[0].set(); late[1].join()",
        "    influxdb3_local.info(late[2][0])",
        "    return",
        "threads = [threading.Thread(target=influxdb3_local.info, args=(i,)) for i in range(50)]",
        "[t.start() for t in threads]; [t.join() for t in threads]",
        "go, said = threading.Event(), []",
        "def outlive():",
        "    go.wait()",
        "    try: influxdb3_local.info('late')",
        "    except Exception as error: said.append(type(error).__name__)",
        "thread = threading.Thread(target=outlive, daemon=True); thread.start()",
        "keep.put('late', (go, thread, said))",
    )
    server.bind(source)
    _, before = server.invoke()
    assert sorted(int(m.text) for m in before) == list(range(50))
    assert server.invoke()[1][0].text == "RunEndedError"


def test_a_long_log_line_and_traceback_are_cut(server: FakeServer) -> None:
    completed, before = run(
        server, "influxdb3_local.info('é' * 100_000)", "raise ValueError('x' * 1_000_000)"
    )
    assert len(before[0].text.encode()) <= 64 * 1024
    assert before[0].text.endswith("longer than 64 KiB]")
    assert len(completed.error.message.encode()) <= _plugin.MESSAGE_BYTES_MAX
    assert len(completed.error.traceback.encode()) <= _plugin.TRACEBACK_BYTES_MAX


def test_the_end_of_the_stream_ends_the_worker(server: FakeServer) -> None:
    assert server.process is not None
    server.end_stream()
    assert server.process.wait(DEADLINE_S) == 0


def test_a_broken_stream_ends_a_busy_worker_with_an_error(server: FakeServer) -> None:
    server.bind(plugin("influxdb3_local.info('on')", "import time", "time.sleep(600)"))
    server.start_invocation()
    server.next()
    server.stop_abruptly()
    assert server.process is not None
    assert server.process.wait(DEADLINE_S) == 70
    assert server.process.stderr is not None
    assert "the connection to the server broke" in server.process.stderr.read()


def test_an_invocation_before_bind_ends_the_worker(server: FakeServer) -> None:
    server.start_invocation()
    assert server.process is not None
    assert server.process.wait(DEADLINE_S) == 70
