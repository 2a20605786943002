"""How long from a write to the plugin's first line, and from its last to its readable result?

Not a program of its own.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from _accounts import accounts, breakdown
from _report import heading, times
from _server import FLUSH_INTERVAL, Bench, Server, wait_until

DURABLE = "write until durable and readable"
BUFFERED = "write until parsed and buffered"
FLUSHED = "buffered until the invocation starts: wait for the flush, fsync"
FIRST = "**invocation starts until the plugin's first line**"
READABLE = "plugin's last line until what it wrote is readable: wait for the flush, fsync"

ROUNDS = {1: 200, 1_000: 100, 50_000: 30}

PLUGIN = """
import time
def process_writes(influxdb3_local, table_batches, args=None):
    first = time.time_ns()
    count, total = 0, 0.0
    for batch in table_batches:
        for row in batch["rows"]:
            count += 1
            total += row["load"]
    line = LineBuilder("marks").int64_field("rows", count).int64_field("first", first)
    influxdb3_local.write(line.int64_field("last", time.time_ns()))
"""

# Starts when what the other has written is readable.
FOLLOWS = """
def process_writes(influxdb3_local, table_batches, args=None):
    pass
"""

# Rarely, so that asking does not disturb what is measured, and not in step with the flushes.
POLL_MIN_S, POLL_MAX_S = 0.06, 0.10


@dataclass(frozen=True)
class Round:
    """One write and what came of it; points in time in ns since 1970."""

    is_synced: bool
    sent: int
    answered: int
    first: int
    last: int


def run(bench: Bench) -> None:
    """Measure and print."""
    heading("From the flush to the plugin's first line, and on to its readable result")
    print(f"A warm worker; flush every {FLUSH_INTERVAL}. All on one machine's clock.\n")
    columns = {}
    for rows, rounds in ROUNDS.items():
        with bench.server() as server:
            columns[f"{rows} rows" if rows > 1 else "1 row"] = _measure(server, rows, rounds)
    times(columns)
    print("Half of the writes wait until they are durable, half (no_sync) until buffered.")
    print("What was written is readable when a trigger on its table starts.")


def _measure(server: Server, rows: int, rounds: int) -> dict[str, list[float]]:
    server.write("marks rows=0i,first=0i,last=0i 0")
    server.trigger("flush", "table:m", PLUGIN)
    server.trigger("follows", "table:marks", FOLLOWS)
    lines = _lines(rows)
    # The first two start the workers; they are not counted.
    measured = [_round(server, lines, is_synced=n % 2 == 0) for n in range(rounds + 2)][2:]
    found = accounts(server, "flush", rounds + 2)[2:]
    readable = [account.start_ns for account in accounts(server, "follows", rounds + 2)[2:]]
    if any(account.rows_in != rows or account.outcome != "ok" for account in found):
        raise SystemExit(f"not every invocation got {rows} rows and succeeded: {found}")
    figures: dict[str, list[float]] = {name: [] for name in (DURABLE, BUFFERED, FLUSHED, FIRST)}
    for one, account in zip(measured, found, strict=True):
        figures[DURABLE if one.is_synced else BUFFERED].append(_s(one.sent, one.answered))
        if not one.is_synced:
            figures[FLUSHED].append(_s(one.answered, account.start_ns))
        figures[FIRST].append(_s(account.start_ns, one.first))
    figures |= breakdown(found)
    pairs = zip(measured, readable, strict=True)
    figures[READABLE] = [_s(one.last, readable_ns) for one, readable_ns in pairs]
    return figures


def _round(server: Server, lines: str, *, is_synced: bool) -> Round:
    sent = time.time_ns()
    server.write(lines, no_sync=not is_synced)
    answered = time.time_ns()

    def mark() -> dict[str, int] | None:
        time.sleep(random.uniform(POLL_MIN_S, POLL_MAX_S))
        found = server.query(f'SELECT "first", "last" FROM marks WHERE "first" > {sent}')
        return found[0] if found else None

    seen = wait_until("the plugin's line", mark, pause_s=0)
    return Round(is_synced, sent, answered, seen["first"], seen["last"])


def _lines(rows: int) -> str:
    # The server gives the times, so that every write has new rows.
    return "\n".join(f"m,host=host-{n} load={n * 0.25},count={n}i,up=true" for n in range(rows))


def _s(start_ns: int, end_ns: int) -> float:
    return (end_ns - start_ns) * 1e-9
