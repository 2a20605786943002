"""What do 200 triggers on one machine get done, all of them active?

Not a program of its own.
"""

from __future__ import annotations

import time

from _processes import host, memory, workers
from _report import heading, table
from _server import Bench, Server, wait_until

TRIGGERS = 200
ROWS_PER_TABLE = 100
WRITES = 40
MIB = 1 << 20

PLUGIN = """
def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        total = 0.0
        for row in batch["rows"]:
            total += row["load"]
        line = LineBuilder("out").tag("table", batch["table_name"]).float64_field("total", total)
        influxdb3_local.write(line.int64_field("rows", len(batch["rows"])))
"""


def run(bench: Bench) -> None:
    """Measure and print."""
    heading(f"{TRIGGERS} triggers, all active")
    with bench.server() as server:
        # One file for all of them.
        server.trigger("t0", "table:t0", PLUGIN)
        for n in range(1, TRIGGERS):
            server.trigger_on(f"t{n}", f"table:t{n}", "t0.py")
        first = _write_and_wait(server, 1, TRIGGERS * ROWS_PER_TABLE)
        before = _done(server)
        writes = range(2, 2 + WRITES)
        started = time.perf_counter()
        for n in writes:
            server.write(_lines(n))
        written = time.perf_counter() - started
        rows = TRIGGERS * ROWS_PER_TABLE * (WRITES + 1)
        wait_until("all rows are dealt with", lambda: _done(server)["rows"] >= rows, pause_s=0.05)
        took = time.perf_counter() - started
        done = _done(server)
        _report(server, first, (written, took), before, done)


def _report(
    server: Server,
    first: float,
    durations: tuple[float, float],
    before: dict[str, int],
    done: dict[str, int],
) -> None:
    written, took = durations
    rows, invocations = done["rows"] - before["rows"], done["invocations"] - before["invocations"]
    pids = workers(server.pid)
    private = [memory(pid).private for pid in pids]
    host_pid = host(server.pid)
    kept = server.query("SELECT CAST(sum(rows) AS BIGINT) AS n FROM out")[0]["n"]
    table(
        ["", "value"],
        [
            ["first write until all have run, workers forked on demand", f"{first:.2f} s"],
            [f"then {WRITES} writes of {TRIGGERS} x {ROWS_PER_TABLE} rows", f"{written:.2f} s"],
            ["- until all rows were dealt with and the results readable", f"{took:.2f} s"],
            ["- rows per second through plugins", f"{rows / took:.0f}"],
            ["- invocations", invocations],
            ["- invocations per second", f"{invocations / took:.0f}"],
            ["invocations that failed", done["failed"]],
            ["rows delivered, of rows written", f"{done['rows']} of {_written()}"],
            ["rows counted in what the plugins wrote", kept],
            ["error lines in the plugin log", _errors(server)],
            ["workers", len(pids)],
            ["private memory of all workers", f"{sum(private) / MIB:.0f} MiB"],
            ["- of one, on average", f"{sum(private) / len(pids) / MIB:.1f} MiB"],
            ["- of their host", f"{memory(host_pid).private / MIB:.0f} MiB" if host_pid else ""],
            ["resident memory of the server", f"{memory(server.pid).resident / MIB:.0f} MiB"],
        ],
    )


def _write_and_wait(server: Server, n: int, rows: int) -> float:
    started = time.perf_counter()
    server.write(_lines(n))
    wait_until("all have run", lambda: _done(server)["rows"] >= rows, pause_s=0.05)
    return time.perf_counter() - started


def _written() -> int:
    return TRIGGERS * ROWS_PER_TABLE * (WRITES + 1)


def _done(server: Server) -> dict[str, int]:
    """Count what has ended, well or not."""
    sql = (
        "SELECT outcome, count(*) AS invocations, CAST(sum(rows_in) AS BIGINT) AS rows "
        "FROM system.plugin_invocations GROUP BY outcome"
    )
    found = {row["outcome"]: row for row in server.query(sql)}
    ok = found.pop("ok", {"invocations": 0, "rows": 0})
    failed = sum(row["invocations"] for row in found.values())
    return {"invocations": ok["invocations"], "rows": ok["rows"], "failed": failed}


def _errors(server: Server) -> int:
    sql = (
        "SELECT count(*) AS n FROM system.processing_engine_logs "
        "WHERE log_level IN ('ERROR', 'WARN')"
    )
    return int(server.query(sql)[0]["n"])


def _lines(write: int) -> str:
    return "\n".join(
        f"t{table} load={row * 0.25},count={row}i {write * 1_000_000 + row}"
        for table in range(TRIGGERS)
        for row in range(ROWS_PER_TABLE)
    )
