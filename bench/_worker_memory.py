"""How much memory does a worker have for itself?

Not a program of its own.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from _accounts import accounts
from _processes import host, memory, wait_for_quiet_workers, workers
from _report import heading, table
from _server import Bench, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

SPARES = 8
CALLS = 100
ROWS = 50_000
MIB = 1 << 20

EMPTY = """
def process_request(influxdb3_local, query, headers, body, args=None):
    return "ok"
"""

HOLDS = """
import os, time
def process_writes(influxdb3_local, table_batches, args=None):
    rows = [row for batch in table_batches for row in batch["rows"]]
    influxdb3_local.info("holds", len(rows))
    while not os.path.exists("let_go"):
        time.sleep(0.01)
"""


def run(bench: Bench) -> None:
    """Measure and print."""
    heading("Memory of workers")
    rows: list[Sequence[object]] = []
    with bench.server("--plugin-spare-workers", str(SPARES)) as server:
        _measure(server, rows)
    titles = ["process", "n", "private MiB", "proportional MiB", "resident MiB"]
    table(titles, rows)
    print("Private: Private_Clean + Private_Dirty of /proc/PID/smaps_rollup; medians.")


def _measure(server: Server, rows: list[Sequence[object]]) -> None:
    names = [f"empty{n}" for n in range(SPARES)]
    for name in names:
        server.trigger(name, f"request:{name}", EMPTY)
    spares = wait_for_quiet_workers(server, SPARES)
    rows.append(_row("host", [host(server.pid) or 0]))
    rows.append(_row("idle worker: warm, bound to nothing", spares))
    # Several, since of what only one process has touched of a library, its pages are no other's.
    for name in names:
        server.call(name)
    wait_for_quiet_workers(server, 2 * SPARES)
    empty = [accounts(server, name, 1)[0].pid for name in names]
    rows.append(_row("idle worker: bound, after 1 invocation of an empty plugin", empty))
    for _ in range(CALLS):
        for name in names:
            server.call(name)
    rows.append(_row(f"idle worker: bound, after {CALLS + 1} invocations", empty))
    server.trigger("holds", "table:m", HOLDS)
    before = set(workers(server.pid))
    server.write(
        "\n".join(f"m,host=h{n % 100} load={n * 0.25},count={n}i {n}" for n in range(ROWS))
    )
    said = "SELECT 1 FROM system.processing_engine_logs WHERE log_text LIKE 'holds%'"
    wait_until("the plugin holds rows", lambda: server.query(said))
    busy = max(before - set(empty), key=lambda pid: memory(pid).private)
    rows.append(_row(f"busy worker: holds {ROWS} rows of 4 columns as dicts", [busy]))
    # Where its plugin may look: in its own directory.
    for kept in server.kept_directories():
        (kept / "let_go").touch()
    (account,) = accounts(server, "holds", 1)
    if account.pid != busy:
        raise SystemExit(f"worker {busy} was measured, but {account.pid} held the rows")
    rows.append(_row("- the same worker afterwards, idle", [busy]))
    rows.append(_row("server", [server.pid]))


def _row(name: str, pids: list[int]) -> Sequence[object]:
    found = [memory(pid) for pid in pids]
    kinds = (
        [one.private for one in found],
        [one.proportional for one in found],
        [one.resident for one in found],
    )
    return [name, len(pids), *(f"{statistics.median(kind) / MIB:.1f}" for kind in kinds)]
