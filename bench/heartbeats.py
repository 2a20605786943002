"""What does a plugin lose by being asked how it gets on?

A worker runs plugins with a fixed amount of work against the tests' own server, which probes it at
different rates, in turns. What counts is the processor time of the whole worker, which neighbours
on the machine change less than the clock's. Run with `target/py-dev/bin/python`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from _report import heading, table

HOST_PY = Path(__file__).parents[1] / "plugin-host-py"
sys.path[:0] = [str(HOST_PY / "src"), str(HOST_PY / "tests")]

import fake_server  # noqa: E402 - found through the path above

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

EVERY_S = 2.0
"""`PROBE_EVERY` in server/supervisor/src/worker/intervals.rs."""
TIMES = (0, 1, 10, 100)
SECONDS = 2.5
"""How long one run takes about, alone."""

PLUGIN = """
import random, time

NUMBERS = [random.random() for _ in range(20_000)]

def python(count):
    for _ in range(count):
        total = 0
        for number in range(20_000):
            total += number * number % 7

def c(count):
    for _ in range(count):
        sorted(NUMBERS)

def process_request(influxdb3_local, query, headers, body, args=None):
    work, count = globals()[query["kind"]], int(query["count"])
    started, cpu = time.perf_counter(), time.process_time()
    work(count)
    return f"{time.process_time() - cpu} {time.perf_counter() - started}"
"""
KINDS = {"python": "a loop in Python", "c": "C code that holds the lock: `sorted`, 5 ms each"}


class Probing:
    """Asks the worker about its invocation, again and again."""

    def __init__(self, server: fake_server.FakeServer, pause_s: float) -> None:
        """Ask every so many seconds; never, if 0."""
        self._server, self._pause_s = server, pause_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, invocation: str) -> None:
        """Begin."""
        if self._pause_s:
            self._thread = threading.Thread(target=self._ask, args=(invocation,))
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _ask(self, invocation: str) -> None:
        while not self._over.wait(self._pause_s):
            self._server.send(probe={"invocation": invocation})


def one(
    server: fake_server.FakeServer, kind: str, count: int, pause_s: float
) -> tuple[float, float, int]:
    """Run once; return processor time, time, and how many probes were answered."""
    probing = Probing(server, pause_s)
    name = server.start_event(request={"query": {"kind": kind, "count": str(count)}})
    probing.start(name)
    completed, before = server.finish()
    probing.stop()
    cpu, wall = completed.ok.response.body.decode().split()
    return float(cpu), float(wall), len(before)


def measure(server: fake_server.FakeServer, kind: str, rounds: int) -> Iterator[list[object]]:
    """Run in turns, and yield a row for each rate."""
    cpu, _, _ = one(server, kind, 50, 0)
    count = max(1, int(50 * SECONDS / cpu))
    found: dict[int, list[tuple[float, float, int]]] = {rate: [] for rate in TIMES}
    for _ in range(rounds):
        for rate in random.sample(TIMES, len(TIMES)):
            found[rate].append(one(server, kind, count, EVERY_S / rate if rate else 0))
    without = min(cpu for cpu, _, _ in found[0])
    for rate, runs in found.items():
        cpu = min(cpu for cpu, _, _ in runs)
        median = statistics.median(cpu for cpu, _, _ in runs)
        wall = statistics.median(wall for _, wall, _ in runs)
        answers = statistics.fmean(answers for _, _, answers in runs)
        change = f"{(cpu / without - 1) * 100:+.2f} %"
        each = f"{(cpu - without) / answers * 1e3:.2f}" if rate == TIMES[-1] and answers else ""
        every = f"every {EVERY_S / rate:g} s" if rate else "never"
        yield [
            KINDS[kind],
            every,
            f"{cpu:.3f}",
            change,
            f"{median:.3f}",
            f"{wall:.3f}",
            f"{answers:.1f}",
            each,
        ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    heading("A worker that is probed")
    rows: list[list[object]] = []
    directory: AbstractContextManager[str] = tempfile.TemporaryDirectory()
    with directory as path, fake_server.FakeServer(Path(path)) as server:
        server.start_worker()
        server.next()
        server.bind(PLUGIN)
        for kind in KINDS:
            rows += measure(server, kind, options.rounds)
    titles = ["work", "probed", "CPU s: best", "more CPU", "median", "wall s: median", "answers"]
    table([*titles, "CPU ms per answer"], rows)
    print("Answers are means.")


if __name__ == "__main__":
    main()
