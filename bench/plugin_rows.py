"""How many rows per second a plugin gets through in a worker, beside the same loop in one process.

Writes batches of 50 000 rows with 5 columns to a real server. A trigger's plugin reads
every column of every row. The time of an invocation is the one that the server measured:
from handing it to the worker until its result was back, so it contains the transport, the
making of the row dicts and the loop. Beside it, in the same interpreter but without a
server: the same loop over dicts that are already there, and the same with the dicts made
from columns first, which is what an embedded engine has to do too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROWS = 50_000
COLUMNS = ("host", "load", "count", "up", "time")

PLUGIN = """
def work(rows):
    total = 0
    for row in rows:
        total += row["load"] + row["count"] + row["up"] + len(row["host"]) + row["time"] % 2
    return total

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        work(batch["rows"])
        influxdb3_local.info("rows", len(batch["rows"]))
"""

IN_PROCESS = (
    PLUGIN
    + """
import json, sys, time
rounds, rows = int(sys.argv[1]), int(sys.argv[2])
columns = {
    "host": [f"host-{n % 100}" for n in range(rows)],
    "load": [n * 0.25 for n in range(rows)],
    "count": list(range(rows)),
    "up": [n % 2 == 0 for n in range(rows)],
    "time": [1_700_000_000_000_000_000 + n for n in range(rows)],
}
def make():
    names = tuple(columns)
    return [dict(zip(names, values)) for values in zip(*columns.values())]
loops, builds = [], []
for _ in range(rounds):
    started = time.perf_counter()
    made = make()
    built = time.perf_counter()
    work(made)
    ended = time.perf_counter()
    loops.append(ended - built)
    builds.append(ended - started)
print(json.dumps({"loop": loops, "build": builds}))
"""
)

DURATION = re.compile(r"(\d+)(us|ms|ns|s|m)\b")
SECONDS = {"m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Server:
    """A server with the plugin's trigger, on a temporary directory."""

    def __init__(self, binary: Path, venv: Path, directory: Path) -> None:
        """Start it, and wait until it listens."""
        plugins = directory / "plugins"
        plugins.mkdir()
        (plugins / "rows.py").write_text(PLUGIN)
        address = directory / "address"
        self._log = (directory / "log").open("w")
        arguments = [
            *(binary, "serve", "--node-id", "bench", "--without-auth"),
            *("--data-dir", directory / "data", "--http-bind", "127.0.0.1:0"),
            *("--plugin-dir", plugins, "--virtual-env-location", venv),
            *("--wal-flush-interval", "20ms", "--tcp-listener-file-path", address),
        ]
        self._process = subprocess.Popen(
            [str(argument) for argument in arguments], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + 900
        while not (address.exists() and address.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                sys.exit((directory / "log").read_text())
            time.sleep(0.05)
        self._url = "http://" + address.read_text().strip()
        self._post("/api/v3/configure/database", {"db": "bench"})
        self._post(
            "/api/v3/configure/processing_engine_trigger",
            {
                "db": "bench",
                "plugin_filename": "rows.py",
                "trigger_name": "rows",
                "trigger_specification": "all_tables",
            },
        )

    def _post(self, path: str, body: object) -> None:
        text = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, text, headers)  # noqa: S310
        urllib.request.urlopen(request).read()  # noqa: S310

    def write(self, lines: str) -> float:
        """Write lines and return how long that took, in seconds."""
        started = time.perf_counter()
        url = self._url + "/api/v3/write_lp?db=bench&precision=nanosecond"
        urllib.request.urlopen(url, lines.encode()).read()  # noqa: S310
        return time.perf_counter() - started

    def query(self, sql: str) -> list[dict[str, str]]:
        """Run a query."""
        parameters = urllib.parse.urlencode({"db": "bench", "q": sql, "format": "json"})
        with urllib.request.urlopen(f"{self._url}/api/v3/query_sql?{parameters}") as answer:  # noqa: S310
            return json.load(answer)

    def invocations(self, count: int) -> list[float]:
        """Return the times of the first `count` invocations in seconds, once they are logged."""
        sql = (
            "SELECT log_text FROM system.processing_engine_logs "
            "WHERE log_text LIKE 'finished execution%' ORDER BY event_time"
        )
        deadline = time.monotonic() + 120
        while len(rows := self.query(sql)) < count:
            if time.monotonic() > deadline:
                sys.exit(f"only {len(rows)} of {count} invocations finished")
            time.sleep(0.05)
        return [seconds(row["log_text"]) for row in rows[:count]]

    def stop(self) -> None:
        """End the server."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()


def seconds(text: str) -> float:
    """Read `finished execution in 12ms 34us 567ns`."""
    return sum(int(number) * SECONDS[unit] for number, unit in DURATION.findall(text))


def lines(start: int) -> str:
    """Make a batch of line protocol."""
    return "\n".join(
        f"m,host=host-{n % 100} load={n * 0.25},count={n}i,up={'true' if n % 2 == 0 else 'false'} "
        f"{1_700_000_000_000_000_000 + start + n}"
        for n in range(ROWS)
    )


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/release/influxdb3"))
    parser.add_argument("--venv", type=Path, default=Path("target/bench-venv"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    os.environ.pop("VIRTUAL_ENV", None)
    with tempfile.TemporaryDirectory() as directory:
        server = Server(options.binary, options.venv.absolute(), Path(directory))
        try:
            writes = []
            # The first round starts the worker; it is not counted.
            for round_number in range(options.rounds + 1):
                writes.append(server.write(lines(round_number * ROWS)))
                server.invocations(round_number + 1)
            worker = server.invocations(options.rounds + 1)[1:]
        finally:
            server.stop()
    python = options.venv / "bin/python"
    arguments = [str(python), "-c", IN_PROCESS, str(options.rounds), str(ROWS)]
    output = subprocess.run(arguments, check=True, capture_output=True).stdout
    local = json.loads(output)
    loop = statistics.median(local["loop"])
    print(f"{ROWS} rows x {len(COLUMNS)} columns, median of {options.rounds} rounds\n")
    print(f"{'':58}{'ms':>8}{'rows/s':>12}{'ratio':>8}")
    for name, times in (
        ("one process: loop over dicts that are there", local["loop"]),
        ("one process: make the dicts from columns, then loop", local["build"]),
        ("worker: transport, make the dicts, loop, answer", worker),
        ("client: write 50 000 lines until durable and readable", writes[1:]),
    ):
        median = statistics.median(times)
        print(f"{name:58}{median * 1e3:8.1f}{ROWS / median:12.0f}{median / loop:8.2f}")


if __name__ == "__main__":
    main()
