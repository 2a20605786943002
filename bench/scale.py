"""How does a server keep up with many rows, and what do typical queries cost beside DuckDB?

Writes rows of a thousand series with five fields as fast as the server takes them, kills it,
starts it again, then asks eight questions, each in turns of the server and of DuckDB on the same
Parquet files. Both must give the same answer. Needs the module `duckdb` (`make bench-scale`).
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from _report import circumstances, heading, table
from _restarts import Restarting

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES = 1000
REGIONS = 10
SPACING_S = 10
EPOCH_S = 1_700_000_400
BODY_ROWS = 20_000
WRITERS = 24
"""Each waits until what it wrote is durable: with default settings a second at most."""
VALUES = 10_000
"""How many values each field takes."""
SETTLE_S = 5.0
MIB = 1 << 20
NO_CONTENT = 204
OK = 200


class Server(Restarting):
    """A server with default settings, and what it takes."""

    def memory(self) -> tuple[int, int]:
        """Return its resident memory now and at its peak, in bytes."""
        found = {}
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0]) * 1024
        return found["VmRSS"], found["VmHWM"]

    def cpu(self) -> float:
        """Return the processor's time that it has used, in seconds."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Let the peak be that from now on."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")

    @property
    def _pid(self) -> int:
        if self.process is None:
            raise RuntimeError("the server was not started")
        return self.process.pid


