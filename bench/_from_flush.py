"""How long from a write to the plugin's first line, and from its last to its readable result?

Not a program of its own.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

from _accounts import accounts, breakdown
from _report import heading, times
from _server import FLUSH_INTERVAL, Bench, Server, wait_until

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


@dataclass(frozen=True)
class Round:
    """One write and what came of it; points in time in ns since 1970."""

    is_synced: bool
    sent: int
    answered: int
    first: int
    last: int
    readable: int
    polls: list[float]


def run(bench: Bench) -> None:
    """Measure and print."""
    heading("From the flush to the plugin's first line, and on to its readable result")
    print(f"A warm worker; flush every {FLUSH_INTERVAL}. All on one machine's clock.\n")
    columns, polls = {}, []
    for rows, rounds in ROUNDS.items():
        with bench.server() as server:
            found, poll_times = _measure(server, rows, rounds)
        columns[f"{rows} rows" if rows > 1 else "1 row"] = found
        polls += poll_times
    times(columns)
    pause = statistics.median(polls) * 1e3
    print("Half of the writes wait until they are durable, half (no_sync) until buffered.")
    print(f"When a line is readable is known to one poll, {pause:.1f} ms (median).")


def _measure(server: Server, rows: int, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    server.write("marks rows=0i,first=0i,last=0i 0")
    server.trigger("flush", "table:m", PLUGIN)
    lines = _lines(rows)
    # The first two start the worker; they are not counted.
    measured = [_round(server, lines, is_synced=n % 2 == 0) for n in range(rounds + 2)][2:]
    found = accounts(server, "flush", rounds + 2)[2:]
    if any(account.rows_in != rows or account.outcome != "ok" for account in found):
        raise SystemExit(f"not every invocation got {rows} rows and succeeded: {found}")
    figures = defaultdict(list)
    for one, account in zip(measured, found, strict=True):
        if one.is_synced:
            figures["write until durable and readable"].append(_s(one.sent, one.answered))
        else:
            figures["write until parsed and buffered"].append(_s(one.sent, one.answered))
            figures["buffered until the invocation starts: wait for the flush, fsync"].append(
                _s(one.answered, account.start_ns)
            )
        figures["**invocation starts until the plugin's first line**"].append(
            _s(account.start_ns, one.first)
        )
    figures |= breakdown(found)
    figures["plugin's last line until what it wrote is readable: wait for the flush, fsync"] = [
        _s(one.last, one.readable) for one in measured
    ]
    return figures, [poll for one in measured for poll in one.polls]


def _round(server: Server, lines: str, *, is_synced: bool) -> Round:
    sent = time.time_ns()
    server.write(lines, no_sync=not is_synced)
    answered = time.time_ns()
    polls: list[int] = []

    def mark() -> dict[str, int] | None:
        polls.append(time.time_ns())
        found = server.query(f'SELECT "first", "last" FROM marks WHERE "first" > {sent}')
        return found[0] if found else None

    seen = wait_until("the plugin's line", mark, pause_s=0.0005)
    between = [_s(before, after) for before, after in zip(polls, polls[1:], strict=False)]
    return Round(is_synced, sent, answered, seen["first"], seen["last"], polls[-1], between)


def _lines(rows: int) -> str:
    # The server gives the times, so that every write has new rows.
    return "\n".join(f"m,host=host-{n} load={n * 0.25},count={n}i,up=true" for n in range(rows))


def _s(start_ns: int, end_ns: int) -> float:
    return (end_ns - start_ns) * 1e-9
