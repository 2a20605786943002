"""Does a plugin get the files that were committed, and their rows, as it expects them?"""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from outrigger_plugin_host._files import PART_ROWS, PersistedFile

if TYPE_CHECKING:
    from fake_server import FakeServer

FILE = {
    "table": "m",
    "path": "n/dbs/1/1/2026-01-01/00-00/0000000007-5.parquet",
    "size_bytes": 1234,
    "rows": 3,
    "min_time_ns": -5,
    "max_time_ns": 1_767_225_600_999_999_999,
    "reason": "compaction",
    "replaces": ["a.parquet", "b.parquet"],
}
EXPECTED = {
    "table_name": "m",
    "path": FILE["path"],
    "size_bytes": 1234,
    "row_count": 3,
    "min_time": -5,
    "max_time": 1_767_225_600_999_999_999,
    "reason": "compaction",
    "replaces": ["a.parquet", "b.parquet"],
}


def plugin(*lines: str) -> str:
    # The names of the parameters are the plugin's choice, and there is no default.
    signature = "def process_persisted(influxdb3_local, found, arguments):\n"
    return signature + "".join(f"    {line}\n" for line in lines)


def texts(messages: list[Any]) -> list[str]:
    return [message.text for message in messages if message.DESCRIPTOR.name == "Log"]


def test_a_plugin_gets_what_is_known_and_fetches_what_it_wants(server: FakeServer) -> None:
    server.flight.answer = lambda ticket: pa.table({"i": [ticket.file.index] * 3})
    server.bind(
        plugin(
            "import json",
            "influxdb3_local.info(json.dumps(found), arguments)",
            "influxdb3_local.info(found[1].to_arrow().to_pylist())",
            "influxdb3_local.write(LineBuilder('m').int64_field('v', 1))",
        ),
        {"a": "b"},
    )
    completed, before = server.persisted(FILE, FILE)
    assert completed.WhichOneof("outcome") == "ok", completed
    said = texts(before)
    assert said == [f"{json.dumps([EXPECTED, EXPECTED])} {{'a': 'b'}}", str([{"i": 1}] * 3)]
    assert before[-1].text == b"m v=1i"
    # Only what was asked for was fetched, with the invocation's key.
    [ticket] = server.flight.tickets
    assert (ticket.WhichOneof("what"), ticket.key) == ("file", b"k" * 16)
    assert (ticket.file.index, ticket.file.first, ticket.file.rows_max) == (1, 0, 0)
    assert completed.timings.transfer_us > 0


def test_rows_come_part_by_part_if_a_plugin_wants_it_so(server: FakeServer) -> None:
    everything = pa.table({"i": list(range(PART_ROWS + 10))})
    server.flight.answer = lambda wanted: everything.slice(wanted.file.first, wanted.file.rows_max)
    server.bind(
        plugin(
            "numbers = [n for part in found[0].to_batches() for n in part.column(0).to_pylist()]",
            f"influxdb3_local.info(numbers == list(range({PART_ROWS + 10})))",
            "influxdb3_local.info(next(found[0].to_batches()).column(0)[0])",
        )
    )
    _, before = server.persisted(FILE)
    assert texts(before) == ["True", "0"]
    parts = [(wanted.file.first, wanted.file.rows_max) for wanted in server.flight.tickets]
    starts = [0, PART_ROWS, 0]
    assert parts == [(start, PART_ROWS) for start in starts]


def test_a_file_that_cannot_be_read_is_named(server: FakeServer) -> None:
    def refuse(_: Any) -> pa.Table:
        raise pa.flight.FlightServerError("it is gone")

    server.flight.answer = refuse
    server.bind(
        plugin(
            "from outrigger_plugin_host import FetchError",
            "for read in (found[0].to_arrow, lambda: list(found[0].to_batches())):",
            "    try:",
            "        read()",
            "    except FetchError as error:",
            "        influxdb3_local.info(error)",
        )
    )
    completed, before = server.persisted(FILE)
    assert completed.WhichOneof("outcome") == "ok", completed
    text = f"the rows of file '{FILE['path']}' could not be fetched: it is gone"
    # The fake server's Flight puts words behind it.
    said = texts(before)
    assert len(said) == 2
    assert all(line.startswith(text) for line in said), said


def test_a_file_outlives_its_run_as_a_plain_dict_only(server: FakeServer) -> None:
    server.bind(
        plugin(
            "before = influxdb3_local.cache.get('before')",
            "if before is None:",
            "    influxdb3_local.cache.put('before', found[0])",
            "else:",
            "    influxdb3_local.info(before['row_count'])",
            "    before.to_arrow()",
        )
    )
    assert server.persisted(FILE)[0].WhichOneof("outcome") == "ok"
    completed, before = server.persisted(FILE)
    assert texts(before) == ["3"]
    assert completed.error.type == "RunEndedError"


def test_copies_are_plain_dicts() -> None:
    file = PersistedFile(dict(EXPECTED), lambda _first, _rows: pa.table({}))
    assert file == EXPECTED
    for same in (copy.copy(file), copy.deepcopy(file), pickle.loads(pickle.dumps(file))):  # noqa: S301
        assert type(same) is dict
        assert same == EXPECTED