def bodies(rows: int, writer: int) -> Iterator[bytes]:
    """Yield what one of the writers writes: every so many steps of time, all series."""
    chosen = random.Random(writer)
    heads = [f"cpu,host=host_{n},region=region_{n % REGIONS} u0=" for n in range(SERIES)]
    floats = [f"{chosen.uniform(0, 100):.2f}" for _ in range(VALUES)]
    integers = [f"{chosen.randrange(1_000_000)}i" for _ in range(VALUES)]
    steps = BODY_ROWS // SERIES
    for body in range(writer, rows // BODY_ROWS, WRITERS):
        lines = []
        for step in range(body * steps, (body + 1) * steps):
            end = f" {EPOCH_S + step * SPACING_S}000000000\n"
            u = [chosen.choices(floats, k=SERIES) for _ in range(4)]
            counts = chosen.choices(integers, k=SERIES)
            lines += [
                f"{head}{a},u1={b},u2={c},u3={d},n={n}{end}"
                for head, a, b, c, d, n in zip(heads, *u, counts, strict=True)
            ]
        yield "".join(lines).encode()


def write(server: Server, rows: int) -> tuple[float, int]:
    """Write; return the seconds that it took, and the bytes that were sent."""
    sent = [0] * WRITERS
    failures: list[str] = []

    def writer(number: int) -> None:
        connection = server.connect()
        for body in bodies(rows, number):
            while True:
                connection.request("POST", "/api/v3/write_lp?db=scale", body)
                with connection.getresponse() as response:
                    status, text = response.status, response.read()
                if status != http.client.SERVICE_UNAVAILABLE:
                    break
                # It asks to be given time.
                time.sleep(0.05)
            if status != NO_CONTENT:
                failures.append(f"{status} {text.decode(errors='replace')}")
                return
            sent[number] += len(body)

    began = time.perf_counter()
    threads = [threading.Thread(target=writer, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(failures[0])
    return time.perf_counter() - began, sum(sent)


@dataclass(frozen=True)
class Question:
    """The same for both."""

    what: str
    ours: str
    theirs: str


def questions(rows: int) -> list[Question]:
    """Return eight typical ones."""
    steps = rows // SERIES
    middle = EPOCH_S + steps // 2 * SPACING_S

    def at(second: int) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))

    hour = f"time >= '{at(middle)}' AND time < '{at(middle + 3600)}'"

    def same(what: str, sql: str) -> Question:
        return Question(what, sql, sql)

    return [
        Question(
            "last point of each series",
            "SELECT host, max(time) AS t, last_value(u0 ORDER BY time) AS v FROM cpu GROUP BY host",
            "SELECT host, max(time) AS t, arg_max(u0, time) AS v FROM cpu GROUP BY host",
        ),
        same(
            "one hour, aggregated by a tag",
            f"SELECT region, avg(u0) AS a, max(u1) AS b FROM cpu WHERE {hour} GROUP BY region",
        ),
        Question(
            "averages per ten minutes over all",
            "SELECT date_bin(INTERVAL '10 minutes', time) AS t, avg(u0) AS a FROM cpu GROUP BY 1",
            "SELECT time_bucket(INTERVAL '10 minutes', time) AS t, avg(u0) AS a "
            "FROM cpu GROUP BY 1",
        ),
        same(
            "a group for each of many values",
            "SELECT count(*) AS c FROM (SELECT host, n, sum(u2) AS s FROM cpu GROUP BY host, n)",
        ),
        same(
            "one point",
            f"SELECT u0, u1, u2, u3, n FROM cpu WHERE host = 'host_7' AND time = '{at(middle)}'",
        ),
        same(
            "a hundred whole rows of an hour",
            f"SELECT * FROM cpu WHERE {hour} LIMIT 100",
        ),
        same("count(*)", "SELECT count(*) AS c FROM cpu"),
        Question(
            "count by a regular expression",
            "SELECT count(*) AS c FROM cpu WHERE host ~ '^host_[0-9]7$' AND u0 > 50",
            "SELECT count(*) AS c FROM cpu WHERE regexp_matches(host, '^host_[0-9]7$') AND u0 > 50",
        ),
    ]


def ask(connection: http.client.HTTPConnection, sql: str) -> list[Any]:
    """Ask the server."""
    parameters = urllib.parse.urlencode({"db": "scale", "q": sql, "format": "json"})
    connection.request("GET", f"/api/v3/query_sql?{parameters}")
    with connection.getresponse() as response:
        answer = response.read()
        if response.status != OK:
            sys.exit(f"{sql}: {response.status} {answer.decode(errors='replace')}")
    return [tuple(row.values()) for row in json.loads(answer)]


def comparable(rows: list[Any]) -> list[tuple[str, ...]]:
    """Return rows in an order and a form in which both sides' are the same."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.6g}"
        if hasattr(value, "isoformat"):
            return str(value.isoformat())
        return str(value).removesuffix("Z")

    return sorted(tuple(cell(value) for value in row) for row in rows)


def compare(server: Server, files: list[str], rows: int, turns: int) -> None:
    """Ask both in turns and print what it took."""
    other = duckdb.connect()
    other.execute("SET TimeZone = 'UTC'")
    other.execute(f"CREATE VIEW cpu AS SELECT * FROM read_parquet({files!r})")
    connection = server.connect()
    lines = []
    for question in questions(rows):
        ours, theirs = list[float](), list[float]()
        server.forget_peak()
        for turn in range(turns + 1):
            began = time.perf_counter()
            answer = ask(connection, question.ours)
            between = time.perf_counter()
            expected = other.execute(question.theirs).fetchall()
            end = time.perf_counter()
            if turn:
                # The first is to warm up.
                ours.append(between - began)
                theirs.append(end - between)
        if "LIMIT" in question.ours:
            same = len(answer) == len(expected)
        else:
            same = comparable(answer) == comparable(expected)
        if not same:
            print(comparable(answer)[:3], comparable(expected)[:3], sep="\n")
            sys.exit(f"{question.what}: the answers differ")
        a, b = statistics.median(ours), statistics.median(theirs)
        peak = f"{server.memory()[1] / MIB:,.0f}"
        lines.append([question.what, f"{a * 1e3:.1f}", f"{b * 1e3:.1f}", f"{a / b:.2f}", peak])
    titles = ["query, ms (medians, in turns)", "server", "DuckDB", "ratio", "server's peak, MiB"]
    table(titles, lines)


def main() -> None:
    """Load, kill, ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/release/influxdb3"))
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    circumstances(options.binary)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = Server(options.binary, directory, "scale")
        try:
            run(server, directory, options.rows, options.turns)
        finally:
            server.kill()


def run(server: Server, directory: Path, rows: int, turns: int) -> None:
    """Do it on a fresh server."""
    server.start()
    heading(f"{rows:,} rows, {SERIES} series, 2 tags, 5 fields; {WRITERS} writers")
    took, sent = write(server, rows)
    cpu, (_, peak) = server.cpu(), server.memory()
    figures = [
        ["rows per second", f"{rows / took:,.0f}"],
        ["- per second of the server's processor time", f"{rows / cpu:,.0f}"],
        ["line protocol, bytes per row", f"{sent / rows:.1f}"],
        ["peak of resident memory", f"{peak / MIB:,.0f} MiB"],
    ]
    server.end(signal.SIGKILL)
    figures.append(["start after a kill", f"{server.start():.2f} s"])
    figures.append(["ordered stop, with a snapshot", f"{server.end(signal.SIGTERM):.2f} s"])
    figures.append(["start after that", f"{server.start():.2f} s"])
    files = settled(server, directory)
    size = sum(path.stat().st_size for path in files)
    figures.append(["Parquet files", str(len(files))])
    figures.append(["bytes per row in them", f"{size / rows:.1f}"])
    table(["what", "measured"], figures)
    compare(server, [str(path) for path in files], rows, turns)


def settled(server: Server, directory: Path) -> list[Path]:
    """Wait until the table's files hold all rows and no more files are joined; return them."""
    connection = server.connect()
    sql = "SELECT path FROM system.parquet_files WHERE table_name = 'cpu'"
    seen: list[Any] = []
    for _ in itertools.count():
        now = sorted(ask(connection, sql))
        if now == seen:
            break
        seen = now
        time.sleep(SETTLE_S)
    listed = {Path(path).name for (path,) in seen}
    return [path for path in directory.rglob("*.parquet") if path.name in listed]


if __name__ == "__main__":
    main()
